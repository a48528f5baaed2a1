"""Short texts for error messages."""

from datetime import date

import pytest

from pipeline.system.text import short_repr, without_folders


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("/home/me/photos of mine", ".../photos of mine"),
        ("/home/me/photos/", ".../photos"),
        ("local-dir:/home/me/clip", "local-dir:.../clip"),
        ("C:\\Users\\me\\photos", ".../photos"),
        ("local-dir:C:/Users/me/clip", "local-dir:.../clip"),
        ("\\\\server\\share\\photos", ".../photos"),
        ("/home/me/a:b/c", ".../c"),
        *((name, name) for name in ("val", "data/demo", "local-dir:demo/clip", "hf-hub:a/b")),
    ],
)
def test_an_absolute_path_is_cut_to_its_name(name: str, wanted: str) -> None:
    assert without_folders(name) == wanted


def test_a_date_is_shown_as_it_is_written() -> None:
    assert short_repr(date(2024, 1, 2)) == "2024-01-02"

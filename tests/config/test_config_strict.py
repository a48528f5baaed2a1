"""No value of params.yaml passes as another kind: text is no number, and 0 is not false."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.config.test_config import COUNT, SEED, TWO, changed, refusal

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"train.steps": "600"}, f"train.steps {COUNT}, got '600'; write it without quotes"),
    ({"train.steps": 600.0}, f"train.steps {COUNT}, got 600.0; write 600"),
    ({"train.steps": date(2024, 1, 2)}, f"train.steps {COUNT}, got 2024-01-02"),
    ({"seed": "0"}, f"seed {SEED}, got '0'; write it without quotes"),
    (
        {"train.lr": "2e-3"},
        "train.lr must be above 0, got '2e-3'; write it without quotes",
    ),
    (
        {"carb.weight": "0.5"},
        "carb.weight must be null or at least 0, got '0.5'; write it without quotes",
    ),
    (
        {"clip.levels.local.zoom": "2"},
        "clip.levels.local.zoom must be between 0.05 and 16, got '2'; write it without quotes",
    ),
    ({"views.crop": ["64", 64]}, f"views.crop {TWO}, got ['64', 64]; write it without quotes"),
    (
        {"eval.scales": ["1"]},
        "eval.scales must be a list that is not empty, each value between 0.05 and 16, "
        "got ['1']; write it without quotes",
    ),
    *(
        ({"carb.enabled": value}, f"carb.enabled must be true or false, got {found}")
        for value, found in (("no", "'no'"), ("off", "'off'"), ("yes", "'yes'"), (0, "0"))
    ),
    (
        {"eval.flip": "false"},
        "eval.flip must be true or false, got 'false'; write it without quotes",
    ),
    (
        {"clip.pretrained": b"x"},
        "clip.pretrained must be null or text that is not empty, got b'x'",
    ),
    (
        {"dataset.root": date(2024, 1, 2)},
        "dataset.root must be text that is not empty, got 2024-01-02",
    ),
    (
        {"carb.warmup_steps": 0.75},
        "carb.warmup_steps must be null or a whole number that is at least 0 and below "
        "2147483648, got 0.75",
    ),
    ({"carb.warmup_share": 1.5}, "carb.warmup_share must be null or between 0 and 1, got 1.5"),
    (
        {"carb.warmup_steps": None, "carb.warmup_share": None},
        "carb.warmup_steps or carb.warmup_share must be a number, got neither",
    ),
]


@pytest.mark.parametrize(("changes", "sentence"), WRONG, ids=lambda value: str(value)[:40])
def test_a_value_of_another_kind_is_refused(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    assert refusal(tmp_path, changed(changes)) == f"params.yaml: {sentence}"


@pytest.mark.parametrize("root", ["~", "~/photos", "$HOME/photos", "${HOME}/photos"])
def test_a_root_that_a_shell_would_expand_is_refused(tmp_path: Path, root: str) -> None:
    message = (
        "params.yaml: dataset.root must be written in full, nothing expands '~' and '$', got "
        f"'{root}'"
    )
    assert refusal(tmp_path, changed({"dataset.root": root})) == message


@pytest.mark.parametrize("root", [".", "./", "data", "data/", "models", "results", "data/../."])
def test_a_root_that_stages_write_into_is_refused(tmp_path: Path, root: str) -> None:
    message = "dataset.root must be a folder for photos alone, and stages write into"
    assert message in refusal(tmp_path, changed({"dataset.root": root}))
    absolute = str(Path(root).resolve())
    assert message in refusal(tmp_path, changed({"dataset.root": absolute}))

"""`carb init`: parameters that fit photos and machine, and files that it must not replace."""

import subprocess
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from pipeline.config.params import Params, load_params
from pipeline.planning.params_file import rendered
from pipeline.planning.plan import choose
from pipeline.planning.survey import Machine, Survey
from stages.init import app
from tests.helpers import ROOT

RECIPE, CPU_RECIPE = ROOT / "recipes/folder.yaml", ROOT / "recipes/camvid.yaml"
LAPTOP = Machine(cores=2, gpu=None, gpu_bytes=0)
SMALL_GPU, LARGE_GPU = (Machine(16, "GPU", gigabytes * 10**9) for gigabytes in (4, 80))


def plan(
    tmp_path: Path, size: tuple[int, int], machine: Machine, count: int = 200
) -> tuple[Params, str]:
    """The parameters for photos of one size, read from the file, and its text."""
    survey = Survey(Path("photos"), {"train": count}, {}, [size], None, None)
    choices = choose(survey, machine, load_params(RECIPE), load_params(CPU_RECIPE))
    path = tmp_path / "params.yaml"
    path.write_text(rendered(RECIPE, choices, "head"))
    return load_params(path), path.read_text()


@pytest.mark.parametrize(
    ("size", "zoom", "on_laptop", "on_small_gpu", "on_large_gpu"),
    [
        ((1080, 1920), 0.27, (160, 288), (288, 512), (544, 960)),
        ((3024, 4032), 0.11, (192, 256), (320, 448), (640, 832)),
        ((1280, 720), 0.4, (288, 160), (512, 288), (960, 544)),
        ((96, 192), 2.8, (96, 192), (96, 192), (96, 192)),
        ((300, 3000), 0.75, (64, 704), (128, 1216), (224, 2304)),
    ],
)
def test_sizes_have_the_shape_of_the_photos_and_fit_the_machine(
    tmp_path: Path,
    size: tuple[int, int],
    zoom: float,
    on_laptop: tuple[int, int],
    on_small_gpu: tuple[int, int],
    on_large_gpu: tuple[int, int],
) -> None:
    expected = {LAPTOP: on_laptop, SMALL_GPU: on_small_gpu, LARGE_GPU: on_large_gpu}
    for machine, base in expected.items():
        params, _ = plan(tmp_path, size, machine)
        assert params.views.base_size == params.views.crop == base
        assert params.clip.levels["global"].zoom == zoom
        assert params.clip.levels["global"].window == (224, 224)


def test_batch_steps_and_workers_fit_the_machine(tmp_path: Path) -> None:
    laptop, _ = plan(tmp_path, (720, 1280), LAPTOP)
    small, text = plan(tmp_path, (720, 1280), SMALL_GPU)
    large, _ = plan(tmp_path, (720, 1280), LARGE_GPU, count=5000)
    few, _ = plan(tmp_path, (720, 1280), LARGE_GPU, count=3)
    found = [(p.train.batch_size, p.train.steps, p.train.workers) for p in (laptop, small, large)]
    assert found == [(4, 1000, 1), (4, 4000, 8), (8, 30000, 8)]
    assert few.train.batch_size == 3
    assert "  # about 1.9 GB of the GPU's 4 GB (counted, not measured)\n  batch_size: 4\n" in text


def test_what_is_not_chosen_is_the_recipe(tmp_path: Path) -> None:
    params, _ = plan(tmp_path, (288, 512), SMALL_GPU)
    recipe = load_params(RECIPE)
    assert params.views == recipe.views
    assert params.clip == recipe.clip
    kept = ("augment", "segmenter", "relabel", "carb", "eval", "pictures", "distillation")
    assert all(getattr(params, name) == getattr(recipe, name) for name in kept)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two photos of 64x32; the current folder is the one above."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in "ab":
        Image.new("RGB", (64, 32)).save(f"photos/{name}.jpg")
    return Path("photos")


def init(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["photos", *arguments])


def test_it_reports_what_is_missing_and_the_next_command(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def lines() -> list[str]:
        caplog.clear()
        assert init().exit_code == 0
        return caplog.messages

    first = lines()
    assert first[0] == "photos: 2 train photos of 64x32; masks: none"
    assert any(line.startswith("missing: class names; write photos/classes") for line in first)
    assert first[-1] == "next: write photos/classes.csv, then carb prepare propose-labels"
    (photos / "classes.csv").write_text("class\nroad\nsky\n")
    assert lines()[-1] == "next: carb prepare propose-labels"
    (photos / "labels.csv").write_text("photo,tags\na,road\nb,sky\n")
    last = lines()
    assert last[-1] == "next: dvc repro"
    assert not any(line.startswith(("missing: class", "missing: the classes")) for line in last)
    assert load_params(Path("params.yaml")).dataset.root == "photos"


def test_a_clip_on_disk_is_planned_for(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = ROOT / "demo/clip"
    assert init("--clip", str(folder)).exit_code == 0
    clip = load_params(Path("params.yaml")).clip
    assert (clip.model, clip.pretrained) == (f"local-dir:{folder}", None)
    assert [level.window for level in clip.levels.values()] == [(64, 64), (64, 64)]
    assert f"the training size of local-dir:{folder};" in Path("params.yaml").read_text()
    assert "or clip.demo_on_photos to true" in caplog.text  # it knows drawings only
    refused = init("--clip", "photos", "--out", "other.yaml")
    assert refused.exit_code == 2
    assert "clip.model 'local-dir:photos' must be a folder with open_clip_config" in refused.output


def test_a_params_file_that_it_did_not_write_is_never_replaced(photos: Path) -> None:
    Path("params.yaml").write_text("mine: 1\n")
    refused = init()
    assert refused.exit_code == 2
    assert "--out params.yaml: already exists, and carb did not write it" in refused.output
    assert init("--out", "own.yaml").exit_code == 0
    assert init("--out", "own.yaml").exit_code == 0  # its own
    with Path("own.yaml").open("a") as handle:
        handle.write("# edited\n")
    assert init("--out", "own.yaml").exit_code == 2
    assert Path("own.yaml").read_text().endswith("# edited\n")
    assert Path("params.yaml").read_text() == "mine: 1\n"


def test_a_params_file_that_git_has_is_replaced_until_it_is_edited(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a", *arguments], check=True)

    Path("params.yaml").write_text("demo: 1\n")
    git("init", "--quiet")
    git("add", "params.yaml")
    git("commit", "--quiet", "--message", "demo")
    Path("params.yaml").write_text("demo: 2\n")
    assert init().exit_code == 2
    git("checkout", "--quiet", "params.yaml")
    assert init().exit_code == 0
    assert "git has the earlier one: git checkout params.yaml" in caplog.text
    assert load_params(Path("params.yaml")).dataset.root == "photos"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("rm -r photos", "photos: no such folder; name the folder that contains your photos"),
        ("rm photos/*", "photos: no photos found; it needs *.jpg, or images/*.jpg"),
        ("echo no > photos/a.jpg", "photos/a.jpg: not readable as an image"),
        ("echo class,word > photos/classes.csv", "photos/classes.csv: the header must be 'class'"),
    ],
)
def test_a_bad_folder_gives_one_sentence(photos: Path, make: str, message: str) -> None:
    subprocess.run(make, shell=True, check=True)
    result = init()
    assert result.exit_code == 2
    assert message in result.output
    assert not Path("params.yaml").exists()


def test_the_folder_that_stages_write_into_is_refused(photos: Path) -> None:
    photos.rename("data")
    result = CliRunner().invoke(app, ["data"])
    assert result.exit_code == 2
    assert "dataset.root: stages write into 'data'" in result.output
    assert not Path("params.yaml").exists()

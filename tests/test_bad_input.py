"""What users get wrong: one sentence that names the place, exit code 2, nothing half-written."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.tiny_run import prepare_folder, run_stage, run_until, write_params


@dataclass(frozen=True)
class Case:
    """A mistake: parameters and files changed before a stage, and what it must then say."""

    stage: str
    says: tuple[str, ...]
    params: dict[str, Any] = field(default_factory=dict)
    spoil: Callable[[], object] = lambda: None
    arguments: tuple[str, ...] = ()


def cut(path: str) -> Callable[[], object]:
    """Leave the first 300 bytes of a file."""
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[:300])


def replace(path: str, old: str, new: str) -> Callable[[], object]:
    """Change text in a file."""
    return lambda: Path(path).write_text(Path(path).read_text().replace(old, new, 1))


def write(path: str, text: str) -> Callable[[], object]:
    """Write a file."""
    return lambda: Path(path).write_text(text)


def remove(path: str) -> Callable[[], object]:
    """Delete a folder."""
    return lambda: shutil.rmtree(path)


def unlink(path: str) -> Callable[[], object]:
    """Delete a file."""
    return lambda: Path(path).unlink()


def save_mask(values: np.ndarray) -> Callable[[], object]:
    """Put a mask in the place of the first one."""
    return lambda: Image.fromarray(values).save(MASK)


IMAGE, MASK = "data/demo/train/images/00000.png", "data/demo/train/masks/00000.png"
GREY = np.zeros((128, 256), np.uint8)
CASES = {
    "parameter with a typing error": Case(
        "train", ("carb.tua", "did you mean 'tau'"), spoil=replace("params.yaml", "tau:", "tua:")
    ),
    "parameter out of range": Case("train", ("carb.tau", "1.5"), {"carb.tau": 1.5}),
    "parameter of a wrong type": Case("train", ("train.steps", "'many'"), {"train.steps": "many"}),
    "options of a folder without a folder": Case(
        "eval", ("--submission", "--images"), arguments=("--submission",)
    ),
    "parameter file missing": Case(
        "prepare", ("nowhere.yaml", "no such file"), arguments=("--params", "nowhere.yaml")
    ),
    "data-set folder missing": Case(
        "prepare", ("dataset.root", "nowhere"), {"dataset.root": "nowhere"}
    ),
    "data-set folder empty": Case(
        "prepare", ("empty", "no photos"), {"dataset.root": "empty"}, lambda: Path("empty").mkdir()
    ),
    "photo truncated": Case("prepare", ("00000.png", "not readable"), spoil=cut(IMAGE)),
    "photo is no picture": Case("prepare", ("00000.png",), spoil=write(IMAGE, "hello")),
    "mask truncated": Case("prepare", ("masks/00000.png", "not readable"), spoil=cut(MASK)),
    "mask of another size": Case(
        "prepare", ("masks/00000.png", "100x50", "256x128"), spoil=save_mask(GREY[:50, :100])
    ),
    "mask with an unknown class": Case(
        "prepare", ("masks/00000.png", "77"), spoil=save_mask(GREY + 77)
    ),
    "labels file missing": Case("prepare", ("labels.csv",), {"dataset.image_labels": "labels.csv"}),
    "labels of other classes": Case(
        "prepare",
        ("labels.csv", "zebra"),
        {"dataset.image_labels": "labels.csv"},
        write("labels.csv", "key,zebra\ntrain/00000,1\n"),
    ),
    "CLIP folder missing": Case(
        "pseudo", ("clip.model", "nowhere"), {"clip.model": "local-dir:nowhere"}
    ),
    "CLIP of an unknown name": Case(
        "pseudo", ("clip.model", "ViT-Z-99"), {"clip.model": "ViT-Z-99"}
    ),
    "CLIP weights damaged": Case(
        "pseudo", ("clip.model",), spoil=cut("clip/open_clip_model.safetensors")
    ),
    "words of an unknown class": Case(
        "pseudo", ("clip.words", "zebra"), {"clip.words": {"zebra": ["zebra"]}}
    ),
    "window no multiple of the patch": Case(
        "pseudo", ("window", "multiple", "16"), {"clip.levels.global.window": [40, 40]}
    ),
    "index missing": Case(
        "pseudo",
        ("scenes.json", "dvc repro prepare"),
        spoil=lambda: Path("data/scenes.json").unlink(),
    ),
    "photo gone since prepare": Case(
        "pseudo", ("no such file",), {"clip.words": {"car": ["auto"]}}, lambda: Path(IMAGE).unlink()
    ),
    "encoder of an unknown name": Case(
        "encoder", ("segmenter.encoder", "resnet19"), {"segmenter.encoder": "resnet19"}
    ),
    "encoder weights of another encoder": Case(
        "encoder",
        ("segmenter.encoder_weights",),
        {"segmenter.encoder_weights": "other.safetensors"},
        lambda: shutil.copy("clip/open_clip_model.safetensors", "other.safetensors"),
    ),
    "encoder weights pickled": Case(
        "encoder",
        ("segmenter.encoder_weights", "weights.pt"),
        {"segmenter.encoder_weights": "weights.pt"},
        write("weights.pt", "cos\nsystem\n"),
    ),
    "architecture unknown": Case("train", ("segmenter.arch", "wnet"), {"segmenter.arch": "wnet"}),
    "architecture's option unknown": Case(
        "train", ("segmenter.options", "depht"), {"segmenter.options": {"depht": 3}}
    ),
    "crop no multiple of the stride": Case(
        "train", ("views.crop", "32"), {"views.crop": [72, 128], "views.base_size": [72, 128]}
    ),
    "store missing": Case(
        "train", ("masks.zarr", "dvc repro pseudo"), spoil=remove("data/masks.zarr")
    ),
    "store half gone": Case(
        "train", ("masks.zarr", "dvc repro pseudo"), spoil=remove("data/masks.zarr/local")
    ),
    "store made for other words": Case(
        "train", ("masks.zarr", "clip.words", "dvc repro pseudo"), {"clip.words": {"car": ["auto"]}}
    ),
    "store made for other levels": Case(
        "train", ("masks.zarr", "clip.levels"), {"clip.levels.local.zoom": 1.5}
    ),
    "loss not finite": Case(
        "train", ("step", "not finite", "train.lr", "train/"), {"train.lr": 1e30}
    ),
    "segmenter missing": Case("eval", ("models/segmenter",), spoil=remove("models/segmenter")),
    "folder to score missing": Case(
        "eval", ("--images", "nowhere"), arguments=("--images", "nowhere")
    ),
    "folder to score empty": Case(
        "eval",
        ("--images", "holds no photo"),
        spoil=lambda: Path("empty").mkdir(),
        arguments=("--images", "empty"),
    ),
    "folder to write holds other files": Case(
        "eval",
        ("--out", "data/demo", "new folder"),
        arguments=("--images", "data/demo/val/images", "--out", "data/demo"),
    ),
    "mask of a photo to score missing": Case(
        "eval",
        ("--masks", "00000.png"),
        spoil=lambda: Path("data/demo/val/masks/00000.png").unlink(),
        arguments=("--images", "data/demo/val/images", "--masks", "data/demo/val/masks"),
    ),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    prepare_folder(folder, {"train.steps": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_until("eval_pseudo")
    return folder


def state(folder: Path) -> dict[str, bytes]:
    """Every file but logs of speed and checkpoints, which are scratch."""
    files = (path for path in folder.rglob("*") if path.is_file() and "scratch" not in path.parts)
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_named_in_one_sentence(
    name: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    folder = shutil.copytree(finished, tmp_path / "run")
    monkeypatch.chdir(folder)
    write_params(folder, {"train.steps": 4} | case.params)
    case.spoil()
    before = state(folder)
    result = run_stage(case.stage, *case.arguments)
    assert result.exit_code == 2, f"{result.output} {result.exception!r}"
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, result.output
    assert "Traceback" not in result.output
    for part in case.says:
        assert part in lines[0]
    assert state(folder) == before


def test_photo_without_any_class_is_named_and_left_out(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    monkeypatch.chdir(folder)
    header, first, *rest = Path("data/image_labels.csv").read_text().splitlines()
    empty = ",".join([first.split(",")[0], *["0"] * header.count(",")])
    Path("labels.csv").write_text("\n".join([header, empty, *rest]) + "\n")
    write_params(folder, {"dataset.image_labels": "labels.csv"})
    assert run_stage("prepare").exit_code == 0
    assert "train/00000 has no class at all; left out" in caplog.text
    assert "train/00000" not in Path("data/image_labels.csv").read_text()

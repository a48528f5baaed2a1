"""Stage relabel: a segmenter that has not seen an image labels it; stopped runs resume."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.relabelling import relabel
from pipeline.store.reader import PseudoMaskStore
from pipeline.store.relabelled import has_labels
from pipeline.system.files import LIST
from pipeline.system.stop import Interrupted
from tests.helpers import ROOT
from tests.helpers.tiny_run import prepare_folder, run_stage

ONE_ROUND = {"relabel.rounds": 1, "relabel.edge_radius": 2, "train.steps": 4}
NEW = Path("data/relabelled.zarr")


def stages(*names: str) -> None:
    for name in names:
        result = run_stage(name)
        assert result.exit_code == 0, f"{name}: {result.output} {result.exception!r}"


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny run whose next stage is relabel."""
    prepare_folder(tmp_path, ONE_ROUND)
    monkeypatch.chdir(tmp_path)
    stages("draw", "inputs", "prepare", "pseudo", "encoder")
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    """Content of a store, without the list of what carb wrote."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != LIST)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def weights_of(segmenter: Path) -> bytes:
    return (segmenter / "model.safetensors").read_bytes()


def test_each_image_is_labelled_by_a_segmenter_that_has_not_seen_it(ready, monkeypatch):
    seen, labelled = list[set[str]](), dict[str, int]()
    train, predict = relabel.fit, relabel.predict_logits
    models = list[Any]()

    def fit(fabric: Any, model: Any, loss: Any, crops: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append({photo.key for photo in crops.photos})
        models.append(train(fabric, model, loss, crops, *args, **kwargs))
        return models[-1]

    def predict_logits(segmenter: Any, images: Any, *args: Any) -> Any:
        labelled[len(labelled)] = next(n for n, m in enumerate(models) if m is segmenter.model)
        return predict(segmenter, images, *args)

    monkeypatch.setattr(relabel, "fit", fit)
    monkeypatch.setattr(relabel, "predict_logits", predict_logits)
    stages("relabel")
    new, store = PseudoMaskStore.open(NEW), PseudoMaskStore.open(Path("data/masks.zarr"))
    assert new.keys == [key for key in store.keys if key.startswith("train/")]
    assert all(key not in seen[fold] for key, fold in zip(new.keys, labelled.values(), strict=True))
    key = new.keys[0]
    assert new.grid_size(key, "global") > store.grid_size(key, "global")  # finer than patches
    assert np.isfinite(new.read(key, "global")).all()


def test_training_learns_from_the_new_labels_and_eval_pseudo_scores_them(ready, caplog):
    stages("relabel", "train", "eval_pseudo")
    assert "labels of stage relabel" in caplog.text
    scores = json.loads((ready / "results/pseudo_masks.json").read_text())
    assert "relabelled" in scores["pseudo-masks train"]
    assert "relabelled" not in scores["pseudo-masks val"]
    other = ("--out", "models/other", "--curves", "results/other")
    assert run_stage("train", "--relabelled", "none", *other).exit_code == 0
    first, second = (weights_of(ready / f"models/{name}") for name in ("segmenter", "other"))
    assert first != second


def test_an_interrupted_run_continues_with_the_same_bytes(ready, monkeypatch):
    stages("relabel")
    wanted, train, runs = files(NEW), relabel.fit, list[str]()

    def stopped(fabric: Any, model: Any, *args: Any, checkpoint: Path, **kwargs: Any) -> Any:
        runs.append(checkpoint.name)
        if len(runs) == 2:
            raise Interrupted("relabel 2/4")
        return train(fabric, model, *args, checkpoint=checkpoint, **kwargs)

    monkeypatch.setattr(relabel, "fit", stopped)
    other = ready / "again.zarr"
    assert run_stage("relabel", "--out", str(other)).exit_code != 0
    assert not other.exists()
    assert run_stage("relabel", "--out", str(other)).exit_code == 0
    assert runs == ["fold-0.checkpoint", "fold-1.checkpoint", "fold-1.checkpoint"]
    assert files(other) == wanted
    assert not list((ready / "scratch").glob("relabel-*"))


def test_without_rounds_nothing_is_computed_or_imported(ready, monkeypatch):
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("rounds: 1", "rounds: 0"))
    program = (
        "import sys\nfrom stages.relabel import app\napp(standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"  # seconds of the default run
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    subprocess.run([sys.executable, "-c", program], check=True)
    assert set(files(NEW)) == {"nothing.txt"}
    assert not has_labels(NEW)


def test_new_labels_of_other_images_are_refused(ready):
    stages("relabel")
    photo, other = (next(ready.glob(f"data/demo/{split}/images/*")) for split in ("train", "val"))
    photo.write_bytes(other.read_bytes())
    stages("prepare", "pseudo")
    result = run_stage("train")
    assert result.exit_code == 2
    assert "run `dvc repro relabel`" in result.output

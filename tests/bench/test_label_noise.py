"""Random errors in image-level labels: rates, independence of other images, and the command."""

from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from bench.label_noise import app, with_noise
from pipeline.scenes.image_labels import read_image_labels, write_image_labels

RNG = np.random.default_rng(1)
MANY = {f"train/{number}": RNG.random(11) < 0.4 for number in range(400)}


def test_errors_occur_at_their_rates() -> None:
    noisy = with_noise(MANY, miss=0.3, false_alarm=0.1, seed=0)
    before, after = (np.array([labels[key] for key in MANY]) for labels in (MANY, noisy))
    assert abs((before & ~after).sum() / before.sum() - 0.3) < 0.03
    assert abs((~before & after).sum() / (~before).sum() - 0.1) < 0.03
    same = with_noise(MANY, miss=0, false_alarm=0, seed=0)
    assert all(np.array_equal(same[key], row) for key, row in MANY.items())


def test_errors_depend_on_key_and_seed_and_grow_with_the_rate() -> None:
    noisy = with_noise(MANY, miss=0.5, false_alarm=0.5, seed=3)
    alone = with_noise({"train/7": MANY["train/7"]}, miss=0.5, false_alarm=0.5, seed=3)
    assert np.array_equal(alone["train/7"], noisy["train/7"])
    other = with_noise(MANY, miss=0.5, false_alarm=0.5, seed=4)
    assert any(not np.array_equal(noisy[key], other[key]) for key in MANY)
    fewer = with_noise(MANY, miss=0.2, false_alarm=0.2, seed=3)
    for key, row in MANY.items():
        assert not ((fewer[key] != row) & (noisy[key] == row)).any()


def test_the_command_writes_labels_and_leaves_out_images_without_classes(tmp_path: Path) -> None:
    classes = [f"class {place}" for place in range(11)]
    write_image_labels(tmp_path / "labels.csv", MANY, classes)
    paths = [str(tmp_path / "labels.csv"), str(tmp_path / "new/noisy.csv")]
    result = CliRunner().invoke(app, [*paths, "--miss", "0.8", "--false-alarm", "0"])
    assert result.exit_code == 0, result.output
    wanted = with_noise(MANY, miss=0.8, false_alarm=0, seed=0)
    wanted = {key: row for key, row in wanted.items() if row.any()}
    found = read_image_labels(tmp_path / "new/noisy.csv", classes)
    assert f"left out {len(MANY) - len(wanted)} images without any class" in result.output
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[key], row) for key, row in wanted.items())
    assert CliRunner().invoke(app, [str(tmp_path / "none.csv"), paths[1]]).exit_code == 2

"""Ablation on any data set: settings x seeds, each trained and scored by the stages.

    dvc repro && python -m bench.ablation

It reads params.yaml and the outputs of `dvc repro` (index, labels, pseudo-masks, initial encoder
weights) and changes none of them. Finished runs are kept, so an interrupted ablation resumes.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from ruamel.yaml import YAML

from bench.groups import groups_of, score_groups, settings_panel
from bench.human_masks import write_human_masks
from bench.label_noise import write_noisy
from bench.report import PANEL, SECONDS, WRITTEN, write_report
from bench.settings import (
    HUMAN_MASKS,
    LABEL_NOISE,
    NO_PARAMETERS,
    TABLES,
    Changes,
    recipe_changes,
    write_changed,
)
from pipeline.config.base import load_sections
from pipeline.config.params import load_params
from pipeline.report.drawing import save_png
from pipeline.system.command import command
from pipeline.system.files import atomic_path, copy_into, file_digest, remove, write_json
from pipeline.system.outputs import outputs
from pipeline.system.progress import progress
from pipeline.training.inputs import Inputs as TrainingInputs
from pipeline.training.inputs import TrainSettings

app = typer.Typer(add_completion=False)
log = logging.getLogger("carb")
DONE = "segmenter.json"
AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Inputs:
    """Files that all settings share unless a setting changes how they are made."""

    index: Path
    image_labels: Path
    masks: Path
    relabelled: Path
    encoder: Path

    @classmethod
    def within(cls, data: Path, encoder: Path) -> "Inputs":
        """The outputs of the stages in a folder."""
        index, labels = data / "scenes.json", data / "image_labels.csv"
        return cls(index, labels, data / "masks.zarr", data / "relabelled.zarr", encoder)


@dataclass(frozen=True)
class Run:
    """One training of one setting; its files are in ``folder``."""

    setting: str
    seed: int
    folder: Path
    inputs: Inputs

    @property
    def finished(self) -> bool:
        """Whether it was trained and scored."""
        return (self.folder / DONE).is_file()


def stage(name: str, folder: Path, *arguments: str | Path, threads: int = 0) -> None:
    """Run a stage in a process of its own; its output goes to ``log.txt``.

    Args:
        name: name of the stage.
        folder: folder with ``params.yaml``.
        arguments: further command-line arguments.
        threads: CPU threads that it may use; 0: all.

    Raises:
        ValueError: the stage failed; quotes its last line.
    """
    shared = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    environment = os.environ | (shared if threads else {})
    line = [sys.executable, "-m", f"stages.{name}", "--params", str(folder / "params.yaml")]
    with (folder / "log.txt").open("a") as handle:
        code = subprocess.run(
            [*line, *map(str, arguments)], stdout=handle, stderr=handle, env=environment
        ).returncode
    if code:
        last = (folder / "log.txt").read_text().strip().splitlines()[-1:]
        raise ValueError(f"{folder}: stage {name} failed with code {code}: {''.join(last)}")


def prepare_inputs(changes: Changes, shared: Inputs, folder: Path) -> Inputs:
    """The inputs of a setting: its own labels or store where it changes them."""
    own_store = any(name.startswith("clip.") for name in changes)
    own = replace(
        shared,
        image_labels=folder / "labels.csv" if LABEL_NOISE in changes else shared.image_labels,
        masks=folder / "masks.zarr" if own_store else shared.masks,
    )
    if LABEL_NOISE in changes:
        write_noisy(shared.image_labels, own.image_labels, **changes[LABEL_NOISE])
    if own_store:
        if not own.masks.is_dir():  # start from the logits that both settings share
            listed = outputs("ablation", folders={"its store": own.masks})
            with listed, atomic_path(own.masks) as draft:
                copy_into(shared.masks, draft)
        files = ("--index", own.index, "--out", own.masks, "--scratch", folder / "scratch")
        stage("pseudo", folder, *files)
    return replace(own, relabelled=_new_labels(changes, shared, own, folder))


def _new_labels(changes: Changes, shared: Inputs, own: Inputs, folder: Path) -> Path:
    """The labels of stage `relabel` for a setting: human masks, shared ones or its own."""
    changed = own != shared or any(name.startswith(_relabelling()) for name in changes)
    if HUMAN_MASKS not in changes and not changed:
        return shared.relabelled
    out = folder / "relabelled.zarr"
    if out.is_dir():
        return out
    if HUMAN_MASKS in changes:
        settings = load_sections(folder / "params.yaml", TrainSettings)
        with outputs("ablation", folders={"its labels": out}):
            write_human_masks(read_inputs(own, settings), settings.dataset, out)
        return out
    files = ("--index", own.index, "--image-labels", own.image_labels, "--masks", own.masks)
    written = ("--out", out, "--scratch", folder / "scratch")
    stage("relabel", folder, *files, "--encoder", own.encoder, *written)
    return out


def _relabelling() -> tuple[str, ...]:
    """Parameters that stage `relabel` reads, as dvc.yaml lists them."""
    dag = YAML(typ="safe", pure=True).load(Path(__file__).parents[1] / "dvc.yaml")
    return tuple(dag["stages"]["relabel"]["params"])


def read_inputs(given: Inputs, settings: TrainSettings) -> TrainingInputs:
    """The inputs of a training, opened."""
    return TrainingInputs.read(
        index=given.index,
        image_labels=given.image_labels,
        masks=given.masks,
        encoder=given.encoder,
        params=settings,
    )


def score_pseudo_masks(inputs: Inputs, folder: Path) -> Path:
    """Score a setting's pseudo-masks and return the file of their metrics."""
    summary = folder / "pseudo_masks.json"
    if not summary.is_file():
        labels = ("--image-labels", inputs.image_labels, "--relabelled", inputs.relabelled)
        written = ("--out", folder / "pseudo", "--summary", summary)
        stage("eval_pseudo", folder, *labels, "--masks", inputs.masks, *written)
    return summary


def prepare_settings(
    folders: dict[Path, str], settings: dict[str, Changes], shared: Inputs, out: Path
) -> tuple[dict[Path, Inputs], dict[str, Path]]:
    """The inputs of each setting, by folder, and the metrics of its pseudo-masks, by name."""
    inputs, pseudo = {}, {}
    for folder, name in folders.items():
        inputs[folder] = prepare_inputs(settings[name], shared, folder)
        own = (inputs[folder].masks, inputs[folder].image_labels)
        place = out if own == (shared.masks, shared.image_labels) else folder
        pseudo[name] = score_pseudo_masks(inputs[folder], place)
        if "pseudo-masks val" not in json.loads(pseudo[name].read_text("utf-8")):
            raise ValueError(f"{place}: no validation image has a human mask to score against")
    return inputs, pseudo


def train_and_score(run: Run, groups: dict[str, list[str]], *, threads: int) -> Run:
    """Train a segmenter and score it on the validation images and on groups of them."""
    folder, given = run.folder, run.inputs
    labels = ("--image-labels", given.image_labels)
    started = time.monotonic()
    stage(
        "train",
        folder,
        *("--index", given.index, *labels, "--masks", given.masks, "--encoder", given.encoder),
        *("--relabelled", given.relabelled),
        *("--out", folder / "model", "--curves", folder / "curves"),
        *("--scratch", folder / "scratch"),
        threads=threads,
    )
    write_json(folder / SECONDS, {"train": round(time.monotonic() - started)})
    stage(
        "eval",
        folder,
        *("--model", folder / "model", *labels, "--store", given.masks),
        *("--out", folder / "eval", "--summary", folder / "draft.json"),
        threads=threads,
    )
    score_groups(folder, groups)
    (folder / "draft.json").replace(folder / DONE)
    for left in ("scratch", "model"):
        remove(folder / left)
    return run


def plan(params: Path, settings: dict[str, Changes], *, seeds: int, out: Path) -> dict[Path, str]:
    """Write and check the parameters of all settings and runs before anything runs.

    Returns:
        the folder of each setting -> its name.

    Raises:
        ValueError: parameters are invalid, or ``out`` contains runs with other parameters.
    """
    load_params(params)
    folders = {out / name.replace(" ", ""): name for name in settings}
    places: dict[Path, Changes] = {out: {}}
    for folder, name in folders.items():
        changes = {key: value for key, value in settings[name].items() if key not in NO_PARAMETERS}
        places[folder] = changes
        for seed in range(seeds):
            places[folder / str(seed)] = changes | {"seed": seed}
    for place, changes in places.items():
        fresh, kept = place / ".params.yaml", place / "params.yaml"
        write_changed(params, fresh, changes)
        load_params(fresh)
        if kept.is_file() and kept.read_text() != fresh.read_text():
            raise ValueError(f"{place}: contains a run with other parameters; remove {out}")
        fresh.replace(kept)
    return folders


def check_inputs(inputs: Inputs, out: Path) -> None:
    """Record digests of the inputs; reject a folder with runs made from other inputs.

    Raises:
        ValueError: ``out`` contains runs made from other files.
    """
    files = {
        name: path / "zarr.json" if path.is_dir() else path for name, path in vars(inputs).items()
    }
    found = {name: file_digest(path) if path.is_file() else "" for name, path in files.items()}
    noted = out / "inputs.json"
    if noted.is_file() and json.loads(noted.read_text("utf-8")) != found:
        raise ValueError(f"{out}: contains runs made from other data; remove it")
    write_json(noted, found)


def execute(runs: list[Run], groups: dict[str, list[str]], *, jobs: int) -> Iterator[Run]:
    """Execute runs, ``jobs`` at a time; yields each when it is finished."""
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else 0
    if threads:
        torch.set_num_threads(threads)
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(train_and_score, run, groups, threads=threads) for run in runs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


@app.command()
@command
def main(
    table: Annotated[str, typer.Option(help=f"Table of settings: {', '.join(TABLES)}.")] = "paper",
    recipe: Annotated[
        Path | None,
        typer.Option(help="Instead of a table, compare --params with this parameter file."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per setting.")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings in parallel.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("scratch/ablation"),
    report: Annotated[
        Path | None, typer.Option(help="Folder for table and charts; default: --out.")
    ] = None,
    data: Annotated[
        Path, typer.Option(help="Folder with the outputs of prepare and pseudo.")
    ] = Path("data"),
    encoder: Annotated[Path, typer.Option(help="Initial weights of the encoder.")] = Path(
        "models/encoder.safetensors"
    ),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
    group: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE: also score a list of images, as eval.photos; repeatable."),
    ] = None,
) -> None:
    """Train and score every setting of a table with several seeds; write a table and charts.

    Finished runs are kept, so an interrupted command resumes when started again. Groups of images,
    the darkest and the brightest third among them, are scored apart.
    """
    if table not in TABLES:
        raise ValueError(f"--table must be one of {', '.join(TABLES)}, got '{table}'")
    settings = TABLES[table]
    if recipe is not None:
        table, settings = recipe.stem, {AS_IT_IS: {}, recipe.stem: recipe_changes(recipe, params)}
    shared = Inputs.within(data, encoder)
    for path in vars(shared).values():
        if not path.exists():
            raise ValueError(f"{path}: no such file; run `dvc repro` first")
    folders, tables = plan(params, settings, seeds=seeds, out=out / table), report or out / table
    written = outputs("ablation", files={f"--report {name}": tables / name for name in WRITTEN})
    check_inputs(shared, out / table)
    groups = groups_of(params, _named_files(group or []))
    inputs, pseudo = prepare_settings(folders, settings, shared, out / table)
    runs = [
        Run(name, seed, folder / str(seed), inputs[folder])
        for seed in range(seeds)
        for folder, name in folders.items()
    ]
    todo = [run for run in runs if not run.finished]
    done = len(runs) - len(todo)
    for run in progress(
        execute(todo, groups, jobs=jobs), label="runs", total=len(runs), done=done, unit="runs"
    ):
        log.info("%s, seed %d: finished", run.setting, run.seed)
    with written:
        write_report(tables, folders, pseudo, seeds=seeds)
        save_png(tables / PANEL, settings_panel(params, {n: f / "0" for f, n in folders.items()}))


def _named_files(values: list[str]) -> dict[str, Path]:
    """``NAME=FILE`` of the command line."""
    pairs = [value.partition("=") for value in values]
    if bad := [value for value, (*_, file) in zip(values, pairs, strict=True) if not file]:
        raise ValueError(f"--group {bad[0]}: no file; write NAME=FILE")
    return {name: Path(file) for name, _, file in pairs}


if __name__ == "__main__":
    app()

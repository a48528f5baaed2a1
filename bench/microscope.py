"""Why pseudo-masks and segmenter are as good as they are, in tables and pictures.

    dvc repro && python -m bench.microscope

It reads what `dvc repro` made, and human masks to score against; what it finds reaches no training.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from bench.magnify import BOUNDS, Findings, bound_rows, examine, removed_rows, size_rows
from pipeline.config.params import Params, load_params
from pipeline.datasets import open_dataset
from pipeline.datasets.base import Dataset, Scene
from pipeline.evaluation.photos import annotated, listed, scenes_of, with_logits
from pipeline.evaluation.scores import Metrics, score_segmenter
from pipeline.metrics import mean_iou
from pipeline.report.drawing import save_png
from pipeline.report.evaluation_files import presentation_of
from pipeline.report.segmenter_panels import PanelInputs, segmenter_panels
from pipeline.scenes.image_labels import ImageLabels
from pipeline.segmenter.inference import WHOLE
from pipeline.segmenter.saved import load_segmenter
from pipeline.system.command import command, start_fabric
from pipeline.system.files import atomic_path, remove
from pipeline.system.output_folders import outputs
from pipeline.system.tables import write_table
from pipeline.system.text import table_cell
from pipeline.training.fit import fit
from pipeline.training.run import Inputs, as_segmenter, first_segmenter

app = typer.Typer(add_completion=False)
log = logging.getLogger("carb")
WORST = 12
REMOVED = 12  # of the confusions


def training_rows(
    inputs: Inputs, params: Params, dataset: Dataset, scenes: Sequence[Scene], *, scratch: Path
) -> list[Metrics]:
    """Train once more and score on the way, every ``train.preview_every`` steps.

    Returns:
        one row a score: mIoU, and who is right inside the reliable and the noisy region.
    """
    rows: list[Metrics] = []
    palette = dataset.label_space.palette

    def score(step: int, model: nn.Module) -> None:
        found = score_segmenter(
            as_segmenter(model, inputs, params, palette),
            scenes,
            read_mask=dataset.read_mask,
            store=inputs.store,
            labels=inputs.labels,
            presentation=WHOLE,
        )
        total = sum(region.pixels for region in found.regions.values())
        row: Metrics = {"step": step, "mIoU": mean_iou(found.confusion)}
        for name, region in found.regions.items():
            row |= {f"{name}, {what}": value for what, value in region.figures(total).items()}
        rows.append(row)

    fit(
        start_fabric(params.train.precision),
        first_segmenter(inputs, params),
        inputs.store,
        inputs.photos("train", Path(params.dataset.root)),
        params,
        checkpoint=scratch / "checkpoint.safetensors",
        log_step=lambda figures: None,
        show=score,
    )
    return rows


def summary(findings: Findings, classes: Sequence[str], level: str) -> str:
    """The bounds and the confusions that labels remove, as Markdown."""
    table = {(row["level"], row["bound"]): row["mIoU"] for row in bound_rows(findings, classes)}
    levels = list(dict.fromkeys(level for level, _ in table))
    lines = ["| level | " + " | ".join(BOUNDS) + " |", "|---" * (len(BOUNDS) + 1) + "|"]
    lines += [
        f"| {one} | " + " | ".join(f"{100 * table[one, bound]:.1f}" for bound in BOUNDS) + " |"
        for one in levels
    ]
    removed = [
        row
        for row in removed_rows(findings, level, classes)[:REMOVED]
        if row["with labels"] < row["without labels"]
    ]
    if not removed:
        return "\n".join([*lines, "", "Image-level labels remove no confusion.", ""])
    lines += ["", "| mask | taken for | without labels | with |", "|---|---|---|---|"]
    lines += [
        f"| {table_cell(row['mask'])} | {table_cell(row['taken for'])} "
        f"| {100 * row['without labels']:.2f} | {100 * row['with labels']:.2f} |"
        for row in removed
    ]
    return "\n".join(lines) + "\n"


def photos_to_score(
    dataset: Dataset, split: str, labels: ImageLabels, photos: str | None
) -> list[Scene]:
    """The photos of a split that can be scored; of val only those that ``photos`` lists."""
    scenes = [scene for scene in annotated(scenes_of(dataset, split)) if scene.key in labels]
    if not scenes:
        raise ValueError(f"--split {split}: no photo there has a human mask and image-level labels")
    return listed(scenes, Path(photos)) if split == "val" and photos is not None else scenes


@app.command()
@command
def main(
    split: Annotated[str, typer.Option(help="Photos with human masks to look at.")] = "val",
    training: Annotated[
        bool, typer.Option("--training", help="Also train once more and score on the way.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("scratch/microscope"),
    data: Annotated[Path, typer.Option(help="What prepare and pseudo wrote.")] = Path("data"),
    encoder: Annotated[Path, typer.Option(help="First weights of the encoder.")] = Path(
        "models/encoder.safetensors"
    ),
    model: Annotated[Path, typer.Option(help="Folder of a trained segmenter.")] = Path(
        "models/segmenter"
    ),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Count what goes wrong, by level, class and object size, and what would put it right."""
    written = outputs("microscope", folders={"--out": out})
    settings = load_params(params)
    inputs = Inputs.read(
        index=data / "scenes.json",
        image_labels=data / "image_labels.csv",
        masks=data / "masks.zarr",
        encoder=encoder,
        params=settings,
    )
    dataset = open_dataset(settings.dataset.name, settings.dataset.root)
    labels, store = inputs.labels, inputs.store
    scenes = with_logits(photos_to_score(dataset, split, labels, settings.eval.photos), store)
    segmenter, presentation = load_segmenter(model), presentation_of(settings.eval)
    if not segmenter.classes == store.classes == dataset.label_space.names:
        raise ValueError(f"{model}, {store.path} and {dataset.root} have other classes; dvc repro")
    findings = examine(store, scenes, labels, read_mask=dataset.read_mask)
    how: dict[str, Any] = {"store": None, "labels": {}, "presentation": presentation}
    scored = score_segmenter(segmenter, scenes, read_mask=dataset.read_mask, **how)
    worst = {"pseudo-masks": findings.photo_iou[store.near], "segmenter": scored.photo_iou}
    text = summary(findings, store.classes, store.near)
    with written, atomic_path(out) as draft:
        draft.mkdir()
        write_table(draft / "sizes.csv", size_rows(findings, store.classes))
        write_table(draft / "bounds.csv", bound_rows(findings, store.classes))
        write_table(draft / "labels_remove.csv", removed_rows(findings, store.near, store.classes))
        sources = PanelInputs(
            segmenter, presentation, store, labels, dataset.read_mask, segmenter.palette
        )
        for name, photo_iou in worst.items():
            last = sorted(scenes, key=lambda scene: photo_iou[scene.key])[:WORST]
            heading = f"Where the mIoU of a photo by itself is lowest: {name}"
            sheet = segmenter_panels(last, sources, heading=heading, photo_iou=photo_iou)
            save_png(draft / f"worst_{name}.png", sheet)
        if training:
            work = out.with_name(f"{out.name}-{inputs.fingerprint[:16]}")
            rows = training_rows(inputs, settings, dataset, scenes, scratch=work)
            write_table(draft / "training.csv", rows)
            remove(work)
        (draft / "summary.md").write_text(text, "utf-8")
    log.info("%s", text)


if __name__ == "__main__":
    app()

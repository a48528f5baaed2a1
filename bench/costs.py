"""What a data set costs by stage, from the arithmetic of the networks and the layout of the store.

    python -m bench.costs recipes/cityscapes.yaml

Nothing is run: networks are built without memory and their operations counted.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.system.command import command

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.config.params import Params

app = typer.Typer(add_completion=False)
SIZES = (2_975, 18_000, 1_000_000, 100_000_000)  # Cityscapes, Mapillary Vistas, and beyond
SWEEP = 8  # trainings


@dataclass(frozen=True)
class Costs:
    """What one photo costs.

    Attributes:
        clip_tflop: CLIP over all windows of all levels.
        online_tflop: CLIP on one crop and its window, as the authors do at each visit.
        step_tflop: forward and backward pass of the segmenter on one crop.
        eval_tflop: forward pass of the segmenter on the whole photo.
        store_bytes: logits of all levels, not compressed.
        visit_bytes: of those, what a training crop reads: global (or fused) and a local level.
        shard_photos: photos a shard, by level.
    """

    clip_tflop: float
    online_tflop: float
    step_tflop: float
    eval_tflop: float
    store_bytes: int
    visit_bytes: int
    shard_photos: dict[str, int]


def count_costs(params: "Params", photo: tuple[int, int], classes: int) -> Costs:
    """Count what a photo of ``(height, width)`` pixels costs with some parameters.

    Args:
        params: model, levels, crops and segmenter.
        photo: ``(height, width)``.
        classes: C.
    """
    from bench.authors import MEAN_ZOOM
    from pipeline.clip.logits import fused_grid, level_grid
    from pipeline.store.plan import FUSED, Photo, Plan
    from pipeline.views import cover, level_size

    tower, patch = _tower(params.clip.model)
    grids, clip = {}, 0.0
    for name, level in params.clip.levels.items():
        size = level_size(photo, zoom=level.zoom, patch_size=patch)
        boxes = cover(size, window=level.window, overlap=level.overlap, patch_size=patch)
        clip += len(boxes) * tower((int(boxes[0].height), int(boxes[0].width)))
        grids[name] = [level_grid(photo, level, patch)]
    if params.clip.fused is not None:
        grids[FUSED] = [fused_grid(photo, params.clip.fused)]
    plan = Plan({}, [""] * classes, [Photo("", "", photo)], grids)
    height, width = params.views.local_window
    zoomed = (round(MEAN_ZOOM * height / patch) * patch, round(MEAN_ZOOM * width / patch) * patch)
    forward, step = _segmenter(params, classes)
    scale = math.prod(params.views.base_size) / math.prod(params.views.crop)
    level_bytes = {level: 2 * math.prod(plan.shape(level)[1:]) for level in grids}
    levels = list(params.clip.levels)
    read = [FUSED if FUSED in grids else levels[0], *levels[1:][-1:]]
    return Costs(
        clip_tflop=clip,
        online_tflop=tower(params.views.crop) + tower(zoomed),
        step_tflop=step,
        eval_tflop=forward * scale,
        store_bytes=sum(level_bytes.values()),
        visit_bytes=sum(level_bytes[level] for level in read),
        shard_photos={level: plan.shard_size(level) for level in grids},
    )


def _tower(name: str) -> tuple[Callable[[tuple[int, int]], float], int]:
    """Cost of an image tower's dense pass on a window, in TFLOP, and the side of a patch."""
    import open_clip
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pipeline.clip.towers import read_tower

    with torch.device("meta"):
        visual = open_clip.model.CLIP(**open_clip.get_model_config(name)).visual
    tower = read_tower(visual)

    def cost(size: tuple[int, int]) -> float:
        image = torch.empty(1, 3, *size, device="meta")
        grid = (size[0] // tower.stride, size[1] // tower.stride)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            tower.dense(tower.encode(image), grid)
        return float(counter.get_total_flops()) / 1e12

    return cost, tower.stride


def _segmenter(params: "Params", classes: int) -> tuple[float, float]:
    """TFLOP of the segmenter's forward pass and of a training step, for one crop."""
    import open_clip
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pipeline.segmenter.network import build_segmenter

    wanted, found, text = params.segmenter, [], None
    with torch.device("meta"):
        if wanted.classifier == "text":
            text = torch.empty(classes, open_clip.get_model_config(params.clip.model)["embed_dim"])
        model = build_segmenter(
            arch=wanted.arch,
            encoder=wanted.encoder,
            num_classes=classes,
            options=wanted.options,
            text=text,
        )
    crops = torch.empty(2, 3, *params.views.crop, device="meta")  # batch norm wants two
    for backward in (False, True):
        with FlopCounterMode(display=False) as counter:
            logits = model(crops)
            if backward:
                logits.sum().backward()
        found.append(counter.get_total_flops() / 2e12)
    return found[0], found[1]


def cost_table(costs: Costs, params: "Params", *, tflops: float) -> "Table":
    """Costs by number of photos: those that a sweep has, with the cache and without.

    Args:
        costs: of one photo.
        params: length of training.
        tflops: what a GPU does a second, in 10^12 operations.
    """
    from rich.table import Table

    hours, crops = 3600 * tflops, params.train.steps * params.train.batch_size
    lines: dict[str, list[str]] = {}
    for photos in SIZES:
        seen = SWEEP * max(crops, photos)  # at least one epoch each
        clip = photos * costs.clip_tflop / hours
        shards = sum(math.ceil(photos / size) for size in costs.shard_photos.values())
        for name, value in {
            "CLIP once, GPU h": f"{clip:,.1f}",
            "store, TB": f"{photos * costs.store_bytes / 1e12:,.3f}",
            "its objects": f"{2 * shards:,}",  # a shard and its record
            f"{SWEEP} trainings and CLIP, GPU h": f"{clip + seen * costs.step_tflop / hours:,.1f}",
            "with CLIP inside instead, GPU h": (
                f"{seen * (costs.step_tflop + costs.online_tflop) / hours:,.1f}"
            ),
        }.items():
            lines.setdefault(name, []).append(value)
    table = Table("photos", *(f"{photos:,}" for photos in SIZES))
    for name, values in lines.items():
        table.add_row(name, *values)
    return table


@app.command()
@command
def main(
    recipe: Annotated[Path, typer.Argument(help="Parameter file.")] = Path(
        "recipes/cityscapes.yaml"
    ),
    photo: Annotated[tuple[int, int], typer.Option(help="Height and width, pixels.")] = (
        1024,
        2048,
    ),
    classes: Annotated[int, typer.Option(min=1, help="Number of classes.")] = 19,
    tflops: Annotated[
        float, typer.Option(min=0.1, help="What a GPU does a second, 10^12 operations.")
    ] = 300,
) -> None:
    """Tell what a photo costs by stage, and what follows for data sets of several sizes."""
    from rich.console import Console

    from pipeline.config.params import load_params

    params = load_params(recipe)
    costs = count_costs(params, photo, classes)
    console = Console()
    for name, value in vars(costs).items():
        console.print(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")
    read = tflops / costs.step_tflop * costs.visit_bytes / 1e6
    console.print(f"at {tflops:g} TFLOP/s the loader reads {read:,.0f} MB of logits/s a GPU")
    console.print(cost_table(costs, params, tflops=tflops))


if __name__ == "__main__":
    app()

"""Speed of the stage `pseudo`, relative to the bare image tower and to the authors' code."""

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench import authors
from bench.timing import Measure, race, ratio
from bench.workload import StoreMaker, Workload, draw_street, random_clip, store_maker
from pipeline.clip.levels import fused_logits, level_logits
from pipeline.clip.windows import exposed, magnified, window_batches
from pipeline.scenes.image_io import read_image
from pipeline.views import Box, cover

PRODUCTS = 10  # in a row, or starting them would count


def _large_levels(work: Workload) -> dict[str, object]:
    """One window for the whole image, like the paper's crops."""
    return {"global": {"zoom": 1.0, "window": list(work.photo), "overlap": 0.5}}


def _large(work: Workload, folder: Path, clip: str) -> StoreMaker:
    street = draw_street(
        folder,
        train=work.large,
        size=work.photo,
        clip__levels=_large_levels(work),
        clip__fused=None,
        clip__precision="auto",
    )
    return store_maker(street, random_clip(clip))


def _windows(maker: StoreMaker) -> list[Tensor]:
    """All batches of windows that the stage encodes, on the device."""
    street, clip = maker.street, maker.clip
    found = []
    for photo in street.index.photos:
        image = read_image(photo.path(street.dataset.root))
        for level in street.params.clip.levels.values():
            pixels = magnified(image, level, patch_size=clip.patch_size).to(clip.device)
            size = (pixels.shape[0], pixels.shape[1])
            boxes = cover(
                size, window=level.window, overlap=level.overlap, patch_size=clip.patch_size
            )
            found += list(window_batches(pixels, boxes, clip))
    return found


def _parts(maker: StoreMaker) -> dict[str, Callable[[], object]]:
    """The stage's work but for writing, part by part: each is run with the results of the last."""
    params, clip = maker.street.params.clip, maker.clip
    levels, fused = params.levels.values(), params.fused
    paths = [photo.path(maker.street.dataset.root) for photo in maker.street.index.photos]

    def decode() -> list[list[Tensor]]:
        photos = (exposed(read_image(path), params.brightness) for path in paths)
        patch = clip.patch_size
        return [[magnified(photo, one, patch_size=patch) for one in levels] for photo in photos]

    def encode(inputs: list[list[Tensor]]) -> list[list[Tensor]]:
        with maker.fabric.autocast():
            return [
                [
                    level_logits(pixels, level, clip, maker.text)
                    for pixels, level in zip(photo, levels, strict=True)
                ]
                for photo in inputs
            ]

    inputs = decode()
    grids = encode(inputs)
    parts: dict[str, Callable[[], object]] = {
        "decode and magnify": decode,
        "windows, tower, product with text": lambda: encode(inputs),
    }
    if fused is not None:
        photos = [read_image(path) for path in paths]
        parts["fuse"] = lambda: [
            fused_logits(photo, own, fused) for photo, own in zip(photos, grids, strict=True)
        ]
    return parts


def tower(work: Workload, folder: Path) -> Iterator[Measure]:
    """Speed of the whole stage (decode, resize, windows, blend, write) relative to the tower."""
    if work.small:
        small = draw_street(folder / "small", train=work.small)
        maker = store_maker(small, random_clip(""))
        yield from _against_tower(work, "demo's CLIP, all levels", maker)
    for number, clip in enumerate(work.clips):
        name = f"{clip or 'demo CLIP'}, {work.photo[0]} x {work.photo[1]}"
        yield from _against_tower(work, name, _large(work, folder / f"{number}", clip))


def _against_tower(work: Workload, name: str, maker: StoreMaker) -> Iterator[Measure]:
    windows = _windows(maker)

    def bare() -> None:
        with maker.fabric.autocast():
            for part in windows:
                maker.clip.patch_features(part)

    matrix = torch.randn(work.product, work.product, device=work.device)

    def products() -> None:
        with maker.fabric.autocast():
            for _ in range(PRODUCTS):
                matrix @ matrix

    with FlopCounterMode(display=False) as counter:
        bare()
    parts = _parts(maker)
    times = race(
        {
            "tower": bare,
            "the stage": lambda: maker.remove(maker()),
            "matrix products": products,
            **parts,
        },
        wait=work.wait,
        seconds=work.seconds,
        least=work.least,
    )
    photos, flop = len(maker.plan.photos), counter.get_total_flops()
    seconds = {name: statistics.median(each) for name, each in times.items()}
    yield ratio(
        "tower",
        f"speed of the stage, relative to the bare tower: {name}",
        times,
        of="tower",
        to="the stage",
        target=0.9,
        at_least=True,
        details={
            "photos/s": round(photos / seconds["the stage"], 2),
            "writing and the rest, s": round(
                seconds["the stage"] - sum(seconds[name] for name in parts), 4
            ),
            "TFLOP per photo": round(flop / photos / 1e12, 4),
            "TFLOP/s of the stage": round(flop / seconds["the stage"] / 1e12, 3),
            "of the tower": round(flop / seconds["tower"] / 1e12, 3),
            f"of products of {work.product} x {work.product}": round(
                PRODUCTS * 2 * work.product**3 / seconds["matrix products"] / 1e12, 3
            ),
            "precision": str(maker.fabric.strategy.precision.precision),
        },
    )


def authors_way(work: Workload, folder: Path) -> Iterator[Measure]:
    """Time of the authors' code relative to the stage."""
    maker = _large(work, folder, work.clips[0])
    street, clip = maker.street, maker.clip
    level = street.params.clip.levels["global"]
    paths = [photo.path(street.dataset.root) for photo in street.index.photos]

    def theirs(path: Path) -> Tensor:
        pixels = magnified(read_image(path), level, patch_size=clip.patch_size).to(clip.device)
        (window,) = window_batches(pixels, cover_whole(pixels, clip.patch_size), clip)
        return authors.patch_logits(clip, window, maker.text)[0].cpu()

    times = race(
        {
            "authors' code": lambda: [theirs(path) for path in paths],
            "the stage": lambda: maker.remove(maker()),
        },
        wait=work.wait,
        seconds=2 * work.seconds,
        least=work.least,
    )
    yield ratio(
        "authors",
        "time of the authors' code, relative to the stage",
        times,
        of="authors' code",
        to="the stage",
        target=3.0,
        at_least=True,
        details={"precision": str(maker.fabric.strategy.precision.precision)},
    )


def cover_whole(pixels: Tensor, patch_size: int) -> list[Box]:
    """One window over the whole image."""
    size = (pixels.shape[0], pixels.shape[1])
    return cover(size, window=size, overlap=0.5, patch_size=patch_size)

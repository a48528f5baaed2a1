"""Evaluation whole against the segmenter's forward pass alone."""

import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.speed_training import demo_network
from bench.timing import Measure, peak_mib, race, ratio
from bench.workload import Street, Workload, as_segmenter, draw_street, random_segmenter
from pipeline.evaluation import score_segmenter
from pipeline.inference import WHOLE
from pipeline.scene import read_image
from pipeline.segmenter import Segmenter


def evaluation(work: Workload, folder: Path) -> Iterator[Measure]:
    """Evaluation whole against the forward pass alone."""
    small = draw_street(folder / "small", train=1, val=work.photos)
    large = draw_street(folder / "large", train=1, val=max(2, work.photos // 12), size=work.photo)
    demo = as_segmenter(demo_network(small).to(work.device), base_size=small.params.views.base_size)
    city = random_segmenter(work, base_size=work.photo)
    for name, street, segmenter in (
        ("the demo's", small, demo),
        (f"DeepLabV3, {work.photo[0]} x {work.photo[1]}", large, city),
    ):
        yield _against_forward(work, name, street, segmenter)


def _against_forward(work: Workload, name: str, street: Street, segmenter: Segmenter) -> Measure:
    space = street.index.label_space
    segmenter = replace(segmenter, classes=space.names, palette=space.palette)
    scenes = street.dataset.scenes("val")
    shown = [_input(read_image(scene.image), work.device) for scene in scenes]

    @torch.no_grad()
    def forward() -> None:
        for pixels in shown:
            segmenter.model(pixels)

    def whole() -> None:
        score_segmenter(
            segmenter,
            scenes,
            read_mask=street.dataset.read_mask,
            store=None,
            labels={},
            presentation=WHOLE,
        )

    times = race(
        {"forward": forward, "evaluation": whole},
        wait=work.wait,
        seconds=work.seconds,
        least=work.least,
    )
    return ratio(
        "evaluation",
        f"time of evaluation, of the forward pass: {name}",
        times,
        of="evaluation",
        to="forward",
        target=1.1,
        details={
            "photos/s": round(len(scenes) / statistics.median(times["evaluation"]), 2),
            "peak MiB": round(peak_mib()),
        },
    )


def _input(image: Image.Image, device: str) -> Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    return pixels.to(device).contiguous(memory_format=torch.channels_last)

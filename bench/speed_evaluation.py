"""Speed of evaluation, relative to the segmenter's forward pass."""

import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bench.speed_training import demo_network
from bench.timing import Measure, race, ratio
from bench.workload import Street, Workload, draw_street, random_network
from pipeline.evaluation.segmenter import score_segmenter
from pipeline.scenes.image_io import read_image
from pipeline.segmenter.inference import PIXELS_PER_CALL, Segmenter, TestTimeOptions
from pipeline.segmenter.network import size_divisor


def evaluation(work: Workload, folder: Path) -> Iterator[Measure]:
    """Time of the whole evaluation relative to the forward pass."""
    if work.small:
        small = draw_street(folder / "small", train=1, val=work.small)
        network = demo_network(small).eval().to(work.device)
        size = small.params.views.base_size
        yield from _against_forward(work, "the demo's", small, network, size)
    large = draw_street(folder / "large", train=1, val=work.large, size=work.photo)
    city = random_network(work, classes=len(large.index.label_space.classes))
    name = f"DeepLabV3, {work.photo[0]} x {work.photo[1]}"
    yield from _against_forward(work, name, large, city, work.photo)


def _against_forward(
    work: Workload, name: str, street: Street, network: nn.Module, size: tuple[int, int]
) -> Iterator[Measure]:
    space, half = street.index.label_space, (0.5, 0.5, 0.5)
    divisor = size_divisor(network)
    segmenter = Segmenter(network, space.names, space.palette, half, half, size, divisor, {})
    scenes = street.dataset.scenes("val")
    shown = [_input(read_image(scene.image), work.device) for scene in scenes]
    most = max(1, PIXELS_PER_CALL // math.prod(size))
    together = [
        torch.cat(shown[start : start + most]).contiguous(memory_format=torch.channels_last)
        for start in range(0, len(shown), most)
    ]

    @torch.no_grad()
    def forward(inputs: list[Tensor]) -> None:
        for pixels in inputs:
            network(pixels)

    def whole() -> None:
        score_segmenter(
            segmenter,
            scenes,
            read_mask=street.dataset.read_mask,
            store=None,
            labels={},
            test_time=TestTimeOptions(),
        )

    times = race(
        {
            "forward": lambda: forward(shown),
            "forward in batches": lambda: forward(together),
            "evaluation": whole,
        },
        wait=work.wait,
        seconds=1.5 * work.seconds,
        least=work.least,
    )
    details = {
        "photos/s": round(len(scenes) / statistics.median(times["evaluation"]), 2),
        "photos a batch": most,
    }
    for rival, words in {
        "forward": "the forward pass image by image",
        "forward in batches": "the forward pass in evaluation's batches",
    }.items():
        if rival == "forward" or most > 1:
            yield ratio(
                "evaluation",
                f"time of evaluation, relative to {words}: {name}",
                times,
                of="evaluation",
                to=rival,
                target=1.2,
                details=details,
            )


def _input(image: Image.Image, device: str) -> Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    return pixels.to(device).contiguous(memory_format=torch.channels_last)

"""A trained segmenter on disk: written by training, opened by everyone.

A saved segmenter is a folder that plain ``smp.from_pretrained`` opens. ``carb.json`` beside the
weights tells what smp does not keep: classes, colours, normalisation and size.
"""

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import segmentation_models_pytorch as smp
import torch
from safetensors import SafetensorError
from torch import nn

from pipeline.segmenter.card import card_of
from pipeline.segmenter.inference import Segmenter
from pipeline.segmenter.network import (
    LIBRARY_ERRORS,
    plain_network,
    size_divisor,
    with_own_upsampling,
)
from pipeline.segmenter.saved_files import (
    ABOUT_FILE,
    WEIGHTS_FILE,
    read_about,
)
from pipeline.system.devices import best_device
from pipeline.system.files import atomic_path, file_digest, write_json
from pipeline.system.text import error_text, rebuild_hint


def save_segmenter(
    directory: Path,
    model: nn.Module,
    *,
    classes: list[str],
    palette: npt.NDArray[np.uint8],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    base_size: tuple[int, int],
    extra: dict[str, Any],
) -> None:
    """Write a folder that ``smp.from_pretrained`` opens, whole or not at all, with the same bytes.

    Args:
        directory: folder to write; one that is there is replaced.
        model: from ``build_segmenter``, on any device; it is not changed.
        classes: class names, by index.
        palette: ``[C, 3]`` uint8 RGB.
        mean: of the RGB channels in 0..1, as training normalised them.
        std: likewise.
        base_size: ``(height, width)`` in pixels of the photos that the model was trained on.
        extra: anything else worth keeping; JSON values.
    """
    stride = size_divisor(model)
    about = {
        "classes": [
            {"name": name, "colour": colour}
            for name, colour in zip(classes, palette.tolist(), strict=True)
        ],
        "mean": list(mean),
        "std": list(std),
        "base_size": list(base_size),
        "stride": stride,
        "align_corners": False,
        "extra": extra,
    }
    plain: Any = plain_network(model)
    card = card_of(
        Segmenter(plain, classes, palette, mean, std, base_size, stride, extra),
        figures=None,
        onnx=False,
    )
    with atomic_path(directory) as draft:
        draft.mkdir()
        # smp leaves a card that is there; its own names no class and a licence not ours to give.
        (draft / "README.md").write_text(card, "utf-8")
        plain.save_pretrained(draft)
        digest = file_digest(draft / WEIGHTS_FILE)
        write_json(draft / ABOUT_FILE, about | {"weights_sha256": digest})


def load_segmenter(directory: str | Path) -> Segmenter:
    """Open a folder of ``save_segmenter``, in eval mode, on a GPU if there is one.

    ``load_segmenter("models/segmenter")("photo.jpg")`` is the photo's ``[H, W]`` of classes.

    Raises:
        ValueError: it is not such a folder, or a file in it is damaged.
    """
    directory = Path(directory)
    about = read_about(directory)
    try:
        with redirect_stdout(io.StringIO()):  # huggingface_hub prints where it loads from
            # A configuration that asks for ImageNet weights must not download any.
            model = smp.from_pretrained(str(directory), encoder_weights=None)
    except (OSError, SafetensorError, *LIBRARY_ERRORS) as error:
        raise ValueError(
            f"{directory} is damaged ({type(error).__name__}: {error_text(error)}); "
            f"{rebuild_hint('train')}"
        ) from error
    if not about.align_corners:
        model = with_own_upsampling(model)
    return Segmenter(
        model=model.eval().to(best_device(), memory_format=torch.channels_last),
        classes=[info.name for info in about.classes],
        palette=np.array([info.colour for info in about.classes], np.uint8),
        mean=about.mean,
        std=about.std,
        base_size=about.base_size,
        stride=size_divisor(model),
        extra=about.extra,
        digest=about.weights_sha256 or "",
    )

"""The network of a segmenter: any smp architecture, with a learned classifier or CLIP's frozen text
embeddings."""

import copy
from collections.abc import Mapping
from typing import Any

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base.initialization import initialize_head
from torch import Tensor, nn

from pipeline.encoders import check_encoder
from pipeline.segmenter_files import known_options
from pipeline.wording import one_line, shown

LIBRARY_ERRORS = (ValueError, TypeError, KeyError, IndexError, RuntimeError, AttributeError)


class TextClassifier(nn.Module):
    """The paper's classifier: features times frozen text embeddings, nothing learned behind them.

    No normalisation, bias or temperature in the product. ``conv`` brings the decoder's channels to
    CLIP's D. Both maps are linear, so the text is multiplied into the convolution's weights before
    any pixel is touched: the same function without a map of D channels at full size.

    Args:
        conv: the layer ``in -> D``, stride 1, with a bias.
        text: CLIP's embedding of each class, ``[C, D]`` float.
    """

    text: Tensor

    def __init__(self, conv: nn.Conv2d, text: Tensor) -> None:
        super().__init__()
        self.conv = conv
        self.register_buffer("text", text.detach().clone().float())

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight ``[C, in, k, k]`` and bias ``[C]`` of the one convolution that does the same."""
        assert self.conv.bias is not None
        weight = torch.einsum("cd,dikl->cikl", self.text, self.conv.weight)
        return weight, self.text @ self.conv.bias

    def forward(self, features: Tensor) -> Tensor:
        """Score each class: features ``[B, in, H, W]`` to logits ``[B, C, H, W]``."""
        weight, bias = self.folded()
        return F.conv2d(features, weight, bias, padding=self.conv.padding)


def build_segmenter(
    *,
    arch: str,
    encoder: str,
    num_classes: int,
    options: Mapping[str, Any],
    text: Tensor | None,
) -> nn.Module:
    """Make an untrained segmenter: RGB ``[B, 3, H, W]`` to logits ``[B, C, H, W]``.

    Args:
        arch: name of an smp architecture, in any case (``unet``, ``deeplabv3``).
        encoder: name of an smp encoder, or ``tu-`` and the name of a timm model.
        num_classes: C.
        options: further arguments of the architecture, such as ``decoder_channels``.
        text: embeddings ``[C, D]`` of a frozen classifier, or None for a learned one.

    Raises:
        ValueError: the architecture, the encoder or an option is unknown, or they do not fit.
    """
    _check_options(arch, encoder, options)
    check_encoder(encoder)
    try:
        model: nn.Module = smp.create_model(
            arch, encoder_name=encoder, encoder_weights=None, classes=num_classes, **options
        )
    except LIBRARY_ERRORS as error:
        raise ValueError(
            f"params.yaml: segmenter.arch '{arch}', segmenter.encoder '{encoder}' and "
            f"segmenter.options {shown(dict(options))} do not fit together: {one_line(error)}"
        ) from error
    if text is not None:
        _freeze_classifier(model, text)
    return model


def _check_options(arch: str, encoder: str, options: Mapping[str, Any]) -> None:
    """Refuse an unknown architecture, or an option that it does not take."""
    models: dict[str, type[nn.Module]] = smp.MODEL_ARCHITECTURES_MAPPING
    if arch.lower() not in models:
        raise ValueError(
            f"params.yaml: segmenter.arch must be one of {', '.join(sorted(models))}, got '{arch}'"
        )
    known = known_options(models[arch.lower()], encoder)
    for name in options:
        if name not in known:
            raise ValueError(
                f"params.yaml: segmenter.options: '{arch}' does not take '{name}'; "
                f"it takes {', '.join(sorted(known))}"
            )


def _freeze_classifier(model: nn.Module, text: Tensor) -> None:
    """Put the text embeddings in place of the C outputs of the last convolution."""
    head = model.segmentation_head
    assert isinstance(head, nn.Module)
    name, last = [pair for pair in head.named_modules() if isinstance(pair[1], nn.Conv2d)][-1]
    assert isinstance(last, nn.Conv2d)
    if text.ndim != 2 or len(text) != last.out_channels:
        raise ValueError(
            f"text embeddings must be [{last.out_channels}, D], one row a class, "
            f"got {list(text.shape)}"
        )
    conv = _conv_like(last, last.in_channels, text.shape[1])
    initialize_head(conv)
    head.set_submodule(name, TextClassifier(conv, text))


def _conv_like(like: Any, num_in: int, num_out: int) -> nn.Conv2d:
    return nn.Conv2d(num_in, num_out, like.kernel_size, padding=like.padding)


def plain_network(model: nn.Module) -> nn.Module:
    """Copy the model to the CPU, the text embeddings multiplied into one ordinary convolution."""
    plain = copy.deepcopy(model).cpu()
    for name, module in list(plain.named_modules()):
        if isinstance(module, TextClassifier):
            weight, bias = module.folded()
            conv = _conv_like(module.conv, weight.shape[1], len(weight))
            conv.load_state_dict({"weight": weight, "bias": bias})
            plain.set_submodule(name, conv)
    return plain


def size_divisor(model: nn.Module) -> int:
    """The number that height and width of the input must be multiples of (8, 16 or 32)."""
    encoder: Any = model.encoder
    return int(encoder.output_stride)


def check_batch_norm(
    model: nn.Module, *, batch_size: int, crop: tuple[int, int], name: str
) -> None:
    """Refuse a batch of which a BatchNorm is shown a single value per channel: it has no variance.

    So it is with one photo where the network pools the whole map (DeepLab's ASPP, PAN, UPerNet) or
    its deepest map is of one pixel. Batches are over all devices, and so are their statistics.

    Args:
        model: images ``[B, 3, H, W]`` to anything.
        batch_size: B, over all devices.
        crop: ``(H, W)`` in pixels.
        name: the parameter that holds the batch size.

    Raises:
        ValueError: names the parameters to change.
    """
    if batch_size > 1 or _trains_on_one(model, crop):
        return
    larger = _trains_on_one(model, (2 * crop[0], 2 * crop[1]))
    raise ValueError(
        f"params.yaml: {name} is 1 (over all devices), and with views.crop {list(crop)} a "
        "BatchNorm of this network sees one value per channel; set it to 2 or more"
        + (", or enlarge views.crop" if larger else "")
    )


def _trains_on_one(model: nn.Module, crop: tuple[int, int]) -> bool:
    """Whether each BatchNorm takes a single crop; nothing is computed, only sizes."""
    dry = copy.deepcopy(model).to("meta").train()
    try:
        with torch.no_grad():
            dry(torch.zeros(1, 3, *crop, device="meta"))
    except ValueError as error:
        return "more than 1 value per channel" not in str(error)
    return True

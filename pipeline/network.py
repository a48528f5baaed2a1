"""The network of a segmenter: any smp architecture, with a learned classifier or CLIP's frozen text
embeddings."""

import copy
from collections.abc import Mapping
from typing import Any

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base.initialization import initialize_head
from segmentation_models_pytorch.decoders.dpt.decoder import DPTSegmentationHead
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
    architecture = smp.MODEL_ARCHITECTURES_MAPPING[arch.lower()]
    head = {"upsampling": 1} if "upsampling" in known_options(architecture, encoder) else {}
    try:
        model: nn.Module = smp.create_model(
            arch, encoder_name=encoder, encoder_weights=None, classes=num_classes, **options, **head
        )
    except LIBRARY_ERRORS as error:
        raise ValueError(
            f"params.yaml: segmenter.arch '{arch}', segmenter.encoder '{encoder}' and "
            f"segmenter.options {shown(dict(options))} do not fit together: {one_line(error)}"
        ) from error
    if text is not None:
        _freeze_classifier(model, text)
    return with_own_upsampling(model)


def with_own_upsampling(model: nn.Module) -> nn.Module:
    """Let a network answer at its input's size: bilinear, align_corners False, in float32.

    As the authors do, and as the pseudo-masks are upsampled. smp's heads take align_corners True,
    which at stride 8 moves the logits by up to 3.5 pixels; they are built with ``upsampling: 1``.
    Upsampling within decoders stays smp's. Plain ``smp.from_pretrained`` gives the small logits.

    Args:
        model: an smp model; it is changed. One that answers at full size gives what it gave.
    """
    head = model.segmentation_head
    if isinstance(head, DPTSegmentationHead):  # has no option (smp 0.6.0)
        head.upsampling_factor = 1
    model.register_forward_hook(_upsampled)
    return model


def _upsampled(model: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> Tensor:
    """Logits ``[B, C, h, w]`` at the size of the input ``[B, 3, H, W]``."""
    size = inputs[0].shape[-2:]
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)


def _check_options(arch: str, encoder: str, options: Mapping[str, Any]) -> None:
    """Refuse an unknown architecture, or an option that it does not take."""
    models: dict[str, type[nn.Module]] = smp.MODEL_ARCHITECTURES_MAPPING
    if arch.lower() not in models:
        raise ValueError(
            f"params.yaml: segmenter.arch must be one of {', '.join(sorted(models))}, got '{arch}'"
        )
    known = known_options(models[arch.lower()], encoder)
    if "upsampling" in options:
        raise ValueError(
            "params.yaml: segmenter.options: 'upsampling' is set by the pipeline, which brings "
            "logits to the image's size itself (align_corners False); remove it"
        )
    for name in options:
        if name not in known:
            raise ValueError(
                f"params.yaml: segmenter.options: '{arch}' does not take '{name}'; "
                f"it takes {', '.join(sorted(known - {'upsampling'}))}"
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

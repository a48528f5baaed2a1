"""Segmentation network: any smp architecture, with a learned classifier or CLIP's frozen text
embeddings."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.dpt.decoder import DPTSegmentationHead
from torch import Tensor, nn

from pipeline.segmenter.encoder import check_encoder
from pipeline.system.text import error_text, short_repr

LIBRARY_ERRORS = (ValueError, TypeError, KeyError, IndexError, RuntimeError, AttributeError)
# Arguments of smp's models that the pipeline sets itself, or that would change what they return.
RESERVED_ARGUMENTS = {"self", "kwargs", "encoder_name", "encoder_weights", "in_channels", "classes"}
RESERVED_ARGUMENTS |= {"activation", "aux_params"}
_TIMM_OPTIONS = {"dynamic_img_size", "img_size", "drop_path_rate"}  # passed on to the encoder
# The option that sets the number of channels of the classifier's input (the last value of a list).
WIDTH_OPTIONS = {
    "deeplabv3": "decoder_channels",
    "deeplabv3plus": "decoder_channels",
    "dpt": "decoder_fusion_channels",
    "fpn": "decoder_segmentation_channels",
    "manet": "decoder_channels",
    "pan": "decoder_channels",
    "pspnet": "psp_out_channels",
    "segformer": "decoder_segmentation_channels",
    "unet": "decoder_channels",
    "unetplusplus": "decoder_channels",
    "upernet": "decoder_channels",
}


class TextClassifier(nn.Module):
    """The paper's classifier: the decoder's features times the frozen text embeddings.

    As in the authors' code nothing is learned between them (no projection, normalisation, bias or
    temperature), so that the text constrains the decoder.

    Args:
        text: CLIP's embedding of each class, ``[C, D]`` float; the decoder has D channels.
        kernel_size: of the convolution that it replaces, whose centre tap is the text.
    """

    text: Tensor

    def __init__(self, text: Tensor, kernel_size: int = 1) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.register_buffer("text", text.detach().clone().float())

    def as_convolution(self) -> nn.Conv2d:
        """The equivalent convolution for smp's head: the text at its centre, 0 elsewhere."""
        size, (classes, width) = self.kernel_size, self.text.shape
        conv = nn.Conv2d(width, classes, size, padding=size // 2)
        assert conv.bias is not None
        with torch.no_grad():
            conv.weight.zero_()[:, :, size // 2, size // 2] = self.text
            conv.bias.zero_()
        return conv

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[B, D, H, W]`` to logits ``[B, C, H, W]``."""
        return F.conv2d(features, self.text[:, :, None, None])


def known_options(model: type[nn.Module], encoder: str) -> set[str]:
    """Keys that ``segmenter.options`` may contain for an architecture and encoder."""
    own = set(inspect.signature(model.__init__).parameters) - RESERVED_ARGUMENTS
    return own | (_TIMM_OPTIONS if encoder.startswith("tu-") else set())


def build_segmenter(
    *,
    arch: str,
    encoder: str,
    num_classes: int,
    options: Mapping[str, Any],
    text: Tensor | None,
) -> nn.Module:
    """Build an untrained segmenter: RGB ``[B, 3, H, W]`` to logits ``[B, C, H, W]``.

    Args:
        arch: name of an smp architecture in upper or lower case (``unet``, ``deeplabv3``).
        encoder: name of an smp encoder, or ``tu-`` and the name of a timm model.
        num_classes: C.
        options: further arguments of the architecture, such as ``decoder_channels``.
        text: ``[C, D]``, embeddings for a frozen classifier; the decoder gets D channels. None: a
            learned classifier.

    Raises:
        ValueError: the architecture, the encoder or an option is unknown, or they do not fit.
    """
    known = _check_options(arch, encoder, options)
    check_encoder(encoder)
    ours: dict[str, Any] = {"upsampling": 1} if "upsampling" in known else {}
    if text is not None:
        if text.ndim != 2 or len(text) != num_classes:
            raise ValueError(
                f"text embeddings must be [{num_classes}, D], one row per class, "
                f"got {list(text.shape)}"
            )
        ours |= _width_of_text(arch.lower(), options, text.shape[-1])
    fixed = {"encoder_name": encoder, "encoder_weights": None, "classes": num_classes}
    try:
        model: nn.Module = smp.create_model(arch, **{**options, **ours, **fixed})
    except LIBRARY_ERRORS as error:
        raise ValueError(
            f"params.yaml: segmenter.arch '{arch}', segmenter.encoder '{encoder}' and "
            f"segmenter.options {short_repr(dict(options))} do not fit together: "
            f"{error_text(error)}"
        ) from error
    if text is not None:
        _freeze_classifier(model, text)
    return with_own_upsampling(model)


def with_own_upsampling(model: nn.Module) -> nn.Module:
    """Upsample an smp model's logits to its input's size: bilinear, align_corners False, float32.

    The authors do so, and the pseudo-masks are upsampled likewise. smp's heads use align_corners
    True, which at stride 8 moves the logits by up to 3.5 pixels; they are built with
    ``upsampling: 1``, so that plain ``smp.from_pretrained`` gives the small logits. The model is
    changed in place; logits of full size stay as they are.
    """
    head = model.segmentation_head
    if isinstance(head, DPTSegmentationHead):  # has no option (smp 0.6.0)
        head.upsampling_factor = 1
    model.register_forward_hook(_upsampled)
    return model


def _upsampled(model: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> Tensor:
    """Forward hook: logits ``[B, C, h, w]`` at the size of the input ``[B, 3, H, W]``."""
    size = inputs[0].shape[-2:]
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)


def _check_options(arch: str, encoder: str, options: Mapping[str, Any]) -> set[str]:
    """The known options; raises ValueError for an unknown architecture or option."""
    models: dict[str, type[nn.Module]] = smp.MODEL_ARCHITECTURES_MAPPING
    if arch.lower() not in models:
        raise ValueError(
            f"params.yaml: segmenter.arch must be one of {', '.join(sorted(models))}, got '{arch}'"
        )
    known = known_options(models[arch.lower()], encoder)
    if "upsampling" in options:
        raise ValueError(
            "params.yaml: segmenter.options: 'upsampling' is set by the pipeline, which upsamples "
            "logits to the image's size itself (align_corners False); remove it"
        )
    usual = inspect.signature(models[arch.lower()]).parameters
    for name, value in options.items():
        if name not in known:
            raise ValueError(
                f"params.yaml: segmenter.options: '{arch}' does not take '{name}'; "
                f"it takes {', '.join(sorted(known - {'upsampling'}))}"
            )
        switch = name in usual and isinstance(usual[name].default, bool)
        if switch and not isinstance(value, bool):  # "no" would be true
            raise ValueError(
                f"params.yaml: segmenter.options.{name} must be true or false, got "
                f"{short_repr(value)}"
            )
    return known


def _width_of_text(arch: str, options: Mapping[str, Any], width: int) -> dict[str, Any]:
    """The option that gives the decoder ``width`` channels; ValueError if the user set another."""
    name = WIDTH_OPTIONS.get(arch)
    if name is None:
        return {}
    default = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[arch]).parameters[name].default
    found = options.get(name, default)
    found = list(found) if isinstance(found, tuple) else found
    wanted = [*found[:-1], width] if isinstance(found, list) else width
    if name in options and found != wanted:
        raise ValueError(
            f"params.yaml: segmenter.options.{name} must be {short_repr(wanted)} for "
            f"segmenter.classifier 'text', whose embeddings have {width} values, got "
            f"{short_repr(found)}; write {short_repr(wanted)} or remove the line"
        )
    return {name: wanted}


def _freeze_classifier(model: nn.Module, text: Tensor) -> None:
    """Replace the last convolution by the text embeddings."""
    head = model.segmentation_head
    assert isinstance(head, nn.Module)
    name, last = [pair for pair in head.named_modules() if isinstance(pair[1], nn.Conv2d)][-1]
    assert isinstance(last, nn.Conv2d)
    if text.shape[1] != last.in_channels:
        raise ValueError(
            "params.yaml: segmenter.classifier: 'text' needs a decoder with as many channels as "
            f"the embeddings, {text.shape[1]}, and {type(model).__name__}'s has "
            f"{last.in_channels}; use one of these as segmenter.arch: {', '.join(WIDTH_OPTIONS)}"
        )
    head.set_submodule(name, TextClassifier(text, last.kernel_size[0]))


def plain_network(model: nn.Module) -> nn.Module:
    """A copy of the model on the CPU, with its text classifier as an ordinary convolution."""
    plain = copy.deepcopy(model).cpu()
    for name, module in list(plain.named_modules()):
        if isinstance(module, TextClassifier):
            plain.set_submodule(name, module.as_convolution())
    return plain


def check_crop(model: nn.Module, crop: tuple[int, int]) -> None:
    """Raise ValueError if a side of the crop is not a multiple of the encoder's stride."""
    stride = size_divisor(model)
    if any(side % stride for side in crop):
        raise ValueError(
            f"params.yaml: views.crop must be multiples of the encoder's stride {stride}, got "
            f"{list(crop)}"
        )


def size_divisor(model: nn.Module) -> int:
    """The number that height and width of the input must be multiples of (8, 16 or 32)."""
    encoder: Any = model.encoder
    return int(encoder.output_stride)


def check_batch_norm(
    model: nn.Module, *, batch_size: int, crop: tuple[int, int], name: str
) -> None:
    """Raise ValueError if a BatchNorm would see one value per channel, which has no variance.

    This happens with a batch of one image if the network pools the whole map (DeepLab's ASPP, PAN,
    UPerNet) or its deepest map has one pixel.

    Args:
        model: takes images ``[B, 3, H, W]``.
        batch_size: images over which BatchNorm computes its statistics.
        crop: ``(H, W)`` in pixels.
        name: the parameter that sets the batch size.
    """
    if batch_size > 1 or _trains_on_one(model, crop):
        return
    larger = _trains_on_one(model, (2 * crop[0], 2 * crop[1]))
    raise ValueError(
        f"params.yaml: {name} is 1 (over all devices; on CPUs per process), and with views.crop "
        f"{list(crop)} a BatchNorm of this network sees one value per channel; set it to 2 or more"
        + (", or enlarge views.crop" if larger else "")
    )


def _trains_on_one(model: nn.Module, crop: tuple[int, int]) -> bool:
    """Whether each BatchNorm accepts a single crop; runs on the meta device, without values."""
    dry = copy.deepcopy(model).to("meta").train()
    try:
        with torch.no_grad():
            dry(torch.zeros(1, 3, *crop, device="meta"))
    except ValueError as error:
        return "more than 1 value per channel" not in str(error)
    return True

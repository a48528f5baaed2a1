"""Frozen CLIP with dense outputs: features and logits for every patch of an image.

Each patch keeps its own value vector, which the model's own projections map into the text space, as
in Kim et al., AAAI 2024 (arXiv 2312.13646), see `pipeline.clip.towers`; or it attends to similar
patches, as in later work, see `pipeline.clip.last_block`.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from open_clip.utils import to_2tuple
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import activations
from torch import Tensor, nn

from pipeline.clip.last_block import DENSE_MODES, repair_outliers
from pipeline.clip.towers import SUPPORTED, check_tower, read_tower, refusal
from pipeline.clip.weights import (
    HF_HUB,
    check_name,
    check_weights,
    config_source,
    tag_settings,
    weights_source,
)
from pipeline.config.clip import CONFIG_FILE, LOCAL_DIR, ClipParams
from pipeline.system.text import short_repr

GELUS = (nn.GELU, QuickGELU, activations.GELU, activations.GELUTanh, activations.QuickGELU)


class DenseClip(nn.Module):
    """A frozen CLIP with patch features and text embeddings in one space; see ``load_clip``.

    Attributes:
        name: ``params.yaml: clip.model``.
        mean, std: CLIP's own normalisation of RGB in [0, 1], one number per channel.
        patch_size: side of a patch, pixels.
        image_size: ``(height, width)`` the tower was trained with, pixels.
        repair: whether outlier patches are repaired, see `pipeline.clip.last_block`.
        window_share: share of the image's pooled embedding in the features of its patches.
    """

    repair = False
    window_share = 0.0

    def __init__(self, model: nn.Module, tokenizer: Any, *, name: str, config: Any) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.name, self.config = tokenizer, name, config
        visual: Any = model.visual
        self.tower = read_tower(visual)
        self.mean = tuple(float(value) for value in visual.preprocess_cfg["mean"])
        self.std = tuple(float(value) for value in visual.preprocess_cfg["std"])
        self.patch_size = self.tower.stride
        self.image_size: tuple[int, int] = tuple(to_2tuple(visual.image_size))
        check_tower(self.tower, self.model, self.image_size)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: the batch-norm statistics are frozen too."""
        return super().train(False)

    @torch.no_grad()
    def patch_features(self, images: Tensor) -> Tensor:
        """One feature per patch, in the text space.

        With a ``window_share`` s it is (1 - s) times the patch's embedding plus s times the pooled
        embedding of the image, a window of a photo: CLIP was trained to describe whole images, so
        it knows the classes of a small window better than that of a patch. Windows of another size
        than CLIP was trained with are resized for that, which takes a second pass.

        The tower may run under the caller's autocast; the normalisation is always float32.

        Args:
            images: ``[B, 3, H, W]`` float, normalised by ``mean`` and ``std``, of any size.

        Returns:
            ``[B, D, h, w]`` float32, of L2 norm 1 without a ``window_share``; h and w are H and W
            in patches, rounded.

        Raises:
            ValueError: the images are not ``[B, 3, H, W]`` float.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            found = f"{tuple(images.shape)} {images.dtype}"
            raise ValueError(f"images must be [B, 3, H, W] float, CLIP-normalised, got {found}")
        images = _resize_to_patches(images, patch_size=self.patch_size)
        grid = (images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size)
        encoded = self.tower.encode(images)
        mixed = repair_outliers(encoded, grid) if self.repair else encoded
        features = F.normalize(self.tower.dense(mixed, grid).float(), dim=1)
        if not self.window_share:
            return features
        if tuple(images.shape[-2:]) == self.image_size:
            pooled = F.normalize(self.tower.pooled(encoded).float(), dim=1)
        else:
            pooled = self.embed_images(images)
        return torch.lerp(features, pooled[:, :, None, None].expand_as(features), self.window_share)

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """The model's ordinary embedding of whole images, ``[B, D]`` float32 of L2 norm 1.

        Images are resized to the tower's training size, as only then an image has one embedding.

        Args:
            images: as ``patch_features`` takes them, ``[B, 3, H, W]``.
        """
        if tuple(images.shape[-2:]) != self.image_size:
            images = F.interpolate(images, self.image_size, mode="bicubic", antialias=True)
        encode: Any = self.model.encode_image
        return F.normalize(encode(images).float(), dim=1)

    @torch.no_grad()
    def embed_text(self, words: list[list[str]], templates: list[str]) -> Tensor:
        """One embedding per class: the mean over its words and the templates, always in float32.

        Args:
            words: for each class at least one word.
            templates: format strings with ``{}`` in place of the word.

        Returns:
            ``[C, D]`` float32 of L2 norm 1 on the model's device.

        Raises:
            ValueError: a class has no word, or a template no ``{}``.
        """
        if not (words and all(words) and templates and all("{}" in text for text in templates)):
            found = f"words {words} and templates {templates}"
            raise ValueError(f"each class needs a word and each template a {{}}, got {found}")
        with torch.autocast(self.device.type, enabled=False):
            means = []  # of [D]
            for names in words:
                prompts = [template.format(name) for name in names for template in templates]
                encode: Any = self.model.encode_text
                tokens = self.tokenizer(prompts).to(self.device)
                means.append(encode(tokens, normalize=True).mean(dim=0))
            return F.normalize(torch.stack(means), dim=1)

    @torch.no_grad()
    def patch_logits(self, images: Tensor, text: Tensor) -> Tensor:
        """Cosine similarity of every patch to every class, float32, in [-1, 1].

        Args:
            images: as ``patch_features`` takes them, ``[B, 3, H, W]``.
            text: one embedding per class, ``[C, D]``.

        Returns:
            ``[B, C, h, w]``. Classes differ by hundredths, too little for bfloat16.
        """
        features = self.patch_features(images)
        with torch.autocast(features.device.type, enabled=False):
            return torch.einsum("bdhw,cd->bchw", features, F.normalize(text.float(), dim=1))

    def weights_digest(self) -> str:
        """SHA-256 of the weights and of the configuration.

        The configuration counts, because activation and heads change the features.
        """
        settings = json.dumps([self.config, self.mean, self.std], sort_keys=True)
        total = hashlib.sha256(settings.encode())
        for name, weight in sorted(self.model.state_dict().items()):
            total.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            total.update(weight.cpu().numpy().tobytes())
        return total.hexdigest()


def _resize_to_patches(images: Tensor, *, patch_size: int) -> Tensor:
    """Stretch to the nearest whole number of patches per side: bicubic, align_corners False.

    The authors pad with zeros right and below, and stretch the padding over the image.
    """
    size = [max(1, int(side / patch_size + 0.5)) * patch_size for side in images.shape[-2:]]
    if size == list(images.shape[-2:]):
        return images
    return F.interpolate(images, size=size, mode="bicubic", align_corners=False)


def load_clip(
    model: str,
    pretrained: str | None,
    *,
    dense: str = "value",
    repair: bool = False,
    window_share: float = 0.0,
) -> DenseClip:
    """Load a frozen CLIP through open_clip, in float32 on the CPU.

    Unsuitable models are refused before any download: open_clip would accept random weights and
    pickles.

    Args:
        model: open_clip name (``ViT-B-16-quickgelu``), ``hf-hub:owner/name``, ``local-dir:folder``.
        pretrained: for an open_clip name its tag (``openai``) or a ``.safetensors`` file; None
            for the other two, which contain their weights.
        dense: how the last block is run, a key of `pipeline.clip.last_block.DENSE_MODES`.
        repair: repair outlier patches, see `pipeline.clip.last_block`.
        window_share: see `DenseClip.patch_features`.

    Raises:
        ValueError: the model is unknown, unreadable, without weights or has an unsupported tower.
    """
    check_name(model)
    check_weights(model, pretrained)
    source = config_source(model)
    with _explain(model, f"{CONFIG_FILE} with vision_cfg and text_cfg"):
        config = open_clip.get_model_config(source)
        vision, texts = config["vision_cfg"], config["text_cfg"]
        if model.startswith((LOCAL_DIR, HF_HUB)) and texts.get("tokenizer_kwargs"):
            # Passed on to transformers, where they could allow the model's own code to run.
            raise ValueError(f"text_cfg.tokenizer_kwargs {short_repr(texts['tokenizer_kwargs'])}")
    check_supported(model, vision)
    (source, weights), tag = weights_source(model, pretrained), tag_settings(model, pretrained)
    with _explain(model, f"set of weights that fit it (clip.pretrained: {pretrained!r})"):
        with torch.random.fork_rng(devices=[]):  # building draws random weights
            loaded = open_clip.create_model_from_pretrained(
                source,
                weights,
                precision="fp32",
                image_mean=tag.get("mean"),
                image_std=tag.get("std"),
                return_transform=False,
            )
        tokenizer = open_clip.get_tokenizer(model if texts.get("hf_tokenizer_name") else source)
    with _explain(model, f"image tower, one of: {SUPPORTED}"):
        clip = DenseClip(loaded, tokenizer, name=model, config=config)
    _check_modes(clip, dense=dense, repair=repair)
    clip.tower.mode, clip.repair = DENSE_MODES[dense], repair
    clip.window_share = window_share
    return clip


def check_supported(model: str, vision: dict[str, Any]) -> None:
    """Refuse a model, by its ``vision_cfg``, whose image tower cannot be run here."""
    if found := refusal(vision):
        raise ValueError(
            f"params.yaml: clip.model must have one of these image towers: {SUPPORTED}; {model!r} "
            f"has {found}; choose another model"
        )


def _check_modes(clip: DenseClip, *, dense: str, repair: bool) -> None:
    """Refuse ways to run the last block of a tower that does not end in a transformer block."""
    if clip.tower.block is None and (repair or dense != "value"):
        asked = "clip.repair_outliers must be false" if repair else "clip.dense must be 'value'"
        raise ValueError(
            f"params.yaml: {asked} for {clip.name!r}, which does not end in a transformer block, "
            f"got {str(repair).lower() if repair else dense!r}"
        )


def clip_of(params: ClipParams) -> DenseClip:
    """The CLIP that the section ``clip`` of params.yaml describes; see `load_clip`."""
    clip = load_clip(
        params.model,
        params.pretrained,
        dense=params.dense,
        repair=params.repair_outliers,
        window_share=params.window_share,
    )
    return as_the_authors(clip, normalisation=params.normalisation, activation=params.activation)


def as_the_authors(clip: DenseClip, *, normalisation: str, activation: str) -> DenseClip:
    """Use the authors' preprocessing or activation instead of the model's own, to compare them.

    As in their code, the text encoder does not change.

    Args:
        clip: a loaded model; it is changed.
        normalisation: ``clip`` changes nothing; ``imagenet`` uses ImageNet's mean and deviation.
        activation: ``trained`` changes nothing; ``gelu`` or ``quick_gelu`` replaces the tower's
            own GELUs; a ValueError says that it has none.
    """
    if normalisation == "imagenet":
        clip.mean, clip.std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    if activation != "trained":
        kind = {"gelu": nn.GELU, "quick_gelu": QuickGELU}[activation]
        visual: Any = clip.model.visual
        found = [name for name, module in visual.named_modules() if isinstance(module, GELUS)]
        if not found:
            raise ValueError(
                f"params.yaml: clip.activation must be 'trained' for {clip.name!r}, whose image "
                f"tower has no GELU, got '{activation}'"
            )
        for name in found:
            visual.set_submodule(name, kind())
    return clip


@contextmanager
def _explain(model: str, needed: str) -> Iterator[None]:
    """Turn errors of open_clip, safetensors, torch or the hub into one sentence for the user."""
    try:
        yield
    except Exception as error:
        found = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"params.yaml: clip.model {model!r} must have a readable {needed}, found {found}; "
            f"repair the file or choose another model"
        ) from error

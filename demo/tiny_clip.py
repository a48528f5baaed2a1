"""The demo's small CLIP: architecture, initial weights, optimizers, loss and file.

An ordinary open_clip model with 1.0 M image-tower weights, small enough to train on two CPU cores.
"""

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.config.clip import DRAWINGS
from pipeline.system.files import atomic_path, write_json

ADAMW_LR = 1e-3
MUON_LR = 2e-3
WEIGHT_DECAY = 0.05
IMAGE_SIZE = 64
# Average pooling: the pooled vector is the mean of the patches', so patches match text directly.
# Small patches, because the smallest classes are a few pixels wide.
MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "quick_gelu": False,
    "vision_cfg": {
        "image_size": IMAGE_SIZE,
        "patch_size": 8,
        "width": 128,
        "layers": 5,
        "head_width": 32,
        "pool_type": "avg",
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 64,
        "heads": 2,
        "layers": 2,
    },
}
PREPROCESS_CONFIG: dict[str, Any] = {
    "mean": list(OPENAI_DATASET_MEAN),
    "std": list(OPENAI_DATASET_STD),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def build_clip(num_tokens: int, crops: Tensor) -> CLIP:
    """A fresh CLIP with a compact token embedding and a whitened patch embedding.

    Args:
        num_tokens: how many tokens get an embedding (those of the vocabulary).
        crops: ``[N, 3, S, S]`` float, CLIP-normalised; their patches set the first layer.
    """
    model = CLIP(**copy.deepcopy(MODEL_CONFIG)).train()
    model.token_embedding = nn.Embedding(num_tokens, MODEL_CONFIG["text_cfg"]["width"])
    nn.init.normal_(model.token_embedding.weight, std=0.02)
    whiten_patches(model.visual.conv1, crops)
    return model


@torch.no_grad()
def whiten_patches(conv: nn.Conv2d, crops: Tensor, *, floor: float = 1e-2) -> None:
    """Initialise the patch embedding with principal components, scaled to equal variance.

    Random filters respond mostly to mean brightness; whitening saves the first few hundred steps.

    Args:
        conv: the patch embedding; its leading filters are overwritten.
        crops: ``[N, 3, S, S]`` float.
        floor: added to each component's variance, so that noise is not amplified.
    """
    side = conv.kernel_size[0]
    patches = F.unfold(crops, side, stride=side).transpose(1, 2).flatten(0, 1)  # [N*P, 3*k*k]
    patches = patches - patches.mean(dim=0)
    variance, component = torch.linalg.eigh(patches.T @ patches / len(patches))  # ascending
    variance = variance.flip(0)[: conv.out_channels]
    component = component.flip(1)[:, : conv.out_channels]
    filters = (component / (variance + floor).sqrt()).T  # [filters, 3*k*k]
    conv.weight[: len(filters)] = filters.view(-1, 3, side, side)


def build_optimizers(model: CLIP) -> list[torch.optim.Optimizer]:
    """AdamW for embeddings, norms and projections; Muon for the matrices of the blocks.

    Muon: Jordan et al. 2024; step sizes matched to AdamW's as in Liu et al. 2025 (2502.16982).
    """
    matrices, decayed, plain = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "resblocks" in name:
            matrices.append(parameter)
        elif parameter.ndim >= 2 and "embedding" not in name:
            decayed.append(parameter)
        else:
            plain.append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(
        groups, lr=ADAMW_LR, betas=(0.9, 0.98), eps=1e-6, weight_decay=WEIGHT_DECAY
    )
    muon = torch.optim.Muon(
        matrices,
        lr=MUON_LR,
        momentum=0.95,
        weight_decay=WEIGHT_DECAY,
        adjust_lr_fn="match_rms_adamw",
    )
    return [adamw, muon]


def soft_targets(mentioned: Tensor) -> Tensor:
    """Targets of the contrastive loss: squared Jaccard overlap of the classes mentioned.

    Many captions are true of many crops; one-hot targets would penalise this.

    Args:
        mentioned: ``[B, C]`` float, 0 or 1, no empty row.

    Returns:
        ``[B, B]`` float, rows sum to 1.
    """
    both = mentioned @ mentioned.T
    count = mentioned.sum(dim=1)
    overlap = (both / (count[:, None] + count[None, :] - both)).square()
    return overlap / overlap.sum(dim=1, keepdim=True)


def contrastive_loss(
    images: Tensor, texts: Tensor, scale: Tensor, mentioned: Tensor
) -> tuple[Tensor, Tensor]:
    """CLIP's symmetric cross-entropy over the batch, with soft targets.

    Args:
        images: L2-normalised, ``[B, D]`` float.
        texts: L2-normalised, ``[B, D]`` float.
        scale: inverse temperature, 0-d.
        mentioned: classes in each caption, ``[B, C]`` float, 0 or 1.

    Returns:
        The loss and its excess over the targets' entropy (0 is perfect), 0-d both.
    """
    logits = scale * images @ texts.T
    targets = soft_targets(mentioned)
    loss = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
    entropy = torch.special.entr(targets).sum(dim=1).mean()
    return loss, (loss - entropy).detach()


def encode_text(model: CLIP, tokens: Tensor) -> Tensor:
    """``model.encode_text`` for rows shorter than the context length.

    Args:
        model: a CLIP with a causal text tower.
        tokens: ``[U, L]`` int64, end-of-text is the largest.

    Returns:
        ``[U, D]`` text embeddings, not normalised.
    """
    length = tokens.shape[1]
    hidden = model.token_embedding(tokens) + model.positional_embedding[:length]
    hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
    ends = model.ln_final(hidden)[torch.arange(len(tokens)), tokens.argmax(dim=1)]
    embeddings: Tensor = ends @ model.text_projection
    return embeddings


def save_clip(out: Path, model: CLIP, token_ids: Tensor) -> None:
    """Write ``model`` as a folder that open_clip opens as ``local-dir:<out>``, in float16.

    Args:
        out: the folder, replaced atomically.
        model: a CLIP with a compact token embedding.
        token_ids: the CLIP token of each compact row, ``[V]`` int64; all other rows become zero.
    """
    weights = {name: value.detach().half() for name, value in model.state_dict().items()}
    text = MODEL_CONFIG["text_cfg"]
    table = torch.zeros(text["vocab_size"], text["width"], dtype=torch.float16)
    table[token_ids] = weights["token_embedding.weight"]
    weights["token_embedding.weight"] = table
    weights = {name: value.contiguous() for name, value in weights.items()}
    config = {
        "model_cfg": MODEL_CONFIG,
        "preprocess_cfg": PREPROCESS_CONFIG,
        "trained_on": DRAWINGS,  # ours: `pipeline.config.clip` refuses it for photos
    }
    with atomic_path(out) as draft:
        draft.mkdir()
        save_file(weights, draft / "open_clip_model.safetensors", metadata={"format": "pt"})
        write_json(draft / "open_clip_config.json", config)

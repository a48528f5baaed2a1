"""Pretrained weights that the first run will download."""

import open_clip
import timm
from huggingface_hub import try_to_load_from_cache

from pipeline.config.params import Params


def weights_to_download(params: Params) -> list[str]:
    """A line for each file of weights that is not in the cache of the Hugging Face Hub."""
    clip, encoder = params.clip, params.segmenter.encoder
    tag = open_clip.get_pretrained_cfg(clip.model, clip.pretrained or "")
    trained = timm.get_pretrained_cfg(encoder.removeprefix("tu-"))
    assert trained is not None, encoder
    files = [
        (tag["hf_hub"].rstrip("/"), "open_clip_model.safetensors", f"CLIP {clip.model}"),
        (trained.hf_hub_id, "model.safetensors", f"ImageNet weights of {encoder}"),
    ]
    return [
        f"{what}; the first run downloads it"
        for repo, name, what in files
        if not isinstance(try_to_load_from_cache(repo, name), str)
    ]

"""Names and files of a CLIP: what open_clip knows, what is downloaded, what is refused before."""

import difflib
from pathlib import Path
from typing import Any

import open_clip

from pipeline.config.clip import CONFIG_FILE, LOCAL_DIR
from pipeline.system.hub import SAFETENSORS, HubFile, obtain, safetensors_name

HF_HUB, WEIGHTS_FILE = "hf-hub:", "open_clip_model.safetensors"


def check_name(model: str) -> None:
    """Refuse an unknown name; names of the hub can be checked only by downloading."""
    folder = Path(model.removeprefix(LOCAL_DIR))
    if model.startswith(LOCAL_DIR):
        if not all((folder / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE)):
            raise ValueError(
                f"params.yaml: clip.model {model!r} must be a folder with {CONFIG_FILE} and "
                f"{WEIGHTS_FILE}, found {sorted(path.name for path in folder.glob('*'))}; add them"
            )
    elif not model.startswith(HF_HUB) and model not in open_clip.list_models():
        near = difflib.get_close_matches(model, open_clip.list_models(), n=3, cutoff=0.4)
        raise ValueError(
            f"params.yaml: clip.model must be an open_clip name, {HF_HUB}owner/name or "
            f"{LOCAL_DIR}folder, got {model!r}; close names: {', '.join(near) or None}"
        )


def check_weights(model: str, pretrained: str | None) -> None:
    """Refuse weights that are missing, redundant, pickled, or trained with another activation."""
    if model.startswith((LOCAL_DIR, HF_HUB)):
        if pretrained is None:
            return
        raise ValueError(
            f"params.yaml: clip.pretrained must be null for {model!r}, which contains its "
            f"weights, got {pretrained!r}; set it to null or name an open_clip model"
        )
    tag = tag_settings(model, pretrained)
    if tag.get("quick_gelu") and not open_clip.get_model_config(model).get("quick_gelu"):
        raise ValueError(
            f"params.yaml: clip.model must be '{model}-quickgelu' for clip.pretrained "
            f"{pretrained!r}, whose weights were trained with QuickGELU, got {model!r}"
        )
    if not tag and not (pretrained or "").endswith(SAFETENSORS):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "no tag"
        raise ValueError(
            f"params.yaml: clip.pretrained must name trained weights for {model!r}, a .safetensors "
            f"file or one of: {tags}; got {pretrained!r}"
        )


def tag_settings(model: str, pretrained: str | None) -> dict[str, Any]:
    """open_clip's entry of a tag of weights; empty for a file, a folder or an unknown tag."""
    settings: dict[str, Any] = open_clip.get_pretrained_cfg(model, pretrained or "")
    return settings


def hub_files(model: str, pretrained: str | None) -> list[HubFile]:
    """What must be downloaded for a CLIP, none of it a pickle; nothing for files on disk.

    Where open_clip's registry names a pickle, as in its earlier versions for all, the repository's
    safetensors file is taken.

    Raises:
        ValueError: the registry knows no safetensors file.
    """
    if model.startswith(LOCAL_DIR):
        return []
    if model.startswith(HF_HUB):
        repo = model.removeprefix(HF_HUB)
        return [HubFile(repo, CONFIG_FILE), HubFile(repo, WEIGHTS_FILE)]
    settings = tag_settings(model, pretrained)
    if not settings:
        return []
    repo, _, name = settings.get("hf_hub", "").rpartition("/")
    if not repo:
        raise ValueError(
            f"params.yaml: clip.pretrained: open_clip has {pretrained!r} of {model!r} as a pickle "
            f"only, and pickles are not read; choose other weights"
        )
    return [HubFile(repo, safetensors_name(name) if name else WEIGHTS_FILE)]


def config_source(model: str) -> str:
    """The name under which open_clip finds the configuration on disk, downloaded if need be."""
    if not model.startswith(HF_HUB):
        return model
    config = hub_files(model, None)[:1]
    return f"{LOCAL_DIR}{obtain(config, 'clip.model')[0].parent}"


def weights_source(model: str, pretrained: str | None) -> tuple[str, str | None]:
    """Model and weights under names on disk, downloaded if need be: a folder, or name and file.

    open_clip would fall back to a pickle, and asks the hub at each load.
    """
    files = hub_files(model, pretrained)
    if not files:
        return model, pretrained
    file = obtain(files, "clip.model")[-1]
    return (f"{LOCAL_DIR}{file.parent}", None) if model.startswith(HF_HUB) else (model, str(file))

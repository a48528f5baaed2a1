"""Frozen CLIP: dense patch features and logits, and the stage that caches them."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.clip.dense import DenseClip, load_clip

__all__ = ["DenseClip", "load_clip"]
_HOME = {"DenseClip": "dense", "load_clip": "dense"}


def __getattr__(name: str) -> object:
    """Import a name of this package at its first use: importing the package alone stays cheap."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

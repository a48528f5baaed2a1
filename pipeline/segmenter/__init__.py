"""The segmentation network: build, encoder weights, save and load, inference, model card."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.segmenter.inference import Segmenter
    from pipeline.segmenter.saved import load_segmenter, save_segmenter

__all__ = ["Segmenter", "load_segmenter", "save_segmenter"]
_HOME = {"Segmenter": "inference", "load_segmenter": "saved", "save_segmenter": "saved"}


def __getattr__(name: str) -> object:
    """Import a name of this package at its first use: importing the package alone stays cheap."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

"""The Zarr cache of CLIP's patch logits: plan, writer, reader and checks."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.store.reader import PseudoMaskStore

__all__ = ["PseudoMaskStore"]
_HOME = {"PseudoMaskStore": "reader"}


def __getattr__(name: str) -> object:
    """Import a name of this package at its first use: importing the package alone stays cheap."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

"""Schema of params.yaml, one file per section, and its errors as sentences."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.params import Params, load_params

__all__ = ["Params", "load_params"]


def __getattr__(name: str) -> object:
    """Import a name of this package at its first use: a stage needs its own sections only."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.params"), name)

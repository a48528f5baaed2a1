"""Schema of params.yaml, its validation, and the files that parameters name."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.params import Params, load_params

__all__ = ["Params", "load_params"]


def __getattr__(name: str) -> object:
    """Import a name at its first use: a stage needs only its own sections."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.params"), name)

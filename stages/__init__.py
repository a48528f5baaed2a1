"""Command lines of the pipeline's stages: paths from dvc.yaml, parameters from params.yaml."""

import sys
from importlib.util import find_spec
from pathlib import Path

_found = find_spec("pipeline")  # not imported: it may be a user's own pipeline.py
_origin = Path(_found.origin if _found and _found.origin else "pipeline")
if _origin.resolve().parent.parent != Path(__file__).resolve().parent.parent:
    print(
        f"error: {_origin}: hides carb's package of that name; rename it, or run in another folder",
        file=sys.stderr,
    )
    raise SystemExit(2)

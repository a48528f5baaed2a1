"""The DVC stages: thin command lines that join paths (dvc.yaml) and science (params.yaml)."""

import sys
from importlib.util import find_spec
from pathlib import Path

_found = find_spec("pipeline")  # is not run: it may be a user's own pipeline.py
_origin = Path(_found.origin if _found and _found.origin else "pipeline")
if _origin.resolve().parent.parent != Path(__file__).resolve().parent.parent:
    print(
        f"error: {_origin}: hides carb's package of that name; rename it, or run in another folder",
        file=sys.stderr,
    )
    raise SystemExit(2)

"""A browser without a window, where there is one; nothing of the network reaches it."""

import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
BROWSER = next(filter(None, _NAMES), None)
_QUIET = "disable-quic no-first-run disable-background-networking disable-component-update"
_FLAGS = [f"--{flag}" for flag in f"headless no-sandbox disable-gpu {_QUIET} disable-sync".split()]
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")


def browse(page: Path, width: int, *arguments: str) -> str:
    """Show a page in a window so wide; what the browser prints."""
    assert BROWSER is not None
    own = [f"--user-data-dir={page.parent / '.browser'}", f"--window-size={width},2000", OFFLINE]
    command = [BROWSER, *_FLAGS, *own, *arguments, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout

"""Pretrained weights from the Hugging Face Hub: looked up in its cache, else downloaded once.

Libraries that load weights by name ask the hub even for files that they have, retry for a minute
without a connection, and fall back to pickles. Here files are resolved first; the libraries then
get paths of safetensors files.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.system.text import error_text

REACH_S = 8.0  # for the hub's first answer; name servers alone may take longer to give up
SAFETENSORS = ".safetensors"
_PICKLES = (".bin", ".pth", ".pt")


class HubFile(NamedTuple):
    """A file of a repository on the hub; ``revision`` is a branch, tag or commit (None: main)."""

    repo: str
    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.repo}/{self.name}"


def safetensors_name(name: str) -> str:
    """The safetensors file that the hub's repositories offer beside a pickle of this name."""
    ending = next((ending for ending in _PICKLES if name.endswith(ending)), None)
    return name if ending is None else name.removesuffix(ending) + SAFETENSORS


def cached(file: HubFile) -> Path | None:
    """The file in the hub's cache (``HF_HUB_CACHE``, by default below ``HF_HOME``), or None."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(file.repo, file.name, revision=file.revision)
    return Path(found) if isinstance(found, str) else None


def obtain(files: Sequence[HubFile], parameter: str) -> list[Path]:
    """The files of one model, from the cache without any request, else downloaded.

    If one is missing all are asked for, so that those of one repository are of one commit.

    Args:
        files: what to get.
        parameter: its name in params.yaml, for messages.

    Raises:
        ValueError: a file is missing and the hub cannot be reached, or does not have it.
    """
    found = [path for file in files if (path := cached(file)) is not None]
    if len(found) == len(files):
        return found
    missing = ", ".join(str(file) for file in files if cached(file) is None)
    if reason := unreachable():
        raise ValueError(
            f"params.yaml: {parameter}: {missing} is not on this machine and cannot be downloaded "
            f"({reason}); run `carb fetch` on a machine with a connection and the same HF_HOME, or "
            "copy its cache here"
        )
    return [_download(file, parameter) for file in files]


def _download(file: HubFile, parameter: str) -> Path:
    """Download a file, with the hub's progress bar."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(file.repo, file.name, revision=file.revision))
    except Exception as error:
        lacks = isinstance(error, EntryNotFoundError)
        if lacks and not isinstance(error, LocalEntryNotFoundError):
            problem = f"the hub has no {file}, and files of other kinds (pickles) are not read"
        else:
            problem = f"{file} cannot be downloaded ({error_text(error)})"
        raise ValueError(
            f"params.yaml: {parameter}: {problem}; choose other weights, or name a file or folder "
            "with safetensors"
        ) from error


def unreachable() -> str:
    """Why the hub cannot be asked now, within seconds; empty if it answers.

    Asked in a thread, because a name server that does not answer ignores any time limit.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answers: list[str] = []

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=REACH_S)
            answers.append("")
        except Exception as error:  # of the HTTP library that the hub's client uses
            answers.append(f"{constants.ENDPOINT}: {error_text(error)}")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_S)
    return answers[0] if answers else f"{constants.ENDPOINT}: no answer within {REACH_S:.0f} s"

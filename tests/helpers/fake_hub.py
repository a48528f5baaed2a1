"""A Hugging Face Hub on this machine: serves a folder ``owner/name/file``, and logs requests."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from tests.helpers import clip_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def fake_hub(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve ``folder``; yields the endpoint and the list of requested files, in order."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            repo, found, rest = self.path.strip("/").partition("/resolve/")
            name = f"{repo}/{rest.partition('/')[2]}"
            content = (folder / name).read_bytes() if (folder / name).is_file() else None
            if found:
                asked.append(name)
            self.send_response(404 if content is None else 200)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if body and content is not None:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


class Hub(NamedTuple):
    """A hub on this machine: its folder, and what was asked of it."""

    folder: Path
    asked: list[str]

    def put(self, repo: str, weights: dict[str, torch.Tensor], name: str) -> None:
        (self.folder / repo).mkdir(parents=True)
        save_file(weights, self.folder / repo / name)


def use_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def add_tagged_clip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Make 'Tiny-16' with tag 'lab' a model of open_clip's registry; returns its weights."""
    config = clip_folder.model_config(clip_folder.VIT)
    (folder / "Tiny-16.json").write_text(json.dumps(config))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {})
    open_clip.add_model_config(folder / "Tiny-16.json")
    tag = {"hf_hub": "lab/tiny/", "mean": clip_folder.MEAN, "std": clip_folder.STD}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny-16", {"lab": tag})
    return clip_folder.random_weights(config)

"""Tiny CLIPs with random weights, and a store built of small photos."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from lightning_fabric import Fabric

from pipeline.clip.build_store import Part, build_store
from pipeline.clip.dense import DenseClip
from pipeline.config.clip import ClipParams
from pipeline.config.params import Params
from tests.helpers import clip_folder
from tests.helpers.clip_photos import LEVELS, TEMPLATES, index_of
from tests.helpers.tiny_store import digests


class Built(NamedTuple):
    """Digest of each file of a store, and what was logged while it was built."""

    files: dict[str, str]
    log: str


Build = Callable[..., Built]


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> DenseClip:
    return clip_folder.random_clip(tmp_path_factory.mktemp("vit"), clip_folder.VIT)


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> DenseClip:
    return clip_folder.random_clip(tmp_path_factory.mktemp("resnet"), clip_folder.RESNET)


@pytest.fixture
def asked(params: Params) -> ClipParams:
    """The committed parameters with windows that fit the small photos; no fused level."""
    changes = {"levels": LEVELS, "fused": None, "precision": "32-true"}
    return params.clip.model_copy(update=changes)


@pytest.fixture
def build(
    tmp_path: Path, vit: DenseClip, asked: ClipParams, caplog: pytest.LogCaptureFixture
) -> Build:
    """Bring the store ``tmp_path / out`` up to date for the photos named by one letter each."""
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")

    def run(
        names: str, out: str = "masks.zarr", params: ClipParams = asked, part: str = ""
    ) -> Built:
        caplog.clear()
        with caplog.at_level("INFO", "carb"):
            build_store(
                fabric,
                vit,
                index_of(tmp_path / "data", names),
                root=tmp_path / "data",
                params=params,
                templates=TEMPLATES,
                out=tmp_path / out,
                scratch=tmp_path / "scratch",
                part=Part.parse(part) if part else None,
            )
        if part:
            return Built({}, caplog.text)
        assert list((tmp_path / "scratch").iterdir()) == []
        return Built(digests(tmp_path / out), caplog.text)

    return run

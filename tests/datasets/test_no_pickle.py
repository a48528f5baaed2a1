"""A pickle may call any function, so no untrusted file is ever unpickled, whatever its name."""

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch import nn

from pipeline.clip.dense import load_clip
from pipeline.config.params import load_params
from pipeline.datasets.authors_labels import read_npy_dict
from pipeline.datasets.base import id_table, read_ids
from pipeline.datasets.folder import read_classes
from pipeline.datasets.image_label_files import read_label_file
from pipeline.datasets.wilddash2 import PanopticMasks
from pipeline.scenes.image_io import read_image
from pipeline.scenes.index import SceneIndex
from pipeline.segmenter.encoder import imagenet_encoder, load_encoder
from pipeline.segmenter.network import build_segmenter
from pipeline.segmenter.saved import load_segmenter
from pipeline.store.reader import PseudoMaskStore
from pipeline.training.checkpoint import load_checkpoint
from tests.conftest import StoreOf
from tests.helpers.bad_input import Hostile, hostile_npy, hostile_pickle
from tests.helpers.fake_hub import Hub
from tests.helpers.small_photos import random_segmenter
from tests.helpers.tiny_run import write_random_clip

WEIGHTS, OTHERS = "open_clip_model.safetensors", ("open_clip_pytorch_model.bin", "model.pth")
SMALL = {"decoder_channels": [8, 8, 8, 8, 8]}


def torch_file() -> bytes:
    """A hostile file of ``torch.save``."""
    file = io.BytesIO()
    torch.save({"a": Hostile("harm")}, file)
    return file.getvalue()


CONTENTS = {"pickle": hostile_pickle(), "npy": hostile_npy(), "torch": torch_file()}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the unpicklers that were called; each call fails."""
    monkeypatch.chdir(tmp_path)
    calls: list[str] = []
    for module, name in (
        *((pickle, name) for name in ("load", "loads", "Unpickler", "_Unpickler")),
        *((torch, "load"), (torch.jit, "load")),
    ):

        def refuse(*_: object, of: str = f"{module.__name__}.{name}", **__: object) -> None:
            calls.append(of)
            raise AssertionError(of)

        monkeypatch.setattr(module, name, refuse)
    return calls


def put(path: str, content: bytes) -> Path:
    Path(path).write_bytes(content)
    return Path(path)


def small_unet() -> nn.Module:
    return build_segmenter(arch="unet", encoder="resnet18", num_classes=2, options=SMALL, text=None)


def segmenter_folder() -> Path:
    folder = Path("segmenter")
    return folder if folder.is_dir() else random_segmenter(folder)


def into_segmenter(content: bytes) -> None:
    put(f"{segmenter_folder()}/model.safetensors", content)
    load_segmenter(Path("segmenter"))


def beside_segmenter(content: bytes) -> None:
    put(f"{segmenter_folder()}/pytorch_model.bin", content)
    Path("segmenter/model.safetensors").unlink(missing_ok=True)
    load_segmenter(Path("segmenter"))


def into_clip(content: bytes) -> None:
    write_random_clip(Path())
    put(f"clip/{WEIGHTS}", content)
    load_clip("local-dir:clip", None)


def beside_clip(content: bytes) -> None:
    write_random_clip(Path())
    for name in OTHERS:
        put(f"clip/{name}", content)
    Path(f"clip/{WEIGHTS}").unlink()
    load_clip("local-dir:clip", None)


def into_checkpoint(content: bytes) -> None:
    layer = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    load_checkpoint(put("x.safetensors", content), modules={"a": layer}, optimizer=optimizer)


LOADERS: dict[str, Callable[[bytes], object]] = {
    "labels": lambda content: read_label_file(put("x.npy", content), ["a", "b"]),
    "labels CSV": lambda content: read_label_file(put("x.csv", content), ["a", "b"]),
    "labels JSON": lambda content: read_label_file(put("x.json", content), ["a", "b"]),
    "encoder": lambda content: load_encoder(small_unet(), put("x.safetensors", content)),
    "CLIP in a folder": into_clip,
    "CLIP's pickle in a folder": beside_clip,
    "CLIP of a file": lambda content: load_clip("ViT-B-16", str(put("x.pt", content))),
    "segmenter": into_segmenter,
    "segmenter's pickle": beside_segmenter,
    "checkpoint": into_checkpoint,
    "index": lambda content: SceneIndex.read(put("x.json", content)),
    "parameters": lambda content: load_params(put("x.yaml", content)),
    "classes": lambda content: read_classes(put("x.csv", content)),
    "annotations": lambda content: PanopticMasks(put("panoptic.json", content).parent).categories,
    "photo": lambda content: read_image(put("x.png", content)),
    "mask": lambda content: read_ids(put("x.png", content), id_table(range(2))),
}


def test_the_hostile_files_act_when_they_are_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(CONTENTS["pickle"])
    assert Path("harm").is_dir()
    Path("harm").rmdir()
    np.load(io.BytesIO(CONTENTS["npy"]), allow_pickle=True)
    assert Path("harm").is_dir()
    Path("harm").rmdir()
    torch.load(io.BytesIO(CONTENTS["torch"]), weights_only=False)
    assert Path("harm").is_dir()


@pytest.mark.parametrize("loader", LOADERS)
def test_no_loader_unpickles(loader: str, opened: list[str]) -> None:
    for content in CONTENTS.values():
        with pytest.raises(ValueError, match=r"x\.|clip|segmenter|panoptic"):
            LOADERS[loader](content)
    assert opened == []
    assert not Path("harm").exists()


def test_pickles_beside_good_weights_are_ignored(opened: list[str]) -> None:
    write_random_clip(Path())
    for name in OTHERS:
        put(f"clip/{name}", CONTENTS["torch"])
    put(f"{segmenter_folder()}/pytorch_model.bin", CONTENTS["torch"])
    assert load_clip("local-dir:clip", None).patch_size == 16
    assert len(load_segmenter(Path("segmenter")).classes) == 11
    assert opened == []


def test_weights_that_the_hub_has_only_as_a_pickle_are_refused_and_not_downloaded(
    local_hub: Hub,
    tagged_clip: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    opened: list[str],
) -> None:
    for repo, name in (
        ("lab/tiny", "open_clip_pytorch_model.bin"),
        ("timm/regnetx_002.pycls_in1k", "pytorch_model.bin"),
    ):
        (local_hub.folder / repo).mkdir(parents=True)
        (local_hub.folder / repo / name).write_bytes(CONTENTS["torch"])
    for parameter, load in (
        ("clip.model", lambda: load_clip("Tiny-16", "lab")),
        ("segmenter.encoder_weights", lambda: imagenet_encoder("tu-regnetx_002")),
    ):
        refused = rf"{parameter}: the hub has no \S+\.safetensors, and .* \(pickles\) are not read"
        with pytest.raises(ValueError, match=refused):
            load()
    assert not [name for name in local_hub.asked if name.endswith(".bin")]
    url = {"url": "https://example.com/tiny.pt"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny-16", {"lab": url})
    with pytest.raises(ValueError, match=r"clip\.pretrained: open_clip has 'lab' .* as a pickle"):
        load_clip("Tiny-16", "lab")
    with pytest.raises(ValueError, match=r"no ImageNet weights of 'tu-vit_huge\w+' as safetensors"):
        imagenet_encoder("tu-vit_huge_patch16_gap_448")  # timm 1.0: a URL of a .pth file only
    assert opened == []


def test_labels_of_the_authors_are_read_without_an_unpickler(opened: list[str]) -> None:
    np.save("x.npy", {"a": np.array([1, 0])}, allow_pickle=True)  # type: ignore[arg-type]
    assert read_label_file(Path("x.npy"), ["a", "b"])["a"].tolist() == [True, False]
    assert opened == []


def test_a_store_of_objects_is_refused(opened: list[str], store_of: StoreOf) -> None:
    store = store_of({"global": {"a": np.ones((3, 2, 2))}}, {"a": (8, 8)})
    shutil.rmtree(store.path / "text")
    (store.path / "text").mkdir()
    array = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "fill_value": None}
    array |= {"order": "C", "filters": [{"id": "pickle"}], "compressor": None}
    put(f"{store.path}/text/.zarray", json.dumps(array).encode())
    put(f"{store.path}/.zgroup", b'{"zarr_format": 2}')
    put(f"{store.path}/text/0", hostile_pickle())
    with pytest.raises(ValueError, match="incomplete or damaged pseudo-mask store"):
        PseudoMaskStore.open(store.path)
    assert opened == []


def npy_of(opcodes: bytes) -> bytes:
    """A ``.npy`` of one object, built by these opcodes."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    return file.getvalue() + b"\x80\x04" + opcodes + b"."


@pytest.mark.parametrize(
    ("opcodes", "found"),
    [
        (b"cnumpy\nload\n", "numpy.load"),
        (b"cposix\nsystem\n(\x8c\x02lsttR", "posix.system"),
        (b"\x8c\x05posix\x8c\x06system\x93", "posix.system"),
        (b"(\x8c\x02lsiposix\nsystem\n", "INST"),
        (b"\x82\x01", "EXT1"),
        (b"}\x8c\x01aQ", "BINPERSID"),
        (b"cnumpy\ndtype\ncnumpy\ndtype\n\x81", "NEWOBJ"),
        (b"}()K\x01s", "tuple where a str"),  # a key that is no text
        (b"K\x01)R", "int where a _Name"),
        (b"\x8e" + 8 * b"\xff", "BINBYTES8|bytes8"),
        (b"B" + 4 * b"\xff", "expected|bytes"),
    ],
)
def test_opcodes_that_build_no_array_are_refused(opcodes: bytes, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        read_npy_dict(npy_of(opcodes))


def test_arrays_of_pointers_and_of_terabytes_are_refused() -> None:
    start = b"}\x8c\x01acnumpy._core.multiarray\n_reconstruct\n"
    start += b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R("
    kind = b"cnumpy\ndtype\n\x8c\x02%s\x89\x88\x87R(K\x03\x8c\x01<NNN" + 2 * b"J\xff\xff\xff\xff"
    kind += b"K\x00tb"
    for code, data, found in ((b"O8", b"]", "not numbers"), (b"f8", b"C\x00", "reshape|buffer")):
        state = b"K\x01J\xff\xff\xff\x7f\x85" + kind % code + b"\x89" + data + b"tbs"
        with pytest.raises(ValueError, match=found):
            read_npy_dict(npy_of(start + state))

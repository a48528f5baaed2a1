"""Layout of a user's folder: folders of photos, splits and masks, and annotations among the photos.

Folder names may have any capitals; ambiguous layouts are refused."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.scenes.image_folder import Below, is_ours, look_below
from pipeline.scenes.image_io import PHOTO_ENDINGS
from pipeline.scenes.image_names import SPLITS, plain, without_ending

IMAGES, MASKS = "images", "masks"
# What folders of masks are called elsewhere, small and without the signs between words.
ANNOTATIONS = {"mask", "masks", "annot", "annots", "annotation", "annotations", "label", "labels"}
ANNOTATIONS |= {"gt", "gtfine", "groundtruth", "groundtruths", "labelids", "trainids", "labelled"}
ANNOTATIONS |= {"seg", "segs", "segmentation", "segmentations", "segmentationclass", "semantic"}
ANNOTATIONS |= {"maskspng", "labelmap", "labelmaps", "segmentationmasks", "ann", "anns", "anno"}
_PLAIN_WORDS = {
    "data",
    "frames",
    "images",
    "image",
    "img",
    "imgs",
    "photos",
    "pics",
    "set",
    "split",
}
_MASK_SUFFIX = re.compile("[ ._-](masks?|labels?|labelids|gt|seg|segmentation|annotation)$", re.I)
LOSSLESS = (".png", ".bmp", ".gif", ".tif", ".tiff")
# What programs write behind a photo's name.
_SUFFIX = re.compile(
    "[ ._-](masks?|labels?|labelids|trainids|labeltrainids|gt|gtfine|seg|segmentation|annotation"
    "|l|leftimg8bit)$",
)


@dataclass(frozen=True)
class Layout:
    """Layout of a user's folder.

    Attributes:
        root: the folder itself.
        home: where the photos lie: its ``images``, or the folder itself.
        photos: folder of each split; ``home`` is that of ``train`` where there are no splits.
        masks: folder of the masks, or None.
        split: whether the photos lie in folders of splits.
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


def folders_in(folder: Path) -> list[Path]:
    """The folders directly in a folder, links too, without those that systems make."""
    return sorted(path for path in folder.iterdir() if is_ours(path.name) and path.is_dir())


def one_folder(parent: Path, names: Sequence[str]) -> Path | None:
    """The folder in ``parent`` that has one of these names, in any capitals.

    Raises:
        ValueError: there are two.
    """
    found = [path for path in folders_in(parent) if path.name.casefold() in names]
    if len(found) > 1:
        raise ValueError(
            f"{found[0]}: {found[1].name} is there, too, and means the same; keep one of them"
        )
    return found[0] if found else None


def has_photos(folder: Path) -> bool:
    """Whether there are photos in a folder itself."""
    return any(
        path.suffix.lower() in PHOTO_ENDINGS and is_ours(path.name) and not path.is_dir()
        for path in folder.iterdir()
    )


def photo_folder(root: Path) -> Path:
    """Where the photos lie: in ``images`` if there is such a folder, else in ``root`` itself."""
    return one_folder(root, [IMAGES]) or root


def find_layout(root: Path) -> Layout:
    """Find the photos and masks of a folder.

    Raises:
        ValueError: two folders mean the same, or some photos are of no split.
    """
    home, masks = photo_folder(root), one_folder(root, [MASKS])
    train = one_folder(home, SPLITS["train"])
    val = one_folder(home, SPLITS["val"])
    if home != root and has_photos(root):
        raise ValueError(f"{root}: has photos beside {home.name}; put them into {home}")
    if home != root:
        _check_beside(root, home)
    if train is None:
        _check_no_train(home, val)
        return Layout(root, home, {"train": home}, masks, split=False)
    if has_photos(home):
        raise ValueError(f"{home}: has photos beside {train.name}; put them into train or val")
    photos = {"train": train} | ({"val": val} if val else {})
    return Layout(root, home, photos, masks, split=True)


def _check_beside(root: Path, home: Path) -> None:
    """Refuse folders of splits beside ``images``."""
    for names in SPLITS.values():
        folder = one_folder(root, names)
        if folder is not None and look_below(folder).photos:
            raise ValueError(
                f"{folder}: holds photos beside {home.name}; put the folder into {home}"
            )


def _check_no_train(home: Path, val: Path | None) -> None:
    """Refuse photos to score where none to learn from are set apart.

    Raises:
        ValueError: says which folder means what.
    """
    test = one_folder(home, SPLITS["test"])
    lone = val or (test if test is not None and look_below(test).photos else None)
    if lone is not None:
        raise ValueError(f"{home}: holds {lone.name} and no train; put the other photos into train")
    inside: dict[Path, set[str]] = {}
    for key in look_below(home).photos:
        parts = key.split("/")[:-1]
        for depth, name in enumerate(parts):
            inside.setdefault(home.joinpath(*parts[:depth]), set()).add(name)
    for folder, names in inside.items():
        alike = next((name for name in sorted(names) if _like(name, "val")), None)
        if alike is not None:
            raise ValueError(
                f"{folder / alike}: is named like photos to score; call their folder val and that "
                f"of the other photos train, both in {home}, or rename it"
            )


def _like(name: str, split: str) -> bool:
    """Whether a name means a split: ``val_images``, ``valset2``, and no other word is in it."""
    words = [word for word in re.split("[^a-z]+", name.casefold()) if word]
    meant = [word for word in words if word.removesuffix("set") in SPLITS[split]]
    return bool(meant) and all(word in meant or word in _PLAIN_WORDS for word in words)


def look_at_split(layout: Layout, split: str) -> Below:
    """What lies in the folder of a split, masks and folders of annotations left out."""
    folder = layout.photos[split]
    inside = layout.masks is not None and layout.masks.parent == folder
    return look_below(folder, [layout.masks.name] if inside and layout.masks else ())


def annotations(photos: dict[str, Path], is_mask: Callable[[Path], bool]) -> list[str]:
    """The keys of images that are annotations of others, by their names or content.

    An annotation has the name of another image, with or without a suffix such as ``_mask``. It is
    in a folder named so, has such a suffix and a lossless format, or is a mask of class indices. A
    folder named so whose files mostly are annotations has no photos.

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
        if beside or (twin and (_named_so(folder) or (lossless and is_mask(path)))):
            found.add(key)
            folders[folder] += 1
    count = Counter(key.rpartition("/")[0] for key in photos)
    whole = {folder for folder, n in folders.items() if _named_so(folder) and 2 * n > count[folder]}
    return [key for key in photos if key in found or key.rpartition("/")[0] in whole]


def _named_so(folder: str) -> bool:
    """Whether a folder or one above it has a name of folders of masks."""
    return any(re.sub("[^a-z]", "", part.casefold()) in ANNOTATIONS for part in folder.split("/"))


def shorter(name: str) -> Iterator[str]:
    """A mask's name without what programs add, step by step: ``a_mask.jpg``, ``a_mask``, ``a``."""
    name = name.casefold()
    yield name
    while True:
        short = without_ending(name)
        short = _SUFFIX.sub("", short) if short == name else short
        if short == name:
            return
        name = short
        yield name


def match_masks(folder: Path | None, names: Iterable[str]) -> dict[str, Path]:
    """The mask of each photo that has one: ``.png`` of the same path; where that is missing, the
    only file whose name differs by capitals, the photo's ending or a usual suffix.

    Args:
        folder: of the masks.
        names: paths of the photos below theirs, without ending.
    """
    if folder is None:
        return {}
    exact: dict[str, Path] = {}
    loose: dict[str, list[Path]] = {}
    for path in mask_files(folder):
        if path.suffix.lower() == ".png":
            name = plain(path.relative_to(folder).as_posix()[:-4])
            if name not in exact or path.suffix == ".png":
                exact[name] = path
            for short in shorter(name):
                loose.setdefault(short, []).append(path)
    wanted = {name: plain(name) for name in names}
    taken = {exact[name] for name in wanted.values() if name in exact}
    short_names = {name: list(shorter(name))[-1] for name in wanted.values()}
    counts = Counter(short_names.values())
    found = {}
    for name, written in wanted.items():
        near = [path for path in loose.get(short_names[written], []) if path not in taken]
        if written in exact:
            found[name] = exact[written]
        elif len(near) == 1 and counts[short_names[written]] == 1:
            found[name] = near[0]
    return found


def mask_files(folder: Path) -> list[Path]:
    """All files in the folder of masks and below it."""
    return look_below(folder, endings=()).others

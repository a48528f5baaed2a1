"""Anybody's own photos: a folder of images, a list of classes, and image-level labels.

``classes.csv``           a line a class: ``class``, and if wanted ``words`` (what CLIP is asked
                          for, several apart by ``|``) and ``colour`` (``#rrggbb``)
``image_labels.csv``      or ``.json``: which classes are in which photo
``images/...``            photos to learn from, in any sub-folders; or ``images/train`` and
                          ``images/val``, photos to look at and to score
``masks/...``             human masks where there are any: the same paths, ``.png`` of class indices
"""

import colorsys
import csv
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pipeline.label_spaces import LABEL_SPACES, ClassInfo, LabelSpace
from pipeline.places import check_place
from pipeline.scene import PHOTO_ENDINGS, Dataset, Scene, index_table, read_ids
from pipeline.wording import shown

CLASSES, IMAGES, MASKS = "classes.csv", "images", "masks"
LABELS = ("image_labels.csv", "image_labels.json")
COLUMNS = ("class", "words", "colour")
_KNOWN = {info.name: info.colour for info in LABEL_SPACES["cityscapes"].classes}


def _colour(text: str, name: str, place: int) -> tuple[int, int, int]:
    """A colour as written; else that of Cityscapes for its classes; else one of its own."""
    if text:
        red, green, blue = bytes.fromhex(text.removeprefix("#"))
        return red, green, blue
    golden = place * 0.618034 % 1.0  # steps of the golden ratio never come close to each other soon
    shade = colorsys.hsv_to_rgb(golden, 0.55 + 0.4 * (place % 2), 0.95 - 0.3 * (place % 3) / 2)
    drawn = tuple(round(255 * part) for part in shade)
    return _KNOWN.get(name, (drawn[0], drawn[1], drawn[2]))


def read_classes(path: Path) -> LabelSpace:
    """Read a list of classes; their order is that of the indices in masks.

    Args:
        path: CSV with a header of ``class`` and, if wanted, ``words`` and ``colour``.

    Raises:
        ValueError: the file is missing or has a mistake; names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.reader(handle)
            rows = [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError:
        raise ValueError(
            f"{path}: no such file; write one with the header 'class' and a class on each line"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not readable as CSV ({error}); check the file") from None
    header = [column.strip() for column in rows[0][1]] if rows else []
    named = len(set(header)) == len(header) and set(header) <= set(COLUMNS)
    if header[:1] != ["class"] or not named:
        raise ValueError(
            f"{path}: the header must be 'class' and, if wanted, 'words' and 'colour', apart by "
            f"commas, got {shown(', '.join(header)) if header else 'nothing'}"
        )
    infos: dict[str, ClassInfo] = {}
    for number, row in rows[1:]:
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        name, colour = cells["class"], cells.get("colour", "")
        if fault := _fault(row, header, name, colour, infos):
            raise ValueError(f"{path}: line {number} {fault}")
        words = tuple(word.strip() for word in cells.get("words", "").split("|") if word.strip())
        infos[name] = ClassInfo(name, _colour(colour, name, len(infos)), words or (name,))
    if not 2 <= len(infos) <= 255:
        raise ValueError(f"{path}: must list 2 to 255 classes, got {len(infos)}")
    return LabelSpace("folder", tuple(infos.values()))


def _fault(
    row: list[str], header: list[str], name: str, colour: str, before: dict[str, ClassInfo]
) -> str:
    """What is wrong with a line, or nothing."""
    if len(row) > len(header):
        return f"has {len(row)} columns, the header {len(header)}; put '|' between words"
    if not name or name == "key":  # the first column of a CSV of labels
        return f"must name a class, got {shown(name)}"
    if name in before:
        return f"names {shown(name)} again; keep one of the lines"
    if colour and not re.fullmatch("#[0-9a-fA-F]{6}", colour):
        return f"must have a colour such as #804080, got {shown(colour)}"
    return ""


def photos_below(folder: Path) -> dict[str, Path]:
    """The photos in a folder and below it, by path without ending; hidden files are none.

    Raises:
        ValueError: two photos differ by nothing but their ending, or a folder is a link.
        OSError: a folder cannot be read.
    """
    found: dict[str, Path] = {}
    for path in sorted(_files_below(folder)):
        if path.suffix.lower() not in PHOTO_ENDINGS:
            continue
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise ValueError(f"{path}: {found[key].name} has the same name; rename one")
        found[key] = path
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    """All files that are not hidden, and in no hidden folder."""
    for place, folders, files in os.walk(folder, onerror=_raise) if folder.is_dir() else ():
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if os.path.islink(os.path.join(place, name)):  # to pass over it would lose photos
                raise ValueError(
                    f"{os.path.join(place, name)}: is a link to a folder, which is not followed; "
                    "put the folder itself there"
                )
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def _find_scenes(root: Path, split: str) -> list[Scene]:
    """The photos of a split by path; a photo without a mask file has none."""
    inner = split if _has_splits(root) else ""
    scenes = []
    for name, image in photos_below(root / IMAGES / inner).items():
        mask = root / MASKS / inner / f"{name}.png"
        scenes.append(Scene(image, mask if mask.exists() else None, split, f"{split}/{name}"))
    return scenes


def _has_splits(root: Path) -> bool:
    return (root / IMAGES / "train").is_dir()


def open_dataset(root: Path) -> Dataset:
    """The photos and classes in a folder.

    Raises:
        ValueError: the list of classes is missing or has a mistake, or some photos are of no split.
    """
    space = read_classes(root / CLASSES)
    labels = next((root / name for name in LABELS if (root / name).is_file()), None)
    for path in filter(None, (root / CLASSES, labels)):
        check_place(path, root)
    with_val = (root / IMAGES / "val").is_dir()
    if with_val and not _has_splits(root):
        raise ValueError(
            f"{root / IMAGES}: holds val and no train; put the other photos into train"
        )
    beside = [path for path in (root / IMAGES).glob("[!.]*.*") if _has_splits(root)]
    if any(path.suffix.lower() in PHOTO_ENDINGS and not path.is_dir() for path in beside):
        raise ValueError(f"{root / IMAGES}: has photos beside train; put them into train or val")
    return Dataset(
        root=root,
        label_space=space,
        splits=("train", "val") if with_val else ("train",),
        find_scenes=partial(_find_scenes, root),
        read_mask=partial(read_ids, table=index_table(len(space.classes))),
        layout=f"{CLASSES} and {IMAGES}/*.jpg, or {IMAGES}/train/*.jpg and {IMAGES}/val/*.jpg",
        image_labels=labels,
    )

"""Anybody's own photos: a folder of images, a list of classes, and image-level labels.

``classes.csv``    a line a class: ``class``, and if wanted ``words`` (what CLIP is asked for,
                   several apart by ``|``) and ``colour`` (``#rrggbb``); or ``classes.txt``, names
``labels.csv``     or ``.json``: which classes are in which photo, see `pipeline.label_tables`
``images/...``     photos to learn from, in any sub-folders; or ``images/train`` and
                   ``images/val``, photos to look at and to score
``masks/...``      human masks where there are any: the same paths, ``.png`` of class indices

Where there is no folder ``images``, the photos lie in the folder itself, in the same way.
"""

import colorsys
import os
import re
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from pipeline.label_spaces import LABEL_SPACES, ClassInfo, LabelSpace
from pipeline.places import check_place
from pipeline.scene import PHOTO_ENDINGS, Dataset, Scene, index_table, read_ids
from pipeline.spreadsheets import Row, read_rows
from pipeline.wording import shown

CLASSES, IMAGES, MASKS = ("classes.csv", "classes.txt"), "images", "masks"
LABELS = ("labels.csv", "labels.json", "image_labels.csv", "image_labels.json")
PAGE = "correct.html"  # marks a folder of proposed labels, whose pictures are no photos
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
        path: CSV with a header of ``class`` and, if wanted, ``words`` and ``colour``; or ``.txt``,
            a name a line.

    Raises:
        ValueError: the file has a mistake; names the line.
    """
    if path.suffix == ".txt":
        header, rows = ["class"], _lines(path)
    else:
        header, rows = _header(path, read_rows(path))
    infos: dict[str, ClassInfo] = {}
    for number, row in rows:
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        name, colour = cells["class"], cells.get("colour", "")
        if fault := _fault(row, header, name, colour, infos):
            raise ValueError(f"{path}: line {number} {fault}")
        words = tuple(word.strip() for word in cells.get("words", "").split("|") if word.strip())
        infos[name] = ClassInfo(name, _colour(colour, name, len(infos)), words or (name,))
    if not 2 <= len(infos) <= 255:
        raise ValueError(f"{path}: must list 2 to 255 classes, got {len(infos)}")
    return LabelSpace("folder", tuple(infos.values()))


def _lines(path: Path) -> list[Row]:
    """The lines of a text that hold anything."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as text ({error}); save it as UTF-8") from None
    return [(number, [line]) for number, line in enumerate(lines, start=1) if line.strip()]


def _header(path: Path, rows: list[Row]) -> tuple[list[str], list[Row]]:
    """The columns of a list of classes, and its other rows."""
    header = [column.strip().lower() for column in rows[0][1]] if rows else []
    if header[:1] != ["class"] or len(set(header)) < len(header) or set(header) - set(COLUMNS):
        raise ValueError(
            f"{path}: the header must be 'class' and, if wanted, 'words' and 'colour', got "
            f"{shown(', '.join(header)) if header else 'nothing'}; names alone, a line each, go "
            "into classes.txt"
        )
    return header, rows[1:]


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


def photos_below(
    folder: Path, leave: Collection[str] = (), endings: Sequence[str] = PHOTO_ENDINGS
) -> dict[str, Path]:
    """The photos in a folder and below it, by path without ending; hidden files are none.

    Args:
        folder: where to look.
        leave: folders in it that hold no photos.
        endings: of the files to find, in small letters.

    Raises:
        ValueError: two photos differ by nothing but their ending, or a folder is a link.
        OSError: a folder cannot be read.
    """
    found: dict[str, Path] = {}
    for path in sorted(_files_below(folder, leave)):
        if path.suffix.lower() not in endings:
            continue
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise ValueError(f"{path}: {found[key].name} has the same name; rename one")
        found[key] = path
    return found


def _files_below(folder: Path, leave: Collection[str]) -> Iterator[Path]:
    """All files that are not hidden, and in no hidden folder."""
    for place, folders, files in os.walk(folder, onerror=_raise) if folder.is_dir() else ():
        if PAGE in files:
            folders.clear()
            continue
        out = leave if Path(place) == folder else ()
        folders[:] = [name for name in folders if not name.startswith(".") and name not in out]
        for name in folders:
            if os.path.islink(os.path.join(place, name)):  # to pass over it would lose photos
                raise ValueError(
                    f"{os.path.join(place, name)}: is a link to a folder, which is not followed; "
                    "put the folder itself there"
                )
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def photo_folder(root: Path) -> Path:
    """Where the photos lie: in ``images`` if there is such a folder, else in ``root`` itself."""
    return root / IMAGES if (root / IMAGES).is_dir() else root


def _find_scenes(root: Path, split: str) -> list[Scene]:
    """The photos of a split by path; a photo without a mask file has none."""
    home = photo_folder(root)
    inner = split if _has_splits(home) else ""
    scenes = []
    for name, image in photos_below(home / inner, () if home != root or inner else [MASKS]).items():
        mask = root / MASKS / inner / f"{name}.png"
        scenes.append(Scene(image, mask if mask.exists() else None, split, f"{split}/{name}"))
    return scenes


def _has_splits(home: Path) -> bool:
    return (home / "train").is_dir()


def _the_one(root: Path, names: tuple[str, ...]) -> Path | None:
    """That of some files which is there.

    Raises:
        ValueError: there are two of them, or it is a link out of the folder.
    """
    found = [root / name for name in names if os.path.lexists(root / name)]
    if len(found) > 1:
        raise ValueError(f"{found[1]}: {found[0].name} is there, too; keep one of them")
    for path in found:
        check_place(path, root)
    return found[0] if found else None


def _check_splits(root: Path, home: Path) -> None:
    """Refuse photos that would be passed over.

    Raises:
        ValueError: some photos lie in no split, or beside ``images``.
    """
    if (home / "val").is_dir() and not _has_splits(home):
        raise ValueError(f"{home}: holds val and no train; put the other photos into train")
    if _has_photos(home) and _has_splits(home):
        raise ValueError(f"{home}: has photos beside train; put them into train or val")
    if home != root and _has_photos(root):
        raise ValueError(f"{root}: has photos beside {IMAGES}; put them into {home}")


def _has_photos(folder: Path) -> bool:
    """Whether there are photos in a folder itself."""
    beside = (path for path in folder.glob("[!.]*.*") if path.suffix.lower() in PHOTO_ENDINGS)
    return any(not path.is_dir() for path in beside)


def open_dataset(root: Path) -> Dataset:
    """The photos and classes in a folder.

    Raises:
        ValueError: the list of classes is missing or has a mistake, or some photos are of no split.
    """
    classes, labels = _the_one(root, CLASSES), _the_one(root, LABELS)
    if classes is None:
        raise ValueError(
            f"{root / CLASSES[0]}: no such file; write one with the header 'class' and a class on "
            f"each line, or {CLASSES[1]} with the names alone"
        )
    space = read_classes(classes)
    home = photo_folder(root)
    _check_splits(root, home)
    return Dataset(
        root=root,
        label_space=space,
        splits=("train", "val") if (home / "val").is_dir() else ("train",),
        find_scenes=partial(_find_scenes, root),
        read_mask=partial(read_ids, table=index_table(len(space.classes))),
        layout=f"{CLASSES[0]} and *.jpg, or {IMAGES}/*.jpg, or {IMAGES}/train/*.jpg and "
        f"{IMAGES}/val/*.jpg",
        image_labels=labels,
    )

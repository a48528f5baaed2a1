"""A user's own photos: a folder of images, a list of classes, and image-level labels.

``classes.csv``    one line per class: ``class``, optionally ``words`` (for CLIP's prompts,
                   separated by ``|``) and ``colour`` (``#rrggbb``); or ``classes.txt``, names
``labels.csv``     or ``.json``: which classes are in which photo, see `label_table`
``images/...``     photos to learn from, in any sub-folders; or ``images/train`` and
                   ``images/val``, photos to look at and to score
``masks/...``      human masks where there are any: the same paths, ``.png`` of class indices

Where there is no folder ``images``, the photos lie in the folder itself, in the same way. Names of
files and folders may be written in any capitals; splits may have the names of `image_names.SPLITS`.
"""

import colorsys
import logging
import re
from functools import partial
from pathlib import Path

from pipeline.datasets.base import Dataset, MaskReader, Scene, index_table, read_ids
from pipeline.datasets.folder_layout import (
    Layout,
    annotations,
    find_layout,
    folders_in,
    look_at_split,
    match_masks,
)
from pipeline.datasets.label_table import Row, read_rows
from pipeline.scenes.classes import LABEL_SPACES, ClassInfo, LabelSpace
from pipeline.scenes.image_folder import Below, is_ours, left_over, look_below, not_read
from pipeline.scenes.image_io import open_picture
from pipeline.system.text import first_few, short_repr

log = logging.getLogger("carb")
CLASSES = ("classes.csv", "classes.txt", "classes.tsv")
LABELS = ("labels.csv", "labels.json", "image_labels.csv", "image_labels.json", "labels.tsv")
CONFIDENCE = "label_confidence.csv"  # of proposed labels
# Beginnings and endings of files that may have been meant as one of these.
_MEANT = ("label", "class", "image_label", "tag", "annotation")
_TABLES = (".csv", ".tsv", ".txt", ".json", ".xlsx", ".xls", ".ods", ".npy", ".xml")
_OWN = {*CLASSES, *LABELS, CONFIDENCE}

COLUMNS = ("class", "words", "colour")
_KNOWN = {info.name: info.colour for info in LABEL_SPACES["cityscapes"].classes}


def _is_mask(path: Path, read_mask: MaskReader) -> bool:
    """Whether a picture holds one channel of the data set's class indices."""
    try:
        with open_picture(path, "mask") as picture:
            channels = len(picture.getbands())  # by its header: photos are not decoded
        if channels == 1:
            read_mask(path)
    except ValueError:
        return False
    return channels == 1


def _find_scenes(layout: Layout, read_mask: MaskReader, split: str) -> list[Scene]:
    """The photos of a split by path; a photo without a mask file has none."""
    found = look_at_split(layout, split)
    photos = found.photos
    if not photos:  # an error follows, and no other remarks
        found.others = [path for path in found.others if not _own(path)]
        for line in not_read(layout.photos[split], found):
            log.warning("%s", line)
    for key in annotations(photos, partial(_is_mask, read_mask=read_mask)):
        del photos[key]
    masks = match_masks(layout.masks_of(split), photos)
    return [
        Scene(image, masks.get(name), split, f"{split}/{name}") for name, image in photos.items()
    ]


def _remarks(layout: Layout, read_mask: MaskReader, scenes: list[Scene]) -> list[str]:
    """Lines that say what in the folder is not read, and what was guessed."""
    found, lines = Below(), []
    for split, folder in layout.photos.items():
        one = look_at_split(layout, split)
        found.others += one.others
        found.left_out += one.left_out
        found.again += one.again
        lines += _annotation_lines(layout, folder, one, read_mask)
    if layout.split or layout.home != layout.root:
        for folder in dict.fromkeys([layout.root, layout.home]):
            lines += _beside(layout, folder, found)
    found.others = [path for path in found.others if path.parent != layout.root or not _own(path)]
    near = {layout.root, layout.home, *layout.photos.values()}
    lines += [
        f"{path}: was not read; labels are read from {layout.root / LABELS[0]} (or .tsv, .json), "
        f"classes from {CLASSES[0]} or {CLASSES[1]}"
        for path in found.others
        if path.parent in near and _meant(path)
    ]
    return [*lines, *not_read(layout.root, found), *_mask_lines(layout, scenes)]


def _own(path: Path) -> bool:
    return path.name.casefold() in _OWN


def _meant(path: Path) -> bool:
    return path.name.casefold().startswith(_MEANT) and path.suffix.lower() in _TABLES


def _annotation_lines(
    layout: Layout, folder: Path, found: Below, read_mask: MaskReader
) -> list[str]:
    keys = annotations(found.photos, partial(_is_mask, read_mask=read_mask))
    if not keys:
        return []
    paths = [found.photos[key].relative_to(folder) for key in keys]
    below = layout.root / "masks"
    place = below / folder.name if layout.split else below
    return [
        f"{folder}: {len(keys)} pictures look like annotations of the photos and were not read: "
        f"{first_few(paths)}; if they are masks of class indices, put them into {place}"
    ]


def _beside(layout: Layout, folder: Path, found: Below) -> list[str]:
    """What lies directly in a folder beside that of the photos; adds to ``found``."""
    used = {layout.home, layout.masks, *layout.photos.values()}
    if layout.split or folder != layout.home:
        found.others += [
            path for path in folder.iterdir() if is_ours(path.name) and not path.is_dir()
        ]
    lines = []
    for other in folders_in(folder):
        if other in used or (folder == layout.home and not layout.split):
            continue
        inside = look_below(other)
        found.others += inside.others
        if inside.photos:
            places = ", ".join(path.name for path in layout.photos.values())
            lines.append(
                f"{other}: {len(inside.photos)} pictures in it were not read; photos are read from "
                f"{places if layout.split else layout.home}, masks from {layout.root / 'masks'}"
            )
    return lines


def _mask_lines(layout: Layout, scenes: list[Scene]) -> list[str]:
    """Which masks belong to no photo, and which were matched by less than the same name."""
    if layout.masks is None:
        return []
    used = {scene.mask for scene in scenes if scene.mask is not None}
    loose = [
        scene.mask
        for scene in scenes
        if scene.mask is not None and scene.mask.name != f"{Path(scene.key).name}.png"
    ]
    lines = []
    if loose:
        lines.append(
            f"{layout.masks}: {len(loose)} masks of other names were taken for the photos that "
            f"they resemble: {first_few([path.relative_to(layout.masks) for path in loose])}"
        )
    return [*lines, *left_over(layout.masks, used, "files of no photo, or no PNG")]


def _the_one(root: Path, names: tuple[str, ...]) -> Path | None:
    """That of some files which is there, in any capitals.

    Raises:
        ValueError: there are two of them.
    """
    found = sorted(
        (path for path in root.iterdir() if path.name.casefold() in names),
        key=lambda path: names.index(path.name.casefold()),
    )
    if len(found) > 1:
        raise ValueError(f"{found[1]}: {found[0].name} is there, too; keep one of them")
    return found[0] if found else None


def labels_in(root: Path) -> Path | None:
    """The file of image-level labels in a folder.

    Raises:
        ValueError: there are two.
    """
    return _the_one(root, LABELS)


def open_dataset(root: Path) -> Dataset:
    """The photos and classes in a folder.

    Raises:
        ValueError: the list of classes is missing or has a mistake, or some photos are of no split.
    """
    classes, labels = _the_one(root, CLASSES), labels_in(root)
    if classes is None:
        near = [path.name for path in sorted(root.iterdir()) if _meant(path)]
        raise ValueError(
            f"{root / CLASSES[0]}: no such file; write one with the header 'class' and a class on "
            f"each line, or {CLASSES[1]} with the names alone"
            + (f"; there is {first_few(near)}" if near else "")
        )
    space, layout = read_classes(classes), find_layout(root)
    read_mask = partial(read_ids, table=index_table(len(space.classes)))
    return Dataset(
        root=root,
        label_space=space,
        splits=tuple(layout.photos),
        find_scenes=partial(_find_scenes, layout, read_mask),
        read_mask=read_mask,
        layout=f"{CLASSES[0]} and *.jpg, or images/*.jpg, or images/train/*.jpg and "
        "images/val/*.jpg",
        image_labels=labels,
        tables=(classes,),
        remarks=partial(_remarks, layout, read_mask),
    )


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
    if path.suffix.lower() == ".txt":
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
            f"{short_repr(', '.join(header)) if header else 'nothing'}; names alone, a line each, "
            "go "
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
        return f"must name a class, got {short_repr(name)}"
    if name in before:
        return f"names {short_repr(name)} again; keep one of the lines"
    if colour and not re.fullmatch("#[0-9a-fA-F]{6}", colour):
        return f"must have a colour such as #804080, got {short_repr(colour)}"
    return ""

"""A user's own photos: a folder of images, a list of classes, and image-level labels.

``classes.csv``    one line per class: ``class``, optionally ``words`` (for CLIP's prompts,
                   separated by ``|``) and ``colour`` (``#rrggbb``); or ``classes.txt``, names only
``labels.csv``     or ``.json``: the classes in each photo, see `image_label_files`
``images/...``     training photos in any subfolders; or ``images/train`` and ``images/val``, with
                   validation photos
``masks/...``      human masks, if any: the same paths, ``.png`` of class indices

Without a folder ``images``, the photos lie in the folder itself, in the same way. The case of names
does not matter; splits may have the names in `image_folder.SPLITS`.
"""

import logging
import re
from functools import partial
from pathlib import Path

from pipeline.datasets.base import Dataset, MaskReader, Scene, id_table, read_ids
from pipeline.datasets.folder_layout import (
    MASKS,
    Layout,
    find_annotations,
    find_layout,
    folders_in,
    match_masks,
)
from pipeline.datasets.image_label_files import Row, read_rows
from pipeline.scenes.classes import ClassInfo, LabelSpace
from pipeline.scenes.colours import Colour, class_colours
from pipeline.scenes.image_folder import (
    FolderContents,
    is_user_file,
    left_over,
    not_read,
    scan_folder,
)
from pipeline.scenes.image_io import open_image
from pipeline.system.text import first_few, short_repr

log = logging.getLogger("carb")
CLASSES = ("classes.csv", "classes.txt", "classes.tsv")
LABELS = ("labels.csv", "labels.json", "image_labels.csv", "image_labels.json", "labels.tsv")
CONFIDENCE = "label_confidence.csv"  # of proposed labels
_READ = {*CLASSES, *LABELS, CONFIDENCE}
# Beginnings and endings of files that may be meant as one of these.
_MEANT = ("label", "class", "image_label", "tag", "annotation")
_TABLES = (".csv", ".tsv", ".txt", ".json", ".xlsx", ".xls", ".ods", ".npy", ".xml")
LAYOUT = "*.jpg, or images/*.jpg, or images/train/*.jpg and images/val/*.jpg"
COLUMNS = ("class", "words", "colour")


def open_dataset(root: Path) -> Dataset:
    """The photos and classes in a folder.

    Raises:
        ValueError: the list of classes is missing or invalid, or some photos belong to no split.
    """
    classes, labels = find_classes(root), find_labels(root)
    if classes is None:
        near = [path.name for path in sorted(root.iterdir()) if _is_meant(path)]
        found = f"; found {first_few(near)}" if near else ""
        raise ValueError(
            f"{root / CLASSES[0]}: no such file; write one with the header 'class' and one class "
            f"per line, or {CLASSES[1]} with names only{found}"
        )
    space, layout = read_classes(classes), find_layout(root)
    read_mask = partial(read_ids, table=id_table(range(len(space.classes))))
    return Dataset(
        root=root,
        label_space=space,
        splits=tuple(layout.photos),
        find_scenes=partial(_find_scenes, layout, read_mask),
        read_mask=read_mask,
        layout=f"{CLASSES[0]} and {LAYOUT}",
        image_labels=labels,
        tables=(classes,),
        remarks=partial(_remarks, layout, read_mask),
    )


def find_scenes(root: Path) -> list[Scene]:
    """The photos of a folder before its classes are listed: masks may contain any index.

    Raises:
        ValueError: there are none, or some belong to no split.
    """
    layout, read_mask = find_layout(root), partial(read_ids, table=id_table(range(255)))
    scenes = [one for split in layout.photos for one in _find_scenes(layout, read_mask, split)]
    if not scenes:
        raise ValueError(f"{root}: no photos found; it needs {LAYOUT}")
    return scenes


def find_classes(root: Path) -> Path | None:
    """The list of classes in a folder.

    Raises:
        ValueError: there are two.
    """
    return _find_table(root, CLASSES)


def find_labels(root: Path) -> Path | None:
    """The file of image-level labels in a folder.

    Raises:
        ValueError: there are two.
    """
    return _find_table(root, LABELS)


def _find_table(root: Path, names: tuple[str, ...]) -> Path | None:
    """The file with one of these names, in any case.

    Raises:
        ValueError: there are two.
    """
    found = [path for path in root.iterdir() if path.name.casefold() in names]
    found.sort(key=lambda path: names.index(path.name.casefold()))
    if len(found) > 1:
        raise ValueError(f"{found[1]}: {found[0].name} has the same purpose; keep one of the two")
    return found[0] if found else None


def _is_meant(path: Path) -> bool:
    """Whether a file may be meant as a table of labels or classes."""
    return path.name.casefold().startswith(_MEANT) and path.suffix.lower() in _TABLES


def _is_mask(path: Path, read_mask: MaskReader) -> bool:
    """Whether an image has one channel of the data set's class indices."""
    try:
        with open_image(path, "mask") as image:
            channels = len(image.getbands())  # from the header: photos are not decoded
        if channels == 1:
            read_mask(path)
    except ValueError:
        return False
    return channels == 1


def _find_scenes(layout: Layout, read_mask: MaskReader, split: str) -> list[Scene]:
    """The photos of a split by path; a photo without a mask file has no mask."""
    found = layout.contents(split)
    photos = found.photos
    if not photos:  # an error follows, without the other remarks
        found.others = [path for path in found.others if path.name.casefold() not in _READ]
        for line in not_read(layout.photos[split], found):
            log.warning("%s", line)
    for key in find_annotations(photos, partial(_is_mask, read_mask=read_mask)):
        del photos[key]
    masks = match_masks(layout.masks_of(split), photos)
    return [
        Scene(image, masks.get(name), split, f"{split}/{name}") for name, image in photos.items()
    ]


def _remarks(layout: Layout, read_mask: MaskReader, scenes: list[Scene]) -> list[str]:
    """Lines that report what in the folder is not read, and what was guessed."""
    root, found, lines = layout.root, FolderContents(), []
    for split, folder in layout.photos.items():
        one = layout.contents(split)
        found.others += one.others
        found.left_out += one.left_out
        found.again += one.again
        keys = find_annotations(one.photos, partial(_is_mask, read_mask=read_mask))
        if keys:
            names = first_few([one.photos[key].relative_to(folder) for key in keys])
            place = root / MASKS / folder.name if layout.split else root / MASKS
            lines.append(
                f"{folder}: {len(keys)} images look like annotations of the photos and were not "
                f"read: {names}; if they are masks of class indices, move them into {place}"
            )
    if layout.split or layout.home != root:
        for folder in dict.fromkeys([root, layout.home]):
            lines += _unread_beside(layout, folder, found)
    found.others = [
        path for path in found.others if path.parent != root or path.name.casefold() not in _READ
    ]
    near = {root, layout.home, *layout.photos.values()}
    lines += [
        f"{path}: was not read; labels are read from {root / LABELS[0]} (or .tsv, .json), "
        f"classes from {CLASSES[0]} or {CLASSES[1]}"
        for path in found.others
        if path.parent in near and _is_meant(path)
    ]
    return [*lines, *not_read(root, found), *_mask_lines(layout, scenes)]


def _unread_beside(layout: Layout, folder: Path, found: FolderContents) -> list[str]:
    """A line for each folder of images beside those of the photos; adds files to ``found``."""
    if folder == layout.home and not layout.split:
        return []
    found.others += [
        path for path in folder.iterdir() if is_user_file(path.name) and not path.is_dir()
    ]
    splits = ", ".join(path.name for path in layout.photos.values())
    source = splits if layout.split else str(layout.home)
    used, lines = {layout.home, layout.masks, *layout.photos.values()}, []
    for other in folders_in(folder):
        if other not in used:
            inside = scan_folder(other)
            found.others += inside.others
            if inside.photos:
                lines.append(
                    f"{other}: {len(inside.photos)} images in it were not read; photos are read "
                    f"from {source}, masks from {layout.root / MASKS}"
                )
    return lines


def _mask_lines(layout: Layout, scenes: list[Scene]) -> list[str]:
    """Lines that report masks without a photo, and masks whose name was matched loosely."""
    if layout.masks is None:
        return []
    used = {scene.mask: Path(scene.key).name for scene in scenes if scene.mask is not None}
    loose = [mask.relative_to(layout.masks) for mask in used if mask.name != f"{used[mask]}.png"]
    lines = []
    if loose:
        lines.append(
            f"{layout.masks}: {len(loose)} masks were matched to photos with similar names: "
            f"{first_few(loose)}"
        )
    return [*lines, *left_over(layout.masks, used, "files of no photo, or no PNG")]


def read_classes(path: Path) -> LabelSpace:
    """Read a list of classes; their order is that of the indices in masks.

    Args:
        path: CSV with the columns ``class`` and optionally ``words`` and ``colour``; or ``.txt``,
            one name per line.

    Raises:
        ValueError: the file is invalid; names the line.
    """
    if path.suffix.lower() == ".txt":
        header, rows = ["class"], _text_lines(path)
    else:
        header, rows = _header_and_rows(path)
    listed: dict[str, tuple[str, ...]] = {}  # the words of each class
    colours: list[Colour | None] = []
    for number, row in rows:
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        name, colour = cells["class"], cells.get("colour", "")
        fault = ""
        if len(row) > len(header):
            fault = f"has {len(row)} columns, the header {len(header)}; put '|' between words"
        elif not name or name == "key":  # the first column of a CSV of labels
            fault = f"must name a class, got {short_repr(name)}"
        elif name in listed:
            fault = f"names {short_repr(name)} again; keep one of the lines"
        elif colour and not re.fullmatch("#[0-9a-fA-F]{6}", colour):
            fault = f"must have a colour such as #804080, got {short_repr(colour)}"
        if fault:
            raise ValueError(f"{path}: line {number} {fault}")
        words = tuple(word.strip() for word in cells.get("words", "").split("|") if word.strip())
        listed[name] = words or (name,)
        colours.append(_colour(colour))
    if not 2 <= len(listed) <= 255:
        raise ValueError(f"{path}: must list 2 to 255 classes, got {len(listed)}")
    palette = class_colours(list(listed), list(listed.values()), colours)
    infos = zip(listed, palette, listed.values(), strict=True)
    return LabelSpace("folder", tuple(ClassInfo(*info) for info in infos))


def _colour(text: str) -> Colour | None:
    """A colour as written, ``#rrggbb``; None for an empty cell."""
    if not text:
        return None
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def _text_lines(path: Path) -> list[Row]:
    """The non-empty lines of a text file."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as text ({error}); save it as UTF-8") from None
    return [(number, [line]) for number, line in enumerate(lines, start=1) if line.strip()]


def _header_and_rows(path: Path) -> tuple[list[str], list[Row]]:
    """The columns of a list of classes, and its other rows."""
    rows = read_rows(path)
    header = [column.strip().lower() for column in rows[0][1]] if rows else []
    if header[:1] != ["class"] or len(set(header)) < len(header) or set(header) - set(COLUMNS):
        found = short_repr(", ".join(header)) if header else "nothing"
        raise ValueError(
            f"{path}: the header must be 'class' and optionally 'words' and 'colour', got {found}; "
            "a list of names only belongs in classes.txt"
        )
    return header, rows[1:]

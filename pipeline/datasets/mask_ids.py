"""Human masks of a folder of photos: their files, and which numbering their ids follow.

Ids may be positions in the segmenter's list of classes, Cityscapes' trainIds or its labelIds; read
in the wrong numbering they give plausible but wrong metrics.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from pipeline.datasets import camvid, cityscapes, wilddash2
from pipeline.datasets.base import MaskReader, Scene, index_table, read_ids
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.scenes.image_io import open_picture
from pipeline.system.progress import prefetch_in_threads

log = logging.getLogger("carb")
AUTO, INDEX, TRAIN, LABEL = "auto", "class-index", "train-ids", "label-ids"
WORDS = {INDEX: "class indices", TRAIN: "Cityscapes' trainIds", LABEL: "labelIds"}
# How data sets name photos and their masks, and what the mask then holds where the name says it.
# Cityscapes, ACDC, CamVid, BDD100K.
PHOTO_ENDS = ("_leftImg8bit", "_rgb_anon")
MASK_ENDS = {
    "_gtFine_labelIds": LABEL,
    "_gtFine_labelTrainIds": TRAIN,
    "_gt_labelIds": LABEL,
    "_gt_labelTrainIds": TRAIN,
    "_labelIds": LABEL,
    "_labelTrainIds": TRAIN,
    "_train_id": TRAIN,
    "_L": "",
}
AS_LABELS = ("cityscapes", "wilddash2")  # data sets whose masks are shipped with labelIds
_ANY = np.arange(256, dtype=np.int16)  # for `read_ids`: each id is itself


def find_masks(photos: Mapping[str, Path], masks: Path, ids: str) -> dict[str, Path]:
    """The mask of each photo: a PNG of the same name, or named as its data set does.

    Args:
        photos: the photos by their paths below their folder, without ending.
        masks: folder of masks, laid out as the photos.
        ids: what the masks hold, or ``auto``: of two kinds side by side the one to take.

    Raises:
        ValueError: some photos have no mask; names one.
    """
    ends = ["", *sorted(MASK_ENDS, key=lambda end: MASK_ENDS[end] != ids)]
    best: dict[str, Path] = {}
    for end, short in product(ends, (False, True)):
        named = {key: masks / f"{_base(key) if short else key}{end}.png" for key in photos}
        found = {
            key: path
            for key, path in named.items()
            if path.is_file() and not path.samefile(photos[key])
        }
        if len(found) == len(photos):
            return found
        best = max(best, found, key=len)
    missing = [key for key in photos if key not in best]
    others = f" and {len(missing) - 1} other photos" if len(missing) > 1 else ""
    raise ValueError(
        f"--masks {masks}: has no {missing[0]}.png for {photos[missing[0]].name}{others}; add it, "
        "or name the masks as the photos or as Cityscapes, ACDC, CamVid or BDD100K do"
    )


def _base(key: str) -> str:
    """A photo's name without the suffix that its data set adds."""
    return next((key.removesuffix(end) for end in PHOTO_ENDS if key.endswith(end)), key)


@dataclass(frozen=True)
class PredictedClasses:
    """What a segmenter predicts, as far as its masks depend on it.

    Attributes:
        names: class names, by index.
        palettes: the palettes that predictions are written in, each ``[C, 3]`` uint8 RGB.
        dataset: the data set that it was trained on, or None.
    """

    names: Sequence[str]
    palettes: Sequence[np.ndarray]
    dataset: str | None


def id_tables(predicted: PredictedClasses) -> dict[str, np.ndarray]:
    """For `read_ids`: a table for each numbering that masks of these classes may have."""
    classes, dataset = predicted.names, predicted.dataset
    tables = {INDEX: index_table(len(classes))}
    if dataset == "camvid":
        tables[INDEX] = camvid.id_table()
    if dataset == "wilddash2" and list(classes) == wilddash2.LABEL_SPACE.names:
        tables[LABEL] = _table(wilddash2.CATEGORY_IDS, max(wilddash2.CATEGORY_IDS) + 1)
    elif set(classes) <= set(cityscapes.LABEL_SPACE.names):
        places = [cityscapes.LABEL_SPACE.names.index(name) for name in classes]
        tables[TRAIN] = _table(places, len(cityscapes.LABEL_IDS))
        labels = [cityscapes.LABEL_IDS[place] for place in places]
        tables[LABEL] = _table(labels, cityscapes.NUM_IDS)
    return tables


def _table(ids: Sequence[int], count: int) -> np.ndarray:
    """Ids below ``count`` -> class indices; those of no class are ignored."""
    table = np.full(256, -1, dtype=np.int16)
    table[:count] = table[IGNORE_INDEX] = IGNORE_INDEX
    table[list(ids)] = np.arange(len(ids))
    return table


def mask_reader(
    predicted: PredictedClasses, scenes: Sequence[Scene], masks: Path, *, ids: str
) -> MaskReader:
    """How to read the masks; logs what was decided.

    Args:
        predicted: the classes of the segmenter that is scored.
        scenes: the photos with their masks.
        masks: the folder of the masks.
        ids: what they hold, or ``auto``: as their names, colours and ids say.

    Raises:
        ValueError: masks of such ids do not exist for these classes, or it cannot be told which
            ids they are.
    """
    if ids == AUTO and _in_colour(scenes[0]):
        dataset = predicted.dataset
        if dataset == "camvid":
            log.info("--masks %s: read by CamVid's colours", masks)
            return camvid.read_colours
        if dataset == "wilddash2":
            beside = masks if (masks / "panoptic.json").is_file() else masks.parent
            log.info("--masks %s: read by %s", masks, beside / "panoptic.json")
            return wilddash2.PanopticMasks(beside).read
    tables = id_tables(predicted)
    kind, why = (ids, "as --mask-ids says") if ids != AUTO else _told(predicted, scenes, masks)
    if kind not in tables:
        raise ValueError(
            f"--masks {masks}: {WORDS[kind]} ({kind}) do not exist for the segmenter's classes; "
            f"give masks of class indices (--mask-ids {INDEX})"
        )
    log.info("--masks %s: read as %s, %s", masks, WORDS[kind], why)
    return partial(read_ids, table=tables[kind])


def _in_colour(scene: Scene) -> bool:
    assert scene.mask is not None
    with open_picture(scene.mask, "mask") as picture:
        return picture.mode in ("RGB", "RGBA")


def _told(predicted: PredictedClasses, scenes: Sequence[Scene], masks: Path) -> tuple[str, str]:
    """The kind of ids and why, by names, then colours, then the ids of all masks together.

    Raises:
        ValueError: they may be of two kinds.
    """
    named = {_by_name(scene) for scene in scenes}
    if len(named) == 1 and "" not in named:
        return named.pop(), "as their names say"
    tables = id_tables(predicted)
    if len(tables) == 1:
        return INDEX, "the only ids that its classes have"
    seen, painted = _look_through(predicted, scenes)
    if painted:
        return INDEX, "as they have the segmenter's colours"
    fits = [kind for kind, table in tables.items() if (table[seen] >= 0).all()]
    if predicted.dataset in AS_LABELS:
        usual, kinds = LABEL, _kinds_among(seen, fits, len(predicted.names))
        if len(kinds) == 1:
            return kinds[0], f"their ids are {_ranges(seen)}"
    else:
        usual, kinds = INDEX, [] if INDEX in fits else [kind for kind in fits if kind != INDEX]
    if not kinds:  # what no kind has, reading will name with the file
        return usual, f"their ids are {_ranges(seen)}"
    no_index = "" if INDEX in kinds else " are no class indices of the segmenter, but"
    raise ValueError(
        f"--masks {masks}: the ids {_ranges(seen)}{no_index} may be "
        f"{' or '.join(WORDS[kind] for kind in kinds)}; say which by "
        f"{' or '.join(f'--mask-ids {kind}' for kind in kinds)}"
    )


def _kinds_among(seen: np.ndarray, fits: list[str], num_classes: int) -> list[str]:
    """What ids may be where masks are shipped with labelIds; one kind if they leave no doubt."""
    known = seen[seen != IGNORE_INDEX]
    top, ignored = known.max(initial=0), IGNORE_INDEX in seen
    if INDEX in fits and ignored and top > 0:
        return [INDEX]  # no file as shipped holds 255
    # A single id too many may stand for "ignored" among class indices.
    if fits == [LABEL] and not ignored and top > num_classes:
        return [LABEL]
    return [INDEX, LABEL] if fits else []


def _by_name(scene: Scene) -> str:
    """What a mask's name says of its ids, or nothing."""
    assert scene.mask is not None
    if scene.mask.stem == scene.image.stem:
        return ""
    return next((kind for end, kind in MASK_ENDS.items() if scene.mask.stem.endswith(end)), "")


def _look_through(predicted: PredictedClasses, scenes: Sequence[Scene]) -> tuple[np.ndarray, bool]:
    """The ids in all masks, and whether each mask has the colours of `predict` or `eval`."""
    seen, painted = np.zeros(256, dtype=bool), True
    for ids, colours in prefetch_in_threads(scenes, _ids_and_colours):
        seen[ids] = True
        known = ids[ids < len(predicted.names)]
        painted &= len(known) == len(ids[ids != IGNORE_INDEX]) and any(
            len(colours) > known.max(initial=-1) and np.array_equal(colours[known], own[known])
            for own in predicted.palettes
        )
    return np.flatnonzero(seen), painted and bool(seen[:IGNORE_INDEX].any())


def _ids_and_colours(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The ids in a mask, and the colours that a palette gives them, ``[N, 3]``; N may be 0."""
    assert scene.mask is not None
    with open_picture(scene.mask, "mask") as picture:
        colours = picture.getpalette("RGB") or [] if picture.mode == "P" else []
    ids = np.flatnonzero(np.bincount(read_ids(scene.mask, _ANY).ravel(), minlength=256))
    return ids, np.array(colours, dtype=np.uint8).reshape(-1, 3)


def _ranges(ids: np.ndarray) -> str:
    """Ids in short: ``0-5, 8, 255``."""
    return ", ".join(_runs(ids.tolist()))


def _runs(ids: Sequence[int]) -> Iterator[str]:
    first = last = None
    for one in [*ids, None]:
        if first is not None and last is not None and one != last + 1:
            yield f"{first}-{last}" if last > first else f"{first}"
            first = None
        first, last = one if first is None else first, one

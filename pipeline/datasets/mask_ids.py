"""Masks for `eval --images`: their files, and whether ids are class indices, trainIds or labelIds.

Ids read in the wrong numbering give plausible but wrong metrics, so ambiguous ids are refused.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, product
from pathlib import Path

import numpy as np

from pipeline.datasets import camvid, cityscapes, wilddash2
from pipeline.datasets.base import MaskReader, Scene, id_table, read_ids
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.scenes.image_io import open_image
from pipeline.system.progress import prefetch_in_threads

log = logging.getLogger("carb")
AUTO, INDEX, TRAIN, LABEL = "auto", "class-index", "train-ids", "label-ids"
WORDS = {INDEX: "class indices", TRAIN: "Cityscapes' trainIds", LABEL: "labelIds"}
# Suffixes of photos and masks in Cityscapes, ACDC, CamVid and BDD100K, and the ids they imply.
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
AS_LABELS = ("cityscapes", "wilddash2")  # data sets whose published masks contain labelIds
_ANY = np.arange(256, dtype=np.int16)  # table for `read_ids`: ids unchanged


def find_masks(photos: Mapping[str, Path], masks: Path, ids: str) -> dict[str, Path]:
    """The mask of each photo: a PNG of the same name, or named as its data set does.

    Args:
        photos: photos by their path below their folder, without ending.
        masks: folder of masks, in the same layout.
        ids: a kind of ids or ``auto``; of two kinds side by side, this one is taken.

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
    """A photo's name without its data set's suffix."""
    return next((key.removesuffix(end) for end in PHOTO_ENDS if key.endswith(end)), key)


@dataclass(frozen=True)
class PredictedClasses:
    """The classes of a segmenter that is scored.

    Attributes:
        names: class names, by index.
        palettes: palettes of written predictions, each ``[C, 3]`` uint8 RGB.
        dataset: the data set it was trained on, or None.
    """

    names: Sequence[str]
    palettes: Sequence[np.ndarray]
    dataset: str | None


def id_tables(predicted: PredictedClasses) -> dict[str, np.ndarray]:
    """Tables for `read_ids`, by the kinds of ids that masks of these classes may have."""
    classes, dataset = predicted.names, predicted.dataset
    tables = {INDEX: id_table(range(len(classes)))}
    if dataset == "camvid":
        tables[INDEX] = camvid.ID_TABLE
    if dataset == "wilddash2" and list(classes) == wilddash2.LABEL_SPACE.names:
        tables[LABEL] = id_table(wilddash2.CATEGORY_IDS, max(wilddash2.CATEGORY_IDS) + 1)
    elif set(classes) <= set(cityscapes.LABEL_SPACE.names):
        places = [cityscapes.LABEL_SPACE.names.index(name) for name in classes]
        tables[TRAIN] = id_table(places, len(cityscapes.LABEL_IDS))
        labels = [cityscapes.LABEL_IDS[place] for place in places]
        tables[LABEL] = id_table(labels, cityscapes.NUM_IDS)
    return tables


def mask_reader(
    predicted: PredictedClasses, scenes: Sequence[Scene], masks: Path, *, ids: str
) -> MaskReader:
    """Choose how to read the masks, and log the choice.

    Args:
        predicted: the classes of the segmenter that is scored.
        scenes: the photos with their masks.
        masks: folder of the masks.
        ids: a kind of ids, or ``auto``: decided by the masks' names, colours and ids.

    Raises:
        ValueError: these classes have no such ids, or the ids are ambiguous.
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
    kind, why = (ids, "as --mask-ids says") if ids != AUTO else _detect(predicted, scenes, masks)
    if kind not in tables:
        raise ValueError(
            f"--masks {masks}: the segmenter's classes have no {WORDS[kind]} ({kind}); use "
            f"masks of class indices (--mask-ids {INDEX})"
        )
    log.info("--masks %s: read as %s, %s", masks, WORDS[kind], why)
    return partial(read_ids, table=tables[kind])


def _in_colour(scene: Scene) -> bool:
    assert scene.mask is not None
    with open_image(scene.mask, "mask") as image:
        return image.mode in ("RGB", "RGBA")


def _detect(predicted: PredictedClasses, scenes: Sequence[Scene], masks: Path) -> tuple[str, str]:
    """The kind of ids and the reason, by names, then colours, then the ids of all masks together.

    Raises:
        ValueError: two kinds are possible.
    """
    named = {_by_name(scene) for scene in scenes}
    if len(named) == 1 and "" not in named:
        return named.pop(), "as their names say"
    tables = id_tables(predicted)
    if len(tables) == 1:
        return INDEX, "the only ids that its classes have"
    seen, painted = _scan_masks(predicted, scenes)
    if painted:
        return INDEX, "as they have the segmenter's colours"
    fits = [kind for kind, table in tables.items() if (table[seen] >= 0).all()]
    if predicted.dataset in AS_LABELS:
        usual, kinds = LABEL, _possible_kinds(seen, fits, len(predicted.names))
        if len(kinds) == 1:
            return kinds[0], f"their ids are {_ranges(seen)}"
    else:
        usual, kinds = INDEX, [] if INDEX in fits else fits
    if not kinds:  # ids of no kind: reading the file will report them
        return usual, f"their ids are {_ranges(seen)}"
    no_index = "" if INDEX in kinds else " are not class indices of the segmenter, but"
    raise ValueError(
        f"--masks {masks}: the ids {_ranges(seen)}{no_index} may be "
        f"{' or '.join(WORDS[kind] for kind in kinds)}; say which by "
        f"{' or '.join(f'--mask-ids {kind}' for kind in kinds)}"
    )


def _possible_kinds(seen: np.ndarray, fits: list[str], num_classes: int) -> list[str]:
    """Kinds that ids may be where published masks contain labelIds; one if there is no doubt."""
    known = seen[seen != IGNORE_INDEX]
    top, ignored = known.max(initial=0), IGNORE_INDEX in seen
    if INDEX in fits and ignored and top > 0:
        return [INDEX]  # no published file contains 255
    # The id behind the last class may mean "ignored"; no class index is larger.
    if fits == [LABEL] and not ignored and top > num_classes:
        return [LABEL]
    return [INDEX, LABEL] if fits else []


def _by_name(scene: Scene) -> str:
    """The kind of ids that a mask's name implies, or an empty text."""
    assert scene.mask is not None
    if scene.mask.stem == scene.image.stem:
        return ""
    return next((kind for end, kind in MASK_ENDS.items() if scene.mask.stem.endswith(end)), "")


def _scan_masks(predicted: PredictedClasses, scenes: Sequence[Scene]) -> tuple[np.ndarray, bool]:
    """The ids in all masks, and whether each mask has a palette of `predict` or `eval`."""
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
    """The ids in a mask, and its palette ``[N, 3]``; N may be 0."""
    assert scene.mask is not None
    with open_image(scene.mask, "mask") as image:
        colours = image.getpalette("RGB") or [] if image.mode == "P" else []
    ids = np.flatnonzero(np.bincount(read_ids(scene.mask, _ANY).ravel(), minlength=256))
    return ids, np.array(colours, dtype=np.uint8).reshape(-1, 3)


def _ranges(ids: np.ndarray) -> str:
    """Ids in short: ``0-5, 8, 255``."""
    groups = groupby(enumerate(ids.tolist()), key=lambda item: item[1] - item[0])
    runs = [[number for _, number in group] for _, group in groups]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)

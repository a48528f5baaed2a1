"""WildDash2 as downloaded (wd_public_02): 25 classes, masks in COCO's panoptic format.

``images/*.jpg``, ``panoptic/*.png`` and ``panoptic.json``. CARB's authors have not published their
split. Ours depends on the name alone: the 15 % of photos with the lowest SHA-256 are ``val``.
"""

import hashlib
import json
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from pipeline.datasets.base import Dataset, Scene
from pipeline.scenes.classes import IGNORE_INDEX, LABEL_SPACES
from pipeline.scenes.image_folder import left_over
from pipeline.scenes.image_io import is_safe_filename, open_image
from pipeline.system.text import error_text, short_repr

SPLITS = ("train", "val")
LABEL_SPACE = LABEL_SPACES["wilddash2"]
VAL_SHARE = 0.15
# Category id of each class: wilddash.cc, categories of wd_public_02.
CATEGORY_IDS = (1, 7, 8, *range(11, 15), 17, *range(19, 29), *range(32, 39))


def split_of(name: str) -> str:
    """The split of a photo, given its file name without ending."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
    return "val" if place < VAL_SHARE else "train"


class PanopticMasks:
    """Human masks: images of segment ids, whose categories are in ``root / "panoptic.json"``."""

    def __init__(self, root: Path) -> None:
        self.index = root / "panoptic.json"

    @cached_property
    def categories(self) -> dict[str, dict[int, int]]:
        """Category of each segment id, for each image of ``panoptic/``.

        Raises:
            ValueError: the file is missing or invalid, or names files elsewhere.
        """
        try:
            content = json.loads(self.index.read_text("utf-8"))
            found = {
                str(entry["file_name"]): {
                    int(segment["id"]): int(segment["category_id"])
                    for segment in entry["segments_info"]
                }
                for entry in content["annotations"]
            }
        except FileNotFoundError:
            raise ValueError(f"{self.index}: no such file; unpack wd_public_02.zip here") from None
        # A hostile file may have infinite numbers, 10 000 digits or endless brackets.
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"{self.index}: not readable as COCO panoptic annotations "
                f"({type(error).__name__}: {error_text(error)}); unpack wd_public_02.zip again"
            ) from None
        for name in found:
            if not is_safe_filename(name) or not name.endswith(".png"):
                raise ValueError(
                    f"{self.index}: file_name must be the name of a .png in panoptic/, got "
                    f"{short_repr(name)}; unpack wd_public_02.zip again"
                )
        return found

    def read(self, path: Path) -> np.ndarray:
        """Read a mask as class indices, ``[H, W]`` uint8.

        Raises:
            ValueError: the image or the JSON is unreadable, or they do not match.
        """
        if path.name not in self.categories:
            raise ValueError(f"{self.index}: has no entry for {path.name}; unpack both again")
        table = {0: IGNORE_INDEX} | {
            segment: CATEGORY_IDS.index(category) if category in CATEGORY_IDS else IGNORE_INDEX
            for segment, category in self.categories[path.name].items()
        }
        ids, places = np.unique(_segment_ids(path), return_inverse=True)
        unknown = [number for number in ids.tolist() if number not in table]
        if unknown:
            raise ValueError(
                f"{path}: contains segment {unknown[0]}, which is not in {self.index.name}; "
                "unpack both again"
            )
        classes = np.array([table[number] for number in ids.tolist()], dtype=np.uint8)
        mask: np.ndarray = classes[places]
        return mask


def _segment_ids(path: Path) -> np.ndarray:
    """Ids in COCO's panoptic format, R + 256 G + 65536 B, ``[H, W]`` int64."""
    with open_image(path, "mask") as image:
        colours = np.asarray(image)
    if colours.ndim != 3 or colours.shape[2] < 3 or colours.dtype != np.uint8:
        raise ValueError(
            f"{path}: a panoptic mask must be 8-bit RGB, found {colours.dtype} of shape "
            f"{colours.shape}; use the files in panoptic/"
        )
    ids: np.ndarray = colours[..., :3].astype(np.int64) @ np.array([1, 256, 65536])
    return ids


def _find_scenes(root: Path, split: str) -> list[Scene]:
    """The photos that the JSON names, in order of their names.

    Raises:
        ValueError: the JSON, or a file that it names, is missing.
    """
    masks = PanopticMasks(root)
    scenes = []
    for name in sorted(Path(mask).stem for mask in masks.categories):
        if split_of(name) != split:
            continue
        image, mask = root / "images" / f"{name}.jpg", root / "panoptic" / f"{name}.png"
        for path in (image, mask):
            if not path.is_file():
                raise ValueError(f"{masks.index}: names {path.relative_to(root)}, which is missing")
        scenes.append(Scene(image, mask, split, f"{split}/{name}"))
    return scenes


def _remarks(root: Path, scenes: list[Scene]) -> list[str]:
    """Lines that name the photos and masks that are not read."""
    used = {path for scene in scenes for path in (scene.image, scene.mask) if path is not None}
    why = "files that panoptic.json does not name"
    return [line for name in ("images", "panoptic") for line in left_over(root / name, used, why)]


def open_dataset(root: Path) -> Dataset:
    """The data set in a folder."""
    return Dataset(
        root=root,
        label_space=LABEL_SPACE,
        splits=SPLITS,
        find_scenes=partial(_find_scenes, root),
        read_mask=PanopticMasks(root).read,
        tables=(root / "panoptic.json",),
        remarks=partial(_remarks, root),
        layout="images/*.jpg, panoptic/*.png and panoptic.json",
    )

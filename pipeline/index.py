"""The index of a data set: which photos, where, how large, of which bytes. It knows no human
mask."""

import json
import logging
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt

from pipeline.file_faults import Faults
from pipeline.files import atomic_path, file_digest
from pipeline.label_spaces import ClassInfo, LabelSpace
from pipeline.photo_files import named
from pipeline.pictures import holds_several
from pipeline.places import written_path
from pipeline.runtime import progress
from pipeline.scene import Dataset, Scene, read_image
from pipeline.wording import one_line

log = logging.getLogger("carb")
USED = ("train", "val")  # splits
ANIMATED = (".avif", ".gif", ".tif", ".tiff", ".webp")  # endings of files of several pictures


@dataclass(frozen=True)
class IndexedPhoto:
    """One photo of the index.

    Attributes:
        key: ``<split>/<name>``.
        split: the data set's split.
        image: its file, relative to the data set's root, with forward slashes.
        size: ``(height, width)`` in pixels, upright.
        digest: SHA-256 of the file.
    """

    key: str
    split: Annotated[str, AfterValidator(sys.intern)]  # a few words, a hundred thousand times
    image: str
    size: tuple[PositiveInt, PositiveInt]
    digest: str

    def path(self, root: Path) -> Path:
        """Its file under ``root``.

        Raises:
            ValueError: the index names a file out of ``root``; links are followed.
        """
        return written_path(root, self.image)


def read_unchanged(path: Path, digest: str) -> Image.Image:
    """Read a photo that is still the one that was indexed: what is cached bears its digest.

    Raises:
        ValueError: it is unreadable, or another one.
    """
    image = read_image(path)  # first: it says what is wrong with a file that is gone
    if file_digest(path) != digest:
        raise ValueError(f"{path}: has changed since it was indexed; run `dvc repro`")
    return image


@dataclass(frozen=True)
class SceneIndex:
    """All photos of a data set that the pipeline uses, and the classes to look for in them."""

    label_space: LabelSpace
    photos: list[IndexedPhoto]

    def of_split(self, split: str) -> list[IndexedPhoto]:
        """The photos of one split, in order."""
        return [photo for photo in self.photos if photo.split == split]

    def write(self, path: Path) -> None:
        """Write as JSON."""
        content = {
            "dataset": self.label_space.name,
            "classes": [asdict(info) for info in self.label_space.classes],
            "photos": [vars(photo) for photo in self.photos],
        }
        with atomic_path(path) as draft, draft.open("w", encoding="utf-8") as handle:
            json.dump(content, handle, indent=2)  # in pieces: all of them take 1.7 kB a photo
            handle.write("\n")

    @classmethod
    def read(cls, path: Path) -> "SceneIndex":
        """Read what `write` wrote.

        Raises:
            ValueError: the file is missing or no index.
        """
        try:
            content = _Content.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise ValueError(f"{path}: no such index; run `dvc repro prepare`") from None
        except (OSError, ValueError) as error:
            found = one_line(error)
            raise ValueError(f"{path}: no scene index ({found}); run `dvc repro prepare`") from None
        return cls(LabelSpace(content.dataset, tuple(content.classes)), content.photos)


class _Content(BaseModel):
    """The file, as pydantic checks it."""

    model_config = ConfigDict(strict=True)

    dataset: str
    classes: Annotated[list[ClassInfo], Field(min_length=1, max_length=255)]
    photos: list[IndexedPhoto]


def used_scenes(dataset: Dataset) -> list[Scene]:
    """The training and validation photos: what training learns from and evaluation scores.

    A data set may have no validation photos.

    Raises:
        ValueError: see `Dataset.scenes`.
    """
    return [scene for split in USED if split in dataset.splits for scene in dataset.scenes(split)]


def index_scenes(dataset: Dataset, scenes: list[Scene]) -> SceneIndex:
    """Look at every photo once: that it decodes whole, its size, its digest.

    Raises:
        ValueError: photos cannot be read; the message names them.
    """
    photos, faults = [], Faults("photos")
    for scene in progress(scenes, label="photos", total=len(scenes)):
        with faults.collected():
            picture = read_image(scene.image)
            photos.append(
                IndexedPhoto(
                    key=scene.key,
                    split=scene.split,
                    image=scene.image.relative_to(dataset.root).as_posix(),
                    size=(picture.height, picture.width),
                    digest=file_digest(scene.image),
                )
            )
    faults.check()
    several = [scene.image for scene in scenes if scene.image.suffix.lower() in ANIMATED]
    several = [path for path in several if holds_several(path)]
    if several:
        log.warning(
            "%d files hold several pictures, of which the first is read: %s",
            len(several),
            named(several),
        )
    return SceneIndex(dataset.label_space, photos)

"""Index of a data set: path, size and digest of each photo, and the classes; no human masks."""

import json
import logging
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt

from pipeline.scenes.classes import ClassInfo, LabelSpace
from pipeline.scenes.image_io import read_image, written_path
from pipeline.system.files import atomic_path, file_digest
from pipeline.system.text import error_text

log = logging.getLogger("carb")
USED = ("train", "val")  # splits


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
    split: Annotated[str, AfterValidator(sys.intern)]  # two values in a hundred thousand photos
    image: str
    size: tuple[PositiveInt, PositiveInt]
    digest: str

    def path(self, root: Path) -> Path:
        """Its file; see `written_path`."""
        return written_path(root, self.image)


def read_unchanged(path: Path, digest: str) -> Image.Image:
    """Read a photo and check that it has not changed since it was indexed.

    Raises:
        ValueError: it is unreadable, or has changed.
    """
    image = read_image(path)  # first, for its message about a missing file
    if file_digest(path) != digest:
        raise ValueError(f"{path}: has changed since it was indexed; run `dvc repro`")
    return image


@dataclass(frozen=True)
class SceneIndex:
    """The photos of a data set that the pipeline uses, and its classes."""

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
            json.dump(content, handle, indent=2)  # a stream: the whole text takes 1.7 kB per photo
            handle.write("\n")

    @classmethod
    def read(cls, path: Path) -> "SceneIndex":
        """Read what `write` wrote.

        Raises:
            ValueError: the file is missing or not an index.
        """
        try:
            content = _Content.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise ValueError(f"{path}: no such index; run `dvc repro prepare`") from None
        except (OSError, ValueError) as error:
            found = error_text(error)
            raise ValueError(
                f"{path}: not a scene index ({found}); run `dvc repro prepare`"
            ) from None
        return cls(LabelSpace(content.dataset, tuple(content.classes)), content.photos)


class _Content(BaseModel):
    """Schema of the file."""

    model_config = ConfigDict(strict=True)

    dataset: str
    classes: Annotated[list[ClassInfo], Field(min_length=1, max_length=255)]
    photos: list[IndexedPhoto]

"""HTML page for correcting proposed labels; self-contained."""

import base64
import io
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.scenes.classes import LabelSpace
from pipeline.scenes.image_folder import PAGE
from pipeline.scenes.image_io import PHOTO_ENDINGS
from pipeline.system.files import atomic_path, fingerprint

UNSURE = 0.1  # photos within this distance of the threshold are marked
CONTENT = '"the page\'s content"'  # in correct.html


@dataclass(frozen=True)
class Proposal:
    """CLIP's confidence for one photo.

    Attributes:
        photo: its path below the folder of photos.
        thumbnail: the photo, small.
        confidence: of each class, ``[C]`` in 0..1.
    """

    photo: str
    thumbnail: Image.Image
    confidence: np.ndarray


def write_page(
    out: Path, proposals: list[Proposal], space: LabelSpace, *, threshold: float
) -> None:
    """Write ``correct.html`` into a folder; an earlier folder is replaced.

    Args:
        out: the folder.
        proposals: CLIP's confidence for each photo.
        space: the classes.
        threshold: minimum confidence for proposing a class.
    """
    with atomic_path(out) as draft:
        draft.mkdir()
        (draft / PAGE).write_text(correction_page(proposals, space, threshold=threshold), "utf-8")


def correction_page(proposals: list[Proposal], space: LabelSpace, *, threshold: float) -> str:
    """The page as HTML; a click on a photo changes its label."""
    content: dict[str, Any] = {
        "classes": space.names,
        "colours": ["#" + bytes(info.colour).hex() for info in space.classes],
        "threshold": threshold,
        "near": UNSURE,
        "endings": PHOTO_ENDINGS,
        "photos": [
            {
                "name": each.photo,
                "picture": _data_url(each.thumbnail),
                "confidence": [round(float(value), 3) for value in each.confidence],
                "tags": [bool(value >= threshold) for value in each.confidence],
            }
            for each in proposals
        ],
    }
    # The browser stores corrections under this id.
    content["id"] = fingerprint(content)[:16]
    # A name may contain "</script>".
    text = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")
    return files("pipeline.proposals").joinpath(PAGE).read_text("utf-8").replace(CONTENT, text)


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

"""Section ``dataset`` of params.yaml."""

import os
import re
from typing import Literal, Self

from pydantic import model_validator

from pipeline.config.base import Count, Section, Text


class DatasetParams(Section):
    """The photos, and the source of their image-level labels."""

    name: Literal["demo", "camvid", "cityscapes", "wilddash2", "folder"]
    root: Text
    image_labels: Text | None
    min_pixels: Count

    @model_validator(mode="after")
    def _root_is_a_place_for_photos(self) -> Self:
        if re.match(r"~(/|$)|\$", self.root):
            raise ValueError(
                f"root: '~' and '$' are not expanded, got '{self.root}'; write the path in full"
            )
        if os.path.abspath(self.root) in map(os.path.abspath, (".", "data", "models", "results")):
            raise ValueError(
                f"root: stages write into '{self.root}'; move the photos into a folder of their own"
            )
        return self

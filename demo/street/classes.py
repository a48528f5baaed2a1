"""The seventeen classes of the drawn scenes, in the order of the demo label space."""

CLASSES: tuple[str, ...] = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "bicycle",
)
(ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION) = range(9)
(TERRAIN, SKY, PERSON, RIDER, CAR, TRUCK, BUS, BICYCLE) = range(9, 17)

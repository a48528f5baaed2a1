"""What `prepare` leaves to look at: the photos, and how many of them hold each class."""

import logging
from pathlib import Path

import numpy as np

from pipeline.files import atomic_path
from pipeline.index import SceneIndex
from pipeline.label_files import ImageLabels
from pipeline.scene import read_image
from pipeline.tables import write_table
from pipeline.visualise import panel, save_png

log = logging.getLogger("carb")
SHEET = 12
COLUMNS = 4


def prepare_report(out: Path, index: SceneIndex, labels: ImageLabels, *, root: Path) -> None:
    """What is in the data: a sheet of training photos, and how many photos hold each class."""
    classes = index.label_space.names
    train = np.stack([row for key, row in labels.items() if key.startswith("train/")])
    rows = [
        {"class": name, "photos": int(count), "share": round(count / len(train), 4)}
        for name, count in zip(classes, train.sum(axis=0), strict=True)
    ]
    photos = index.of_split("train")
    places = np.linspace(0, len(photos) - 1, min(SHEET, len(photos))).round().astype(int)
    pictures = [np.asarray(read_image(photos[place].path(root))) for place in places]
    sheet = [pictures[start : start + COLUMNS] for start in range(0, len(pictures), COLUMNS)]
    with atomic_path(out) as draft:
        draft.mkdir()
        write_table(draft / "image_labels.csv", rows)
        save_png(draft / "photos.png", panel(sheet))
    for split in ("train", "val"):
        log.info("%s: %d photos of '%s'", split, len(index.of_split(split)), index.label_space.name)
    log.info("classes a training photo: %.1f of %d", train.sum(axis=1).mean(), len(classes))

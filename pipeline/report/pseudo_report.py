"""What `pseudo` leaves to look at: the pseudo-masks of a few training photos."""

from pathlib import Path

from pipeline.config.params import PaletteName
from pipeline.datasets.base import Scene
from pipeline.report.drawing import save_png
from pipeline.report.palettes import palette_of
from pipeline.report.pseudo_mask_panels import evenly_spaced, pseudo_panels
from pipeline.scenes.index import SceneIndex
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.files import atomic_path

PANELS = 4


def clip_report(
    out: Path, store: Path, index: SceneIndex, *, root: Path, palette: PaletteName
) -> None:
    """Write ``panels.png``. No image label is known here: all classes compete.

    Args:
        out: folder to write.
        store: the pseudo-masks.
        index: the photos.
        root: folder of the data set.
        palette: what ``pictures.palette`` says.
    """
    photos = [
        Scene(photo.path(root), None, photo.split, photo.key) for photo in index.of_split("train")
    ]
    sheet = pseudo_panels(
        evenly_spaced(photos, PANELS),
        PseudoMaskStore.open(store),
        palette=palette_of(palette, index.label_space.palette),
        labels=None,
    )
    with atomic_path(out) as draft:
        draft.mkdir()
        save_png(draft / "panels.png", sheet)

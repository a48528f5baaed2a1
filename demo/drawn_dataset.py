"""The demo data set on disk: images and masks of drawn scenes."""

from pathlib import Path

from PIL import Image

from demo.street import draw_scene
from pipeline.scenes.classes import LABEL_SPACES
from pipeline.system.progress import progress


def draw_split(root: Path, split: str, *, seed: int, count: int) -> None:
    """Draw scenes into ``root/split/images`` and ``root/split/masks``.

    Args:
        root: folder of the data set.
        split: name of the split.
        seed: different seeds give different scenes.
        count: number of scenes.
    """
    palette = LABEL_SPACES["demo"].palette
    for kind in ("images", "masks"):
        (root / split / kind).mkdir(parents=True, exist_ok=True)
    for index in progress(range(count), label=f"draw {split}", total=count, unit="scenes"):
        image, mask = draw_scene(seed, index)
        picture = Image.fromarray(mask)
        picture.putpalette(palette.tobytes())
        picture.save(root / split / "masks" / f"{index:05d}.png")
        Image.fromarray(image).save(root / split / "images" / f"{index:05d}.png")

"""Procedural driving scenes, 256 by 128 pixels, with exact masks of seventeen classes.

`draw_scene(seed, index)` is the public interface; start reading at `scene.py`.
"""

from demo.street.classes import CLASSES
from demo.street.scene import draw_scene

__all__ = ["CLASSES", "draw_scene"]

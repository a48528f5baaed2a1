"""Tileable noise, made once from a fixed seed: clouds, foliage, asphalt."""

import numpy as np
from numpy.typing import NDArray

from demo.street.canvas import HEIGHT, WIDTH


def _noise(rng: np.random.Generator, low: float, high: float) -> NDArray[np.float32]:
    """Periodic noise between two frequencies (cycles a tile), zero mean, unit variance."""
    rows = np.fft.fftfreq(2 * HEIGHT)[:, None] * 2 * HEIGHT
    columns = np.fft.fftfreq(2 * WIDTH)[None] * 2 * WIDTH
    radius = np.hypot(rows, columns)
    band = np.exp(-((radius / high) ** 2)) * (1 - np.exp(-((radius / low) ** 2)))
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((2 * HEIGHT, 2 * WIDTH))) * band).real
    tile: NDArray[np.float32] = (field / field.std()).astype(np.float32)
    tile.setflags(write=False)
    return tile


_RNG = np.random.default_rng(7)
FINE, MIDDLE, COARSE = (
    _noise(_RNG, *band) for band in ((60, 400), (18, 70), (2, 14))
)  # [256, 512]

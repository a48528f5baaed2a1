"""Guided filter against He et al.'s formulas pixel by pixel, and fused levels."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from pipeline.guided_filter import EPSILON, fuse_levels, guide_image, guided_filter


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def slowly(photo: np.ndarray, plane: np.ndarray, radius: int) -> np.ndarray:
    """Equations 14 to 16 of the paper (colour guide), with loops, ``[3, H, W]`` and ``[H, W]``."""
    slope, offset, result = np.zeros_like(photo), np.zeros_like(plane), np.zeros_like(plane)

    def window(row: int, column: int) -> tuple[slice, slice]:
        return (
            slice(max(0, row - radius), row + radius + 1),
            slice(max(0, column - radius), column + radius + 1),
        )

    for row, column in np.ndindex(*plane.shape):
        place = window(row, column)
        colours, values = photo[:, *place].reshape(3, -1), plane[place].ravel()
        mean, level = colours.mean(axis=1), values.mean()
        spread = np.cov(colours, bias=True) + EPSILON * np.eye(3)
        joint = (colours * values).mean(axis=1) - mean * level
        slope[:, row, column] = np.linalg.solve(spread, joint)
        offset[row, column] = level - slope[:, row, column] @ mean
    for row, column in np.ndindex(*plane.shape):
        place = window(row, column)
        mean_slope = slope[:, *place].mean(axis=(1, 2))
        result[row, column] = mean_slope @ photo[:, row, column] + offset[place].mean()
    return result


def test_the_filter_is_the_paper_s() -> None:
    photo, maps = noise(3, 9, 12), noise(2, 9, 12)
    found = guided_filter(photo, maps, radius=2)
    for plane, one in zip(maps, found, strict=True):
        wanted = slowly(photo.double().numpy(), plane.double().numpy(), 2)
        np.testing.assert_allclose(one.numpy(), wanted, atol=2e-5)


def test_probabilities_still_sum_to_one() -> None:
    found = guided_filter(noise(3, 20, 30), noise(4, 20, 30).softmax(dim=0), radius=5)
    torch.testing.assert_close(found.sum(dim=0), torch.ones(20, 30), rtol=0, atol=1e-5)


def test_a_blurred_map_snaps_to_the_edge_of_the_photo() -> None:
    photo = torch.full((3, 40, 40), 0.2)
    photo[:, :, 20:] = 0.8
    ramp = torch.linspace(-1, 1, 40).expand(1, 40, 40)  # crosses 0 at the edge, but slowly
    found = guided_filter(photo, ramp, radius=8)[0]
    assert float(found[20, 20] - found[20, 19]) > 5 * float(ramp[0, 20, 20] - ramp[0, 20, 19])
    assert found[20, :20].max() < 0 < found[20, 20:].min()


def test_fusing_filters_the_sum_of_the_grids() -> None:
    photo = Image.fromarray((noise(24, 32, 3).numpy() * 255).astype(np.uint8))
    grids = [noise(2, 24, 32), noise(2, 12, 16)]
    larger = F.interpolate(grids[1][None], (24, 32), mode="bilinear")[0]
    wanted = guided_filter(guide_image(photo, (24, 32)), grids[0] + larger, radius=3)
    found = fuse_levels(photo, grids, size=(24, 32), stride=2, radius=3)
    torch.testing.assert_close(found, F.avg_pool2d(wanted[None], 2)[0])

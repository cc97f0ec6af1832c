"""Gaps in pictures: against the dense least-squares solution, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from lamina.fields import ImageField
from lamina.fields.fill import fill_gaps


def plate(pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The smoothest surface, from the normal equations of a dense Laplacian."""
    height, width = known.shape
    n = height * width
    laplacian = np.zeros((n, n))
    for i in range(height):
        for j in range(width):
            for di, dj in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                a, b = i + di, j + dj
                if 0 <= a < height and 0 <= b < width:
                    laplacian[i * width + j, a * width + b] += 1
                    laplacian[i * width + j, i * width + j] -= 1
    free = ~known.ravel()
    solved = pixels.ravel().copy()
    right = -laplacian[:, ~free] @ solved[~free]
    solved[free] = np.linalg.lstsq(laplacian[:, free], right, rcond=None)[0]
    return solved.reshape(known.shape)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_it_is_the_smoothest_surface_through_the_known_pixels(share: float) -> None:
    rng = np.random.default_rng(0)
    i, j = np.mgrid[:14, :17]
    pixels = np.stack([np.sin(i / 3) * np.cos(j / 4), i / 14 + rng.normal(0, 0.05, i.shape)], 2)
    known = rng.uniform(size=i.shape) < share
    spoilt = np.where(known[:, :, None], pixels, np.nan)
    filled = fill_gaps(spoilt, known, -9.0, 9.0)
    for channel in range(2):
        assert np.abs(filled[..., channel] - plate(pixels[..., channel], known)).max() < 2e-3
    assert np.array_equal(filled[known], pixels[known])


def test_whole_numbers_are_rounded_and_stay_in_range() -> None:
    pixels = np.zeros((9, 9, 1), np.uint8)
    pixels[3:6, 3:6] = 255
    known = np.ones((9, 9), bool)
    known[4, 4] = known[0, 0] = known[2, 4] = False
    filled = fill_gaps(pixels, known, 0.0, 255.0)
    assert filled.dtype == np.uint8
    assert filled[4, 4, 0] == 255  # a plate would overshoot
    assert filled[0, 0, 0] == 0


def test_one_known_pixel_gives_its_colour() -> None:
    known = np.zeros((6, 8), bool)
    known[2, 3] = True
    filled = fill_gaps(np.full((6, 8, 3), 0.25), known, 0.0, 1.0)
    assert np.allclose(filled, 0.25)


def test_unknown_pixels_may_be_nan() -> None:
    i, j = np.mgrid[:24, :24]
    pixels = np.sin(i / 4) + np.cos(j / 5)
    mask = (i + j) % 3 > 0
    spoilt = np.where(mask, pixels, np.nan)
    field = ImageField(rng=0).fit(spoilt, max_steps=600, mask=mask)
    assert np.sqrt(np.mean((field.render() - pixels)[~mask] ** 2)) < 0.1
    assert field.psnr(spoilt, mask=mask) == field.report.psnr

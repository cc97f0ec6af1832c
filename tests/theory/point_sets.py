"""Random labelled point sets of the awkward kinds."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

KINDS = (
    "integers",
    "decimals",
    "fractions",
    "separable",
    "duplicates",
    "ties",
    "flat",
    "barely apart",
    "barely touching",
    "far away",
    "scales",
    "small",
)


# What is known of a kind by its construction
KNOWN = {"barely apart": ("strict",), "barely touching": ("weak",), "duplicates": ("weak", "none")}


def point_set(seed: int) -> tuple[str, Any, list[int]]:
    """Return (kind, x, y): kinds in turn, 2 to 20 columns, both classes present."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    d = int(rng.integers(2, 21))
    n = int(rng.integers(d, 5 * d + 6))
    x: Any = rng.normal(size=(n, d))
    w = rng.integers(-3, 4, d).astype(float)
    w[0] = w[0] or 1.0
    y = np.where(x @ w + rng.normal() * rng.integers(0, 2) > 0, 1, 0)
    if kind == "integers":
        x = rng.integers(-3, 4, (n, d))
        y = rng.integers(0, 2, n)
    elif kind == "decimals":
        tenths = rng.integers(-30, 31, (n, d))
        y = (tenths @ w.astype(int) > 0).astype(int)
        x = [[Decimal(int(v)) / 10 for v in row] for row in tenths]
    elif kind == "fractions":
        x = [[Fraction(int(a), int(b)) for a, b in row] for row in rng.integers(1, 9, (n, d, 2))]
        y = rng.integers(0, 2, n)
    elif kind == "duplicates":  # across the classes
        x[: n // 2], y[: n // 2] = x[n - n // 2 :], 1 - y[n - n // 2 :]
    elif kind == "ties":  # many rows on one plane, of both classes
        x = rng.integers(-2, 3, (n, d))
        y = np.sign(x @ w.astype(int))
        y = np.where(y == 0, rng.integers(0, 2, n), y > 0).astype(int)
    elif kind == "flat":  # in few dimensions
        x = rng.integers(-2, 3, (n, 2)) @ rng.integers(-2, 3, (2, d))
    elif kind.startswith("barely"):  # only the last binary digit of the first column tells
        half = rng.integers(-50, 51, (n // 2 + 1, d)).astype(float) / 7
        x, y = np.concatenate([half, half]), np.repeat([0, 1], n // 2 + 1)
        x[:, 0] = np.where(y == 1, 1.0, np.nextafter(1.0, 0.0))
        if kind == "barely touching":
            x[0, 0] = 1.0
    elif kind == "far away":
        x = x + 1e9
    elif kind == "scales":
        x = x * 10.0 ** rng.integers(-12, 13, d)
        y = (x[:, 0] > 0).astype(int) if seed % 2 else rng.integers(0, 2, n)
    elif kind == "small":
        x, y = rng.integers(0, 2, (4, d)), rng.integers(0, 2, 4)
    y = np.array(y)
    if kind not in KNOWN:
        y[0], y[-1] = 0, 1
    return kind, x, y.tolist()

"""Enclosures of one hidden layer of relu or step units on a line: sums by place, not by unit.

Between its knots such a network is one straight piece, whose slope and offset are sums over the
units on either side: prefix sums of the units in order of their knots. A box then costs as much as
the few knots in it, where the general bounds (``network_bounds``) cost as much as the whole layer.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.network import Network
from lamina.theory.taylor import Boxes, Float64, Taylor

_UNIT: Final = {"float32": 2.0**-24, "float64": 2.0**-53}


def is_on_a_line(net: Network) -> bool:
    """Whether ``LineBounds`` can enclose the network."""
    spec = net.spec
    simple = (
        spec.d_in == 1
        and len(spec.widths) == 1
        and spec.activations[0] in ("relu", "step")
        and spec.output == "identity"
        and not spec.skips
        and not spec.residual
    )
    if not simple:
        return False
    w, b = net.weights[0].astype(np.float64)[:, 0], net.biases[0].astype(np.float64)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(b / np.where(w == 0, 1.0, w)).all())  # no knot overflows


class LineBounds:
    """Enclosures of c + sum_k a_k phi(w_k x + b_k), phi relu or step, as computed.

    Parameters
    ----------
    net : Network
        One for which ``is_on_a_line``.
    reach : float
        The greatest |x| of any box.
    """

    def __init__(self, net: Network, reach: float) -> None:
        w, b = net.weights[0].astype(np.float64)[:, 0], net.biases[0].astype(np.float64)
        a, c = net.weights[1].astype(np.float64)[0], float(net.biases[1][0])
        self.is_step = net.spec.activations[0] == "step"
        fixed = w == 0  # computed z is b itself
        if fixed.any():
            h = np.where(b[fixed] >= 0, 1.0 if self.is_step else b[fixed], 0.0)
            c += float(a[fixed] @ h)
        knots = -b / np.where(fixed, 1.0, w)
        order = np.argsort(knots[~fixed], kind="stable")
        self.knots, self.w, self.b, self.a = (v[~fixed][order] for v in (knots, w, b, a))
        n, unit, ours = len(a) + 4, _UNIT[net.spec.dtype], _UNIT["float64"]
        tiny = float(np.finfo(net.spec.dtype).tiny)
        # How far from its knot a unit's computed z may still have the wrong sign.
        self.sliver = 8 * unit * (reach + np.abs(self.knots)) + 4 * tiny / np.abs(self.w)
        size = np.abs(a) * (1.0 if self.is_step else np.abs(w) * reach + np.abs(b) + tiny)
        total = float(size.sum()) + abs(c) + float(np.abs(net.biases[1]).sum())
        # Their sum, their z, and our prefix sums; what is flushed to zero.
        self.rounding = 1.1 * ((n * unit) + 4 * unit + 4 * n * ours) * total
        self.rounding += tiny * (n + float(np.abs(a).sum()))
        self._sums(c)

    def _sums(self, c: float) -> None:
        """Slope and offset to the left of knot i, for i = 0 … n."""
        slope = self.a * (0.0 if self.is_step else self.w)
        offset = self.a * (1.0 if self.is_step else self.b)
        right = self.w > 0  # on to the right of the knot

        def before(value: Float64) -> Float64:
            from_left = np.concatenate([[0.0], np.cumsum(np.where(right, value, 0.0))])
            from_right = np.concatenate([np.cumsum(np.where(right, 0.0, value)[::-1])[::-1], [0.0]])
            return np.asarray(from_left + from_right)

        self.slope, self.offset = before(slope), before(offset) + c
        self.reach_left = np.minimum.accumulate((self.knots - self.sliver)[::-1])[::-1]
        self.reach_right = np.maximum.accumulate(self.knots + self.sliver)

    def model(self, boxes: Boxes) -> Taylor:
        """Enclose what the network computes over each box, (B, 1)."""
        low, high = boxes.low[:, 0], boxes.high[:, 0]
        first = np.searchsorted(self.reach_right, low)  # knots before it are left of the box
        last = np.searchsorted(self.reach_left, high, side="right")  # from it on, right of the box
        last = np.maximum(last, first)
        slope, offset = self.slope[first].copy(), self.offset[first].copy()
        error = np.full(len(low), self.rounding)
        box, unit = _pairs(first, last)
        if len(box):
            parts = self._within(low[box], high[box], unit)
            for total, part in zip((slope, offset, error), parts, strict=True):
                total += np.bincount(box, part, minlength=len(low))
        # Sums of those few, and slope · centre + offset, are rounded too.
        terms = np.abs(slope) * (np.abs(low) + np.abs(high)) + np.abs(offset) + error
        n_terms = last - first + 8
        error += 4 * _UNIT["float64"] * n_terms * terms
        centre = boxes.centre[:, 0]
        shape = (len(low), 1)
        return Taylor.make(
            boxes,
            (slope * centre + offset).reshape(shape),
            slope.reshape(1, *shape),
            np.zeros((1, *shape)),
            error.reshape(shape),
        )

    def _within(
        self, low: Float64, high: Float64, unit: NDArray[np.intp]
    ) -> tuple[Float64, Float64, Float64]:
        """What a unit with its knot in a box adds to what it was to the left of its knot."""
        a, w, b, knot, sliver = (v[unit] for v in (self.a, self.w, self.b, self.knots, self.sliver))
        turn = np.where(w > 0, 1.0, -1.0)
        if self.is_step:  # 0 or a more, or a less: half of it, and as much either way
            share = 0.5 * (knot + sliver < low) + 0.5 * (knot - sliver <= high)
            return np.zeros_like(a), turn * a * share, np.where(share == 0.5, 0.5 * np.abs(a), 0.0)
        # relu(z) = relu(-z) + z: to the right of the knot, a z more if w > 0, and a z less if not;
        # over the box that is a max(turn z, 0), taken as a line and a band around it.
        scale = np.abs(w)
        below = np.minimum(low - knot, 0.0) - sliver  # of x - knot
        above = np.maximum(high - knot, 0.0) + sliver
        share = above / (above - below)
        band = -0.5 * share * below * scale * np.abs(a)
        gain = turn * a * share
        # gain · z is gain w x + gain b
        return gain * w, gain * b + 0.5 * -share * below * scale * a, band * (1 + 1e-12)


def _pairs(
    first: NDArray[np.intp], last: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All (box, unit) with first[box] ≤ unit < last[box]."""
    counts = last - first
    box = np.repeat(np.arange(len(first)), counts)
    start = np.repeat(np.cumsum(counts) - counts, counts)
    return box, np.arange(len(box)) - start + np.repeat(first, counts)

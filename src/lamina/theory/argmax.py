"""Whether one linear layer can give every row's class its highest output."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.theory.exact import ExactVector, Points, fraction, to_integers
from lamina.theory.linear_program import positive_direction
from lamina.theory.linear_separability import common_point
from lamina.theory.min_norm import Corner, Nearest, nearest_float


@dataclass(frozen=True, eq=False)
class ArgmaxSeparability:
    """Whether some W, b have ``W[c]·x + b[c]`` highest at each row's class c, with the proof.

    Attributes
    ----------
    classes : tuple
    exact_weights, exact_biases : tuple of ExactVector (d,), ExactVector; None if there are none
        One weight vector and one bias a class.
    mix : dict of (row, class number) to Fraction, or None
        Convex weights: Σ mix[i, k]·(e_c - e_k) ⊗ (xᵢ, 1) = 0, with c the class of row i. For any
        W, b the mean of ``output[c] - output[k]`` with these weights is 0, so that it is not
        positive everywhere (Kesler's construction and Gordan's alternative).
    """

    classes: tuple[Any, ...]
    points: Points = field(repr=False)
    codes: NDArray[np.int64] = field(repr=False)
    exact_weights: tuple[ExactVector, ...] | None = None
    exact_biases: ExactVector | None = None
    mix: dict[tuple[int, int], Fraction] | None = field(default=None, repr=False)

    @property
    def separable(self) -> bool:
        """Whether a linear layer with softmax can be right on all of these rows."""
        return self.mix is None

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """The layer's weights as floats (n_classes, d), or None."""
        if self.exact_weights is None:
            return None
        return np.array([np.asarray(w) for w in self.exact_weights])

    @property
    def biases(self) -> NDArray[np.float64] | None:
        """The layer's biases as floats (n_classes,), or None."""
        return None if self.exact_biases is None else np.asarray(self.exact_biases)

    def verify(self) -> bool:
        """Check the proof in fractions, from the values as they came."""
        if self.exact_weights is not None and self.exact_biases is not None:
            return all(self._is_highest(i) for i in range(self.points.n))
        return self.mix is not None and self._mix_is_zero(self.mix)

    def _is_highest(self, i: int) -> bool:
        row = self.points.row(i)
        outputs = [
            b + sum((w * a for w, a in zip(weights, row, strict=True) if w), Fraction(0))
            for weights, b in zip(self.exact_weights or (), self.exact_biases or (), strict=True)
        ]
        own = outputs.pop(int(self.codes[i]))
        return own > max(outputs)

    def _mix_is_zero(self, mix: dict[tuple[int, int], Fraction]) -> bool:
        n_classes, d = len(self.classes), self.points.d
        total = [[Fraction(0)] * (d + 1) for _ in range(n_classes)]
        for (i, k), weight in mix.items():
            c = int(self.codes[i])
            if weight < 0 or k == c:
                return False
            for j, a in enumerate([*(fraction(v) for v in self.points.values[i]), Fraction(1)]):
                total[c][j] += weight * a
                total[k][j] -= weight * a
        return sum(mix.values()) == 1 and not any(a for block in total for a in block)


def decide_argmax(
    points: Points, codes: NDArray[np.int64], classes: tuple[Any, ...]
) -> ArgmaxSeparability:
    """Find such a layer, or prove that there is none; the last class has weights of zero."""
    k, width = len(classes), points.d + 1
    guess = _guess(points, codes, k)
    layer = np.array(guess.point).reshape(k, width)
    scale = np.abs(layer[:, :-1]).max(initial=0.0)
    if scale > 0:
        for bits in (10, 24, 53):
            found = _rounded(points, layer / scale, bits)
            if _right(points, codes, found):
                return _layer(points, codes, classes, found)
    known = _mixed_pair(points, codes, k)
    if known is not None:
        return ArgmaxSeparability(classes, points, codes, mix=known)
    pairs = [(i, c) for i in range(points.n) for c in range(k) if c != codes[i]]
    rows = np.zeros((len(pairs), (k - 1) * width), dtype=object)
    for r, (i, c) in enumerate(pairs):
        row = [*points.integers[i].tolist(), 1]
        for block, sign in ((int(codes[i]), 1), (c, -1)):
            if block < k - 1:
                rows[r, block * width : (block + 1) * width] = [sign * a for a in row]
    place = {pair: r for r, pair in enumerate(pairs)}
    v, mix = positive_direction(rows, sorted({place[i, c] for i, c in guess.corners}))
    if mix is not None:
        by_pair = {pairs[r]: weight for r, weight in mix.items()}
        return ArgmaxSeparability(classes, points, codes, mix=by_pair)
    whole = np.array([*(v or []), *[0] * width], dtype=object).reshape(k, width)
    return _layer(points, codes, classes, whole)


def _mixed_pair(
    points: Points, codes: NDArray[np.int64], k: int
) -> dict[tuple[int, int], Fraction] | None:
    """Return the proof by two classes whose hulls meet, if there are two: a far smaller search.

    Then row i of class a against b, and row j of b against a, with the weights of the common point,
    mix to (e_a - e_b) ⊗ (point - point, 1 - 1) = 0.
    """
    for a, b in combinations(range(k), 2):
        rows = np.flatnonzero((codes == a) | (codes == b))
        weights = common_point(points.take(rows), codes[rows] == b)
        if weights is not None:
            found = ((int(rows[i]), weight) for i, weight in weights.items())
            return {(i, a if codes[i] == b else b): weight for i, weight in found}
    return None


def _guess(points: Points, codes: NDArray[np.int64], k: int) -> Nearest:
    """Return the nearest point to 0 of all (e_c - e_k) ⊗ (x, 1), in floats."""
    x = np.concatenate([points.approximate, np.ones((points.n, 1))], axis=1)  # (n, d + 1)
    every = np.arange(points.n)

    def lowest(direction: NDArray[np.float64]) -> tuple[Corner, NDArray[np.float64]]:
        outputs = x @ direction.reshape(k, -1).T  # (n, k)
        gaps = outputs[every, codes][:, np.newaxis] - outputs
        gaps[every, codes] = np.inf
        i, other = divmod(int(np.argmin(gaps)), k)
        corner = np.zeros((k, x.shape[1]))
        corner[codes[i]], corner[other] = x[i], -x[i]
        return (i, other), corner.ravel()

    return nearest_float(lowest, k * x.shape[1])


def _rounded(points: Points, layer: NDArray[np.float64], bits: int) -> NDArray[np.object_]:
    """Return a layer over ``points.approximate`` as one over ``points.integers``, rounded."""
    reach = points.reach
    result = np.empty(layer.shape, dtype=object)
    for row, own in zip(result, layer, strict=True):
        for j, value in enumerate(own.tolist()):
            short = Fraction(round(value * 2**bits))
            row[j] = short / (reach * points.scale[j]) if j < points.d else short
    short_layer: NDArray[np.object_] = np.array(
        to_integers(result.ravel().tolist()), dtype=object
    ).reshape(layer.shape)
    return short_layer


def _right(points: Points, codes: NDArray[np.int64], layer: NDArray[np.object_]) -> bool:
    outputs = points.integers @ layer[:, :-1].T + layer[:, -1]  # (n, k)
    own = outputs[np.arange(points.n), codes]
    for k in range(layer.shape[0]):
        others = codes != k
        if not all(own[others] > outputs[others, k]):
            return False
    return True


def _layer(
    points: Points,
    codes: NDArray[np.int64],
    classes: tuple[Any, ...],
    layer: NDArray[np.object_],
) -> ArgmaxSeparability:
    whole = [points.plane_from_integers(v.tolist()) for v in layer]
    top = max((abs(a) for w, _ in whole for a in w), default=Fraction(0)) or Fraction(1)
    planes = [([a / top for a in w], b / top) for w, b in whole]
    return ArgmaxSeparability(
        classes,
        points,
        codes,
        exact_weights=tuple(ExactVector(w) for w, _ in planes),
        exact_biases=ExactVector(b for _, b in planes),
    )

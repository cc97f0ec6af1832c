"""The corners of a piecewise linear network of one variable, in fractions: no rounding anywhere."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from lamina.core.errors import SpecError
from lamina.core.network import Network

Corner = tuple[Fraction, Fraction]

_WHERE: Final = "exact_corners"
_MOST_CORNERS: Final = 100_000


def exact_corners(net: Network, low: Fraction, high: Fraction) -> list[Corner]:
    """Return the corners (x, y) of a relu network of one variable on [low, high], exactly.

    Parameters
    ----------
    net : Network
        One input, one identity output, hidden layers of relu or identity; skips are allowed. Its
        parameters are taken as the binary fractions that they are.
    low, high : Fraction

    Returns
    -------
    corners : list of pairs of Fraction
        The ends, and every x between them at which the slope changes, rising.

    Raises
    ------
    SpecError
        The network is another one, or has more than 100,000 corners.

    Notes
    -----
    Between neighbouring points of a list all units so far are straight; each layer adds the points
    where one of its units passes through zero.
    """
    _check(net)
    spec = net.spec
    points = [low, high]
    h: list[list[list[Fraction]]] = [[[x] for x in points]]  # h[layer][point][unit]
    for layer in range(1, spec.n_layers + 1):
        weight = [[Fraction(v) for v in row] for row in net.weights[layer - 1].tolist()]
        bias = [Fraction(v) for v in net.biases[layer - 1].tolist()]
        z = [
            _affine(weight, bias, [v for j in spec.sources(layer) for v in h[j][p]])
            for p in range(len(points))
        ]
        if layer == spec.n_layers:
            return _without_straight(list(zip(points, (v[0] for v in z), strict=True)))
        if spec.activation_at(layer) == "relu":
            points, h, z = _cut(points, h, z)
            z = [[max(v, Fraction(0)) for v in row] for row in z]
        if spec.residual_at(layer):
            z = [[a + b for a, b in zip(p, q, strict=True)] for p, q in zip(z, h[-1], strict=True)]
        h.append(z)
    raise AssertionError("the output layer returns")  # pragma: no cover


def _check(net: Network) -> None:
    spec = net.spec
    known = set(spec.activations) <= {"relu", "identity"}
    if spec.d_in != 1 or spec.d_out != 1 or spec.output != "identity" or not known or spec.encoding:
        raise SpecError(
            f"{_WHERE}: expected a network from one variable to one identity output, with relu or "
            f"identity units, got {net!r}. Make one with lamina.Network(1, widths, 1)."
        )


def _affine(
    weight: Sequence[Sequence[Fraction]], bias: Sequence[Fraction], u: Sequence[Fraction]
) -> list[Fraction]:
    return [
        b + sum((w * v for w, v in zip(row, u, strict=True) if w and v), Fraction(0))
        for row, b in zip(weight, bias, strict=True)
    ]


def _cut(
    points: list[Fraction], h: list[list[list[Fraction]]], z: list[list[Fraction]]
) -> tuple[list[Fraction], list[list[list[Fraction]]], list[list[Fraction]]]:
    """Add the points where a unit of z passes through zero; all values are straight between."""
    shares: list[list[Fraction]] = []  # of each stretch: where it is cut
    for left, right in itertools.pairwise(z):
        crossings = {a / (a - b) for a, b in zip(left, right, strict=True) if a * b < 0}
        shares.append(sorted(crossings))
    if len(points) + sum(map(len, shares)) > _MOST_CORNERS:
        raise SpecError(
            f"{_WHERE}: expected at most {_MOST_CORNERS} corners, got more. Take a smaller network "
            f"or interval."
        )

    def spread(rows: list[list[Fraction]]) -> list[list[Fraction]]:
        result = [rows[0]]
        for left, right, cuts in zip(rows[:-1], rows[1:], shares, strict=True):
            pairs = list(zip(left, right, strict=True))
            result += [[a + t * (b - a) for a, b in pairs] for t in cuts]
            result.append(right)
        return result

    column = spread([[x] for x in points])
    return [row[0] for row in column], [spread(rows) for rows in h], spread(z)


def _without_straight(corners: list[Corner]) -> list[Corner]:
    """Leave out points at which the slope does not change."""
    kept = corners[:1]
    for here, after in itertools.pairwise(corners[1:]):
        before = kept[-1]
        left = (here[1] - before[1]) * (after[0] - here[0])
        right = (after[1] - here[1]) * (here[0] - before[0])
        if left != right:
            kept.append(here)
    return [*kept, corners[-1]]

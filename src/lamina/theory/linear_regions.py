"""Linear regions of a piecewise-linear network, counted exactly along a line and in a window."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lamina.core import reference
from lamina.core.checks import as_matrix, check_count
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.core.network import Network
from lamina.theory.cells import area, coordinates, neighbours, vertex
from lamina.theory.exact_network import ExactNetwork, check_piecewise_linear
from lamina.theory.region_bounds import RegionBound, region_bounds
from lamina.theory.subdivision import MOST_REGIONS, Piece, groups, subdivide

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]


@dataclass(frozen=True, repr=False)
class Regions:
    """The regions of a network on a line or in a window.

    Attributes
    ----------
    n_regions : int
        Activation regions: the sets where every unit keeps its side, each with a pattern of its
        own.
    n_pieces : int
        Linear pieces: neighbouring regions with the same affine map are one piece. (A unit that
        nothing reads makes regions, but no pieces.)
    patterns : array of bool (n_regions, units)
        Which units are on (z > 0) in each region: those of all layers that bend.
    piece : array of int (n_regions,)
        The linear piece of each region.
    slopes : array (n_regions, d_out, k)
        The gradient by the k coordinates of the line or window, rounded to float64.
    bounds : list of RegionBound
        What the literature says of networks of this architecture.
    of : str
        What is linear there: y, or z where an output unit that is not linear follows.
    """

    net: Network
    frame: Array  # (d_in, k + 1): x = frame @ (coordinates, 1)
    pieces: list[Piece]
    patterns: npt.NDArray[np.bool_]
    piece: npt.NDArray[np.intp]
    slopes: Array
    bounds: list[RegionBound]
    of: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n_regions} regions, {self.n_pieces} linear pieces)"

    @property
    def n_regions(self) -> int:
        """Activation regions."""
        return len(self.pieces)

    @property
    def n_pieces(self) -> int:
        """Linear pieces."""
        return int(self.piece.max()) + 1

    def sizes(self) -> list[Fraction]:
        """Return the exact area, or length, of each region, in the window's coordinates."""
        return [area(piece.cell) for piece in self.pieces]

    def sample(self, n: int = 10_000, seed: int = 0) -> tuple[int, int]:
        """Look at random points, in float64: how many patterns were seen, how many are unknown.

        Points at which a unit is within rounding of 0 are left out. The second number must be 0.
        """
        check_count(n, "n", "regions.sample")
        k = self.frame.shape[1] - 1
        low, high = _corners(self.pieces, k)
        at = low + np.random.default_rng(seed).random((n, k)) * (high - low)
        x = at @ self.frame[:, :-1].T + self.frame[:, -1]
        spec = self.net.spec
        seen = reference.forward(spec, self.net.theta, x)
        kinds = [*spec.activations, "step" if spec.output == "step" else "identity"]
        bending = [z for z, kind in zip(seen.z, kinds, strict=True) if kind != "identity"]
        if not bending:
            return 1, 0
        z = np.hstack(bending)
        clear = np.abs(z).min(axis=1) > 1e-9 * max(1.0, float(np.abs(z).max()))
        found = {row.tobytes() for row in z[clear] > 0}
        return len(found), len(found - {piece.pattern for piece in self.pieces})


@dataclass(frozen=True, repr=False)
class LineRegions(Regions):
    """The regions along a segment, from t = 0 to t = 1, in order.

    Attributes
    ----------
    breaks : tuple of Fraction
        Where one region ends and the next begins, exactly.
    start, end : array (d_in,)
    """

    breaks: tuple[Fraction, ...]
    start: Array
    end: Array

    @property
    def bends(self) -> tuple[Fraction, ...]:
        """The breaks at which one linear piece ends and the next begins."""
        return tuple(
            at
            for at, a, b in zip(self.breaks, self.piece[:-1], self.piece[1:], strict=True)
            if a != b
        )

    def plot(self) -> Figure:
        """Return a picture of the outputs along the segment, each piece in turn."""
        from lamina.plots.regions import plot_line

        t = np.unique([0.0, 1.0, *np.linspace(0, 1, 400), *(float(b) for b in self.breaks)])
        trace = reference.forward(
            self.net.spec, self.net.theta, self.start + t[:, np.newaxis] * (self.end - self.start)
        )
        y = trace.h[-1] if self.of == "y" else trace.z[-1]
        return plot_line(
            t,
            y,
            [float(b) for b in self.breaks],
            [float(b) for b in self.bends],
            of=self.of,
            title=f"{self.n_pieces} linear pieces, {self.n_regions} activation regions",
        )


@dataclass(frozen=True, repr=False)
class WindowRegions(Regions):
    """The regions in a rectangle of a plane.

    Attributes
    ----------
    window : tuple of two pairs of float
    labels : tuple of two str
        What the two coordinates are.
    """

    window: tuple[tuple[float, float], tuple[float, float]]
    labels: tuple[str, str]

    @property
    def polygons(self) -> list[Array]:
        """The corners (m, 2) of each region, counterclockwise, rounded to float64."""
        return [
            np.array([[float(c) for c in coordinates(v)] for v in piece.cell])
            for piece in self.pieces
        ]

    def plot(self) -> Figure:
        """Return a picture of the regions; a linear piece has one colour."""
        from lamina.plots.regions import plot_window

        steep = self.slopes.reshape(self.n_regions, -1)
        return plot_window(
            self.polygons,
            self.piece,
            np.linalg.norm(steep, axis=1),
            self.window,
            labels=self.labels,
            title=f"{self.n_regions:,} activation regions, {self.n_pieces:,} linear pieces",
        )


def regions_on_line(
    net: Network, start: npt.ArrayLike, end: npt.ArrayLike, *, most: int = MOST_REGIONS
) -> LineRegions:
    """Count the linear regions of a network along a segment, exactly.

    Parameters
    ----------
    net : Network
        Of relu, leaky_relu, step and identity units, with any skips and residual connections.
    start, end : array-like (d_in,)
        Two different points.
    most : int, default 20,000
        Stop with an error beyond so many regions.

    Returns
    -------
    LineRegions

    Raises
    ------
    SpecError
        A unit is not piecewise linear, or the network has an encoding.
    ShapeError, DataError
        The points are not two different ones of d_in finite numbers; too many regions.

    Notes
    -----
    The network is taken as the function of its weights, without rounding: weights and points
    are the binary fractions they are, and all is computed in whole numbers.

    Examples
    --------
    >>> import lamina
    >>> from lamina import theory
    >>> net = lamina.Network(1, (2,), 1, rng=0)
    >>> net.weights[0], net.biases[0] = [[1], [1]], [0, -0.5]
    >>> theory.regions_on_line(net, [-1], [1]).breaks
    (Fraction(1, 2), Fraction(3, 4))
    """
    where = "regions_on_line"
    check_piecewise_linear(net, where)
    ends = (_point(start, net.spec.d_in, "start", where), _point(end, net.spec.d_in, "end", where))
    if np.array_equal(ends[0], ends[1]):
        raise DataError(
            f"{where}: expected two different points, got the same twice. Move one of them."
        )
    first, second = (_as_fractions(p) for p in ends)
    frame = np.stack([second - first, first], axis=1)  # (d_in, 2)
    cell = [vertex([Fraction(0)]), vertex([Fraction(1)])]
    exact = ExactNetwork(net, frame, where)
    pieces = subdivide(exact, cell, check_count(most, "most", where), where)
    pieces.sort(key=lambda piece: min(coordinates(v)[0] for v in piece.cell))
    numbers = [0]
    for left, right in itertools.pairwise(pieces):
        numbers.append(numbers[-1] + (not np.array_equal(left.output, right.output)))
    breaks = tuple(max(coordinates(v)[0] for v in piece.cell) for piece in pieces[:-1])
    return LineRegions(
        **_common(net, exact, frame, pieces, numbers), breaks=breaks, start=ends[0], end=ends[1]
    )


def regions_in_window(
    net: Network,
    window: Sequence[Sequence[float]] = ((-1.0, 1.0), (-1.0, 1.0)),
    *,
    axes: tuple[int, int] = (0, 1),
    at: npt.ArrayLike | None = None,
    most: int = MOST_REGIONS,
) -> WindowRegions:
    """Count the linear regions of a network in a rectangle of two of its inputs, exactly.

    Parameters
    ----------
    net : Network
        Of relu, leaky_relu, step and identity units, with any skips and residual connections.
    window : two pairs of numbers, default ((-1, 1), (-1, 1))
        The range of either input.
    axes : two int, default (0, 1)
        Which inputs, from 0.
    at : array-like (d_in,), optional
        Where the other inputs are held; 0 by default.
    most : int, default 20,000
        Stop with an error beyond so many regions.

    Returns
    -------
    WindowRegions

    Raises
    ------
    SpecError
        A unit is not piecewise linear, the network has an encoding, or one input only.
    ShapeError, DataError
        The window is empty, an axis or point does not fit; too many regions.

    Notes
    -----
    Each region of layers 1 … l - 1 is cut by the zero lines of layer l's units, where they are
    straight. Corners are kept as whole numbers over a common denominator, so that no corner,
    however close to a line, ends up on the wrong side. About 10,000 regions take seconds.

    Examples
    --------
    >>> import lamina
    >>> from lamina import theory
    >>> net = lamina.Network(2, (3,), 1, rng=0)
    >>> net.weights[0], net.biases[0] = [[1, 0], [0, 1], [1, 1]], [0, 0, -0.5]
    >>> theory.regions_in_window(net).n_regions  # three lines in general position
    7
    """
    where = "regions_in_window"
    check_piecewise_linear(net, where)
    d = net.spec.d_in
    ranges = _check_window(window, where)
    i, j = _check_axes(axes, d, where)
    held = np.zeros(d) if at is None else _point(at, d, "at", where).copy()
    held[[i, j]] = 0.0
    frame = np.full((d, 3), Fraction(0), object)
    frame[:, 2] = _as_fractions(held)
    frame[i, 0] = frame[j, 1] = Fraction(1)
    (x0, x1), (y0, y1) = ranges
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    cell = [vertex([Fraction(a), Fraction(b)]) for a, b in corners]
    exact = ExactNetwork(net, frame, where)
    pieces = subdivide(exact, cell, check_count(most, "most", where), where)
    keys = [tuple(piece.output.ravel().tolist()) for piece in pieces]
    same = ((a, b) for a, b in neighbours([p.cell for p in pieces]) if keys[a] == keys[b])
    return WindowRegions(
        **_common(net, exact, frame, pieces, groups(len(pieces), same)),
        window=ranges,
        labels=(f"x{i + 1}", f"x{j + 1}"),
    )


def _common(
    net: Network, exact: ExactNetwork, frame: Array, pieces: list[Piece], numbers: list[int]
) -> dict[str, Any]:
    """What lines and windows have in common."""
    k = frame.shape[1] - 1
    scale = 2**exact.exponent
    slopes = np.array(
        [[[_rounded(v, scale) for v in row[:k]] for row in p.output.tolist()] for p in pieces]
    )
    return {
        "net": net,
        "frame": frame.astype(np.float64),
        "pieces": pieces,
        "patterns": np.frombuffer(b"".join(piece.pattern for piece in pieces), bool).reshape(
            len(pieces), -1
        ),
        "piece": np.array(numbers, np.intp),
        "slopes": slopes,
        "bounds": region_bounds(net.spec, k),
        "of": "y" if net.spec.output in ("identity", "step") else "z",
    }


def _rounded(numerator: int, denominator: int) -> float:
    """The nearest float64; infinity beyond."""
    try:
        return numerator / denominator
    except OverflowError:
        return np.inf if numerator > 0 else -np.inf


def _corners(pieces: list[Piece], k: int) -> tuple[Array, Array]:
    points = np.array(
        [[float(c) for c in coordinates(v)] for piece in pieces for v in piece.cell]
    ).reshape(-1, k)
    return points.min(axis=0), points.max(axis=0)


def _as_fractions(point: Array) -> Array:
    return np.array([*(Fraction(float(v)) for v in point), None], object)[:-1]


def _point(value: npt.ArrayLike, d: int, name: str, where: str) -> Array:
    raw = np.asarray(value)
    if raw.shape != (d,):
        raise ShapeError(
            f"{where}: expected {name} to be a point of {d} number{'s' if d > 1 else ''}, got "
            f"shape {raw.shape}. Pass one number an input."
        )
    row: Array = as_matrix(raw[np.newaxis], name, where)[0]
    return row


def _check_window(
    window: Sequence[Sequence[float]], where: str
) -> tuple[tuple[float, float], tuple[float, float]]:
    ranges = as_matrix(window, "window", where)
    if ranges.shape != (2, 2):
        raise ShapeError(
            f"{where}: expected window as two pairs of numbers, got shape {ranges.shape}. "
            "Pass, for example, ((-1, 1), (-1, 1))."
        )
    if not (ranges[:, 0] < ranges[:, 1]).all():
        raise DataError(
            f"{where}: expected a window whose ranges rise, got {ranges.tolist()}: it is empty. "
            "Pass, for example, ((-1, 1), (-1, 1))."
        )
    (x0, x1), (y0, y1) = ranges.tolist()
    return (x0, x1), (y0, y1)


def _check_axes(axes: tuple[int, int], d: int, where: str) -> tuple[int, int]:
    if d < 2:
        raise SpecError(
            f"{where}: expected a network of two inputs or more, got one. Use regions_on_line."
        )
    try:
        i, j = (check_count(axis, "each of axes", where, 0) for axis in axes)
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"{where}: expected axes as two inputs from 0 to {d - 1}, got {axes!r}. "
            "Pass, for example, (0, 1)."
        ) from error
    if i == j or max(i, j) >= d:
        raise SpecError(
            f"{where}: expected axes as two different inputs from 0 to {d - 1}, got {(i, j)}. "
            "Pass, for example, (0, 1)."
        )
    return i, j

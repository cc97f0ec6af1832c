"""What a hidden layer makes of the plane: the grid bent, and classes that a line can part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from lamina.bridges.sklearn import as_network
from lamina.core.checks import as_matrix, check_count, is_whole_number
from lamina.core.errors import SpecError
from lamina.core.functions import Float64
from lamina.core.network import Network
from lamina.theory.labels import as_labels
from lamina.theory.model_outputs import read_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHERE: Final = "hidden_space"
_STEPS: Final = 121  # points along each line of the grid


@dataclass(frozen=True, eq=False, repr=False)
class HiddenSpace:
    """Rows before and behind a hidden layer.

    Attributes
    ----------
    layer : int
    points, hidden : arrays (n, 2)
        The rows in the input plane, and what the layer makes of them: its two units, or the two
        principal directions of more.
    lines, hidden_lines : lists of arrays (n_steps, 2)
        A grid over the input plane, and what becomes of it; empty unless x has two columns.
    boundary : list of arrays (k, 2)
        Where the network's output changes sides in the input plane: pieces of lines.
    readout : (array (2,), float) or None
        w and b of the line w·h + b = 0 that the output layer draws in the hidden plane; None
        unless one output reads two units of the last hidden layer.
    labels : array (n,) or None
    explained : float
        The share of the hidden variance that the picture shows.
    """

    layer: int
    points: Float64
    hidden: Float64
    lines: list[Float64]
    hidden_lines: list[Float64]
    boundary: list[Float64]
    readout: tuple[Float64, float] | None
    labels: npt.NDArray[Any] | None
    explained: float

    def to_dict(self) -> dict[str, Any]:
        """Return the rows and the line as JSON types."""
        line = None
        if self.readout is not None:
            line = {"weights": self.readout[0].tolist(), "bias": self.readout[1]}
        return {
            "layer": self.layer,
            "points": self.points.tolist(),
            "hidden": self.hidden.tolist(),
            "readout": line,
            "labels": None if self.labels is None else self.labels.tolist(),
            "explained": self.explained,
        }

    def __repr__(self) -> str:
        return f"HiddenSpace(layer {self.layer}, {len(self.points)} rows)"

    def plot(self) -> Figure:
        """Return a figure of both planes side by side (needs matplotlib)."""
        from lamina.plots.hidden import plot_hidden

        return plot_hidden(
            self.points, self.hidden, self.lines, self.hidden_lines,
            boundary=self.boundary, readout=self.readout, labels=self.labels, layer=self.layer,
            explained=self.explained,
        )  # fmt: skip


def hidden_space(
    net: Any,
    x: npt.ArrayLike,
    y: npt.ArrayLike | None = None,
    layer: int = 1,
    *,
    n_lines: int = 13,
) -> HiddenSpace:
    """Return rows in the input plane and behind a hidden layer, to be drawn side by side.

    Parameters
    ----------
    net : Network, or a fitted MLPClassifier or MLPRegressor
        With at least one hidden layer.
    x : array-like (n, d_in), n ≥ 2, finite
        With two columns the picture holds a grid too; more are shown by their two principal
        components, on either side.
    y : array-like (n,), optional
        Classes. Two different numbers also say where a single output without a squashing unit
        changes sides: half-way.
    layer : int, default 1
        1 … L - 1.
    n_lines : int ≥ 2, default 13
        Of the grid, in each direction.

    Returns
    -------
    HiddenSpace
        With ``plot()``.

    Raises
    ------
    SpecError, ShapeError, DataError
        There is no such layer, or rows or labels do not fit.

    References
    ----------
    Goodfellow, Bengio and Courville (2016), "Deep learning", figure 6.1: the exclusive or.

    Examples
    --------
    >>> import lamina
    >>> from lamina import theory
    >>> net = lamina.Network(2, (2,), 1, rng=0)
    >>> net.weights[0], net.biases[0] = [[1, 1], [1, 1]], [0, -1]
    >>> net.weights[1] = [[1, -2]]
    >>> theory.hidden_space(net, [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]).hidden.tolist()
    [[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [2.0, 1.0]]
    """
    network = as_network(net, _WHERE)
    rows = as_matrix(x, "x", _WHERE, network.spec.d_in, min_rows=2).astype(np.float64)
    last = network.spec.n_layers - 1
    if not is_whole_number(layer) or not 1 <= int(layer) <= last:
        there = f"a hidden layer from 1 to {last}" if last else "a network with a hidden layer"
        raise SpecError(
            f"{_WHERE}: expected {there}, got layer {layer!r}. Layer {last + 1} is the output."
        )
    labels = None
    if y is not None:
        classes, codes = as_labels(y, len(rows), _WHERE)
        labels = np.asarray(classes)[codes]
    count = check_count(n_lines, "n_lines", _WHERE, 2)
    h = _through(network, rows, layer)
    centre, basis, explained = _plane(h)
    points = rows
    lines: list[Float64] = []
    boundary: list[Float64] = []
    if rows.shape[1] == 2:
        lines = _grid(rows, count)
        boundary = _boundary(network, rows, labels)
    else:
        middle, directions, _ = _plane(rows)
        points = (rows - middle) @ directions.T
    return HiddenSpace(
        layer=int(layer),
        points=points,
        hidden=(h - centre) @ basis.T,
        lines=lines,
        hidden_lines=[(_through(network, line, layer) - centre) @ basis.T for line in lines],
        boundary=boundary,
        readout=_readout(network, layer, labels),
        labels=labels,
        explained=explained,
    )


def _through(net: Network, rows: Float64, layer: int) -> Float64:
    return net.trace(rows).h[layer - 1].astype(np.float64)


def _plane(h: Float64) -> tuple[Float64, Float64, float]:
    """Return a centre, two directions (2, d), and the share of variance they show."""
    d = h.shape[1]
    if d <= 2:
        return np.zeros(d), np.eye(2, d), 1.0
    centre = h.mean(axis=0)
    _, s, vt = np.linalg.svd(h - centre, full_matrices=True)
    total = float((s**2).sum())
    basis = vt[:2] * np.where(vt[:2].sum(axis=1, keepdims=True) < 0, -1.0, 1.0)  # one of two signs
    return centre, basis, float((s[:2] ** 2).sum()) / total if total else 1.0


def _window(rows: Float64) -> tuple[Float64, Float64]:
    low, high = rows.min(axis=0), rows.max(axis=0)
    room = np.where(high > low, 0.15 * (high - low), 1.0)
    return low - room, high + room


def _grid(rows: Float64, count: int) -> list[Float64]:
    """Return lines across the rows' window, first those of constant x1, then of constant x2."""
    low, high = _window(rows)
    lines = []
    for fixed in (0, 1):
        along = np.linspace(low[1 - fixed], high[1 - fixed], _STEPS)
        for value in np.linspace(low[fixed], high[fixed], count):
            line = np.empty((_STEPS, 2))
            line[:, fixed], line[:, 1 - fixed] = value, along
            lines.append(line)
    return lines


def _boundary(net: Network, rows: Float64, labels: npt.NDArray[Any] | None) -> list[Float64]:
    """Return pieces of the level line of a single output, interpolated on a fine grid."""
    if net.spec.d_out > 2 or (net.spec.d_out == 2 and net.spec.output != "softmax"):
        return []
    reader = read_model(net, None, labels, _WHERE)
    if reader.level is None:
        return []
    low, high = _window(rows)
    u, v = (np.linspace(a, b, 161) for a, b in zip(low, high, strict=True))
    mesh = np.stack([m.ravel() for m in np.meshgrid(u, v)], axis=1)
    values = reader.read(mesh).reshape(len(v), len(u)) - reader.level
    return _level_pieces(u, v, values)


def _level_pieces(u: Float64, v: Float64, values: Float64) -> list[Float64]:
    """Return the zero line of values (n_v, n_u), a piece in each triangle that it crosses."""
    place = np.stack(np.meshgrid(u, v), axis=-1)  # (n_v, n_u, 2)
    corners = (values[:-1, :-1], values[:-1, 1:], values[1:, 1:], values[1:, :-1])
    places = (place[:-1, :-1], place[:-1, 1:], place[1:, 1:], place[1:, :-1])
    pieces: list[Float64] = []
    for triangle in ((0, 1, 2), (0, 2, 3)):
        at = np.stack([corners[k].ravel() for k in triangle])  # (3, n)
        where = np.stack([places[k].reshape(-1, 2) for k in triangle])  # (3, n, 2)
        above = at > 0
        for i in np.flatnonzero(above.any(axis=0) & ~above.all(axis=0)):
            ends = [
                where[a, i] + at[a, i] / (at[a, i] - at[b, i]) * (where[b, i] - where[a, i])
                for a, b in ((0, 1), (1, 2), (2, 0))
                if above[a, i] != above[b, i]
            ]
            pieces.append(np.stack(ends))
    return pieces


def _readout(
    net: Network, layer: int, labels: npt.NDArray[Any] | None
) -> tuple[Float64, float] | None:
    """Return the line of the output layer in the plane of two units."""
    spec = net.spec
    alone = spec.sources(spec.n_layers) == (layer,) and spec.layer_dims[layer] == 2
    if not alone or spec.d_out > 2 or (spec.d_out == 2 and spec.output != "softmax"):
        return None
    weight, bias = (np.asarray(p[-1], np.float64) for p in (net.weights, net.biases))
    if spec.d_out == 2:  # where both classes are as probable
        return weight[1] - weight[0], float(bias[1] - bias[0])
    level = {"sigmoid": 0.0, "step": 0.0}.get(spec.output)
    if level is None and spec.output == "identity":
        level = read_model(net, None, labels, _WHERE).level
    return None if level is None else (weight[0], float(bias[0]) - level)

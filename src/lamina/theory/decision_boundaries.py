"""Where a model decides: along one column, over two, or over a plane through many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.checks import as_matrix, check_count, is_whole_number, shape_of
from lamina.core.errors import ShapeError, SpecError
from lamina.core.functions import Float64
from lamina.core.network import Network
from lamina.theory.model_outputs import Reader, read_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHERE: Final = "decision_boundary"
_ROOM: Final = 0.12  # shown beyond the rows, of their range


@dataclass(frozen=True, eq=False, repr=False)
class DecisionBoundary:
    """A model's values on a line or a plane.

    Attributes
    ----------
    kind : {"number", "probability", "classes"}
        What values are; of classes, their places in `classes`.
    classes : tuple
        As the model or y has them; may be empty.
    level : float or None
        The value at which the model changes sides.
    axes : list of arrays
        One or two, rising: where along each axis values were taken.
    names : tuple of str
        Of the axes.
    values : array (n_0,) or (n_1, n_0)
        ``values[j, i]`` is at (axes[0][i], axes[1][j]).
    points : array (n, 1 or 2)
        The rows on these axes.
    labels : array (n,) or None
        y.
    held : str
        What the other columns are, in words; empty if there are none.
    """

    kind: str
    classes: tuple[Any, ...]
    level: float | None
    axes: list[Float64]
    names: tuple[str, ...]
    values: Float64
    points: Float64
    labels: npt.NDArray[Any] | None
    held: str

    @property
    def crossings(self) -> Float64:
        """Of a line: where the value crosses the level, interpolated between grid points."""
        if len(self.axes) != 1 or self.level is None:
            return np.array([])
        u, off = self.axes[0], self.values - self.level
        turns = np.flatnonzero((off[:-1] > 0) != (off[1:] > 0))
        share = off[turns] / (off[turns] - off[turns + 1])
        return np.asarray(u[turns] + share * (u[turns + 1] - u[turns]))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON types."""
        return {
            "kind": self.kind,
            "classes": [str(c) for c in self.classes],
            "level": self.level,
            "axes": [axis.tolist() for axis in self.axes],
            "names": list(self.names),
            "values": self.values.tolist(),
            "points": self.points.tolist(),
            "labels": None if self.labels is None else self.labels.tolist(),
            "held": self.held,
        }

    def __repr__(self) -> str:
        size = " x ".join(str(len(axis)) for axis in self.axes)
        return f"DecisionBoundary({self.kind} over {', '.join(self.names)}: {size} values)"

    def plot(self) -> Figure:
        """Return a figure of values, boundary and rows (needs matplotlib)."""
        from lamina.plots.boundary import plot_line, plot_plane

        options: dict[str, Any] = {
            "kind": self.kind,
            "level": self.level,
            "labels": self.labels,
            "classes": self.classes,
            "held": self.held,
        }
        if len(self.axes) == 1:
            return plot_line(
                self.axes[0], self.values, self.points[:, 0], self.names[0], **options,
                crossings=self.crossings,
            )  # fmt: skip
        return plot_plane(
            self.axes[0], self.axes[1], self.values, self.points, self.names, **options
        )


def decision_boundary(
    model: Any,
    x: npt.ArrayLike,
    y: npt.ArrayLike | None = None,
    *,
    columns: int | tuple[int, ...] | str | None = None,
    output: int | None = None,
    names: Sequence[str] | None = None,
    resolution: int = 200,
) -> DecisionBoundary:
    """Return what a model says along a line or over a plane, to be drawn.

    Parameters
    ----------
    model : Network, estimator with ``predict``, or function of rows
        Classes are drawn as areas, a probability or a number as a landscape with its level.
    x : array-like (n, d), n ≥ 1, finite
        Rows, which decide what part is shown.
    y : array-like (n,), optional
        Their labels or numbers, for the picture.
    columns : int, tuple of one or two int, or "pca", optional
        The axes; other columns are held at their medians. "pca": the plane through the mean along
        the two directions in which the rows vary most, onto which the rows are projected. None:
        all columns of one or two, else "pca".
    output : int, optional
        Which of several outputs. None: the class, where outputs are classes; else the first.
    names : sequence of d str, optional
        Of the columns; None: x1, x2, …, as in formulas.
    resolution : int ≥ 2, default 200
        Values along each axis.

    Returns
    -------
    DecisionBoundary
        With ``plot()``, and ``crossings`` of a line.

    Raises
    ------
    SpecError, ShapeError, DataError
        The model or a column is none, or the rows do not fit.

    Examples
    --------
    >>> import lamina
    >>> from lamina import theory
    >>> net = lamina.Network(1, (), 1, output="sigmoid", rng=0)
    >>> net.weights[0], net.biases[0] = [[2.0]], [-1.0]
    >>> theory.decision_boundary(net, [[0.0], [1.0]]).crossings.round(3).tolist()
    [0.5]
    """
    d = model.spec.d_in if isinstance(model, Network) else getattr(model, "n_features_in_", None)
    rows = as_matrix(x, "x", _WHERE, d, min_rows=1).astype(np.float64)
    labels = None if y is None else _labels(y, len(rows))
    reader = read_model(model, output, labels, _WHERE)
    count = check_count(resolution, "resolution", _WHERE, 2)
    called = _names(names, rows.shape[1])
    if columns is None and rows.shape[1] > 2:
        columns = "pca"
    if isinstance(columns, str):
        centre, basis, shown, held = _principal(rows, columns)
    else:
        centre, basis, shown, held = _chosen(rows, columns, called)
    points = (rows - centre) @ basis.T  # (n, 1 or 2)
    if not isinstance(columns, str):
        points = rows[:, _indices(columns, rows.shape[1])]
    axes = [_axis(points[:, k], count) for k in range(points.shape[1])]
    values = _values(reader, centre, basis, axes)
    classes = reader.classes or _classes(labels, reader.kind, values)
    return DecisionBoundary(
        reader.kind, classes, reader.level, axes, shown, values, points, labels, held
    )


def _values(reader: Reader, centre: Float64, basis: Float64, axes: list[Float64]) -> Float64:
    """Read the model at ``centre + sum of axis times direction``, some thousand rows at a time."""
    mesh = np.meshgrid(*axes, indexing="xy")  # (n_1, n_0) each, or (n_0,)
    places = np.stack([m.ravel() for m in mesh], axis=1)
    found = [
        reader.read(centre + part @ basis)
        for part in np.array_split(places, max(1, len(places) // 8192))
    ]
    return np.concatenate(found).reshape(mesh[0].shape)


def _chosen(
    rows: Float64, columns: int | tuple[int, ...] | None, names: tuple[str, ...]
) -> tuple[Float64, Float64, tuple[str, ...], str]:
    """Return a centre that is 0 on the axes and the median elsewhere, and the axes' directions."""
    chosen = _indices(columns, rows.shape[1])
    basis = np.zeros((len(chosen), rows.shape[1]))
    basis[np.arange(len(chosen)), chosen] = 1.0
    centre = np.median(rows, axis=0)
    centre[chosen] = 0.0
    others = rows.shape[1] - len(chosen)
    held = f"{others} other column{'s' if others > 1 else ''} at the median" if others else ""
    return centre, basis, tuple(names[j] for j in chosen), held


def _indices(columns: int | tuple[int, ...] | None, d: int) -> list[int]:
    given: list[Any] = list(range(d)) if columns is None else list(np.atleast_1d(columns).tolist())
    whole = all(is_whole_number(j) and 0 <= int(j) < d for j in given)
    if not whole or len(given) not in (1, 2) or len(set(given)) != len(given):
        raise SpecError(
            f"{_WHERE}: expected columns as one or two different ones from 0 to {d - 1}, or 'pca', "
            f"got {columns!r}. Pass for example columns=(0, 1)."
        )
    return [int(j) for j in given]


def _principal(rows: Float64, word: str) -> tuple[Float64, Float64, tuple[str, ...], str]:
    """Return the mean and the two directions of most variance."""
    if word != "pca" or rows.shape[1] < 2:
        expected = "'pca', or indices" if rows.shape[1] > 1 else "0, the only column there is"
        raise SpecError(f"{_WHERE}: expected columns {expected}, got {word!r}. Pass one of these.")
    centre = rows.mean(axis=0)
    _, s, vt = np.linalg.svd(rows - centre, full_matrices=True)
    total = float((s**2).sum())
    share = float((s[:2] ** 2).sum()) / total if total else 1.0
    basis = vt[:2] * np.where(vt[:2].sum(axis=1, keepdims=True) < 0, -1.0, 1.0)  # one of two signs
    names = ("first principal component", "second principal component")
    return centre, basis, names, f"plane through the mean, {share:.0%} of the variance"


def _axis(values: Float64, count: int) -> Float64:
    low, high = float(values.min()), float(values.max())
    room = _ROOM * (high - low) if high > low else 1.0
    return np.linspace(low - room, high + room, count)


def _labels(y: npt.ArrayLike, n: int) -> npt.NDArray[Any]:
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (n,):
        raise ShapeError(
            f"{_WHERE}: expected y of shape ({n},), got {shape_of(y)}. "
            "Pass one label for each row of x."
        )
    return labels


def _names(names: Sequence[str] | None, d: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"x{j + 1}" for j in range(d))
    if isinstance(names, str) or len(names) != d:
        got = repr(names) if isinstance(names, str) else f"{len(names)}"
        raise ShapeError(
            f"{_WHERE}: expected {d} names, one a column, got {got}. Pass a list of them."
        )
    return tuple(str(name) for name in names)


def _classes(labels: npt.NDArray[Any] | None, kind: str, values: Float64) -> tuple[Any, ...]:
    """Return classes where the model does not know them."""
    if labels is not None and kind != "number":
        found = tuple(sorted(set(labels.tolist()), key=str))
        if kind == "probability" and len(found) == 2:
            return found
        if kind == "classes" and all(is_whole_number(c) for c in found):
            return tuple(range(int(max(values.max(), *found)) + 1))
    if kind == "classes":
        return tuple(range(int(values.max()) + 1))
    return ()

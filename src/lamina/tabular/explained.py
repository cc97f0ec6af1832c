"""What `explain` returns: arrays with names, printable, plottable, and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import SpecError
from lamina.tabular.mixing import Floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What a loss is called where people read it.
LOSS_NAMES = {
    "log_loss": "log loss",
    "error_rate": "error rate",
    "squared_error": "squared error",
    "absolute_error": "absolute error",
}


@dataclass(frozen=True, eq=False, repr=False)
class Importance:
    """How much worse the predictions get when one column's values are shuffled among the rows.

    Attributes
    ----------
    columns : tuple of str
        The table's columns that the model reads, in the table's order.
    scoring : {"log_loss", "error_rate", "squared_error", "absolute_error"}
    baseline : float
        The mean loss with no column shuffled.
    each : (n_columns, n_repeats) float64
        The rise of the mean loss by each shuffle. Near 0: not needed, given the other columns.
    n_rows : int
        Rows scored.
    """

    columns: tuple[str, ...]
    scoring: str
    baseline: float
    each: Floats
    n_rows: int

    @property
    def mean(self) -> Floats:
        """The mean rise, (n_columns,)."""
        return np.asarray(self.each.mean(axis=1))

    @property
    def spread(self) -> Floats:
        """The standard deviation over shuffles, (n_columns,); NaN for a single one."""
        if self.each.shape[1] < 2:
            return np.full(len(self.each), np.nan)
        return np.asarray(self.each.std(axis=1, ddof=1))

    @property
    def order(self) -> NDArray[np.intp]:
        """The columns' indices, the most important first."""
        return np.argsort(-self.mean, kind="stable")

    def __repr__(self) -> str:
        first = ", ".join(f"{self.columns[j]!r}: {self.mean[j]:.3g}" for j in self.order[:3])
        more = ", …" if len(self.columns) > 3 else ""
        return f"Importance(rise of {LOSS_NAMES[self.scoring]} {self.baseline:.4g}: {first}{more})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, the most important column first."""
        return {
            "kind": "importance",
            "scoring": self.scoring,
            "baseline": self.baseline,
            "n_rows": self.n_rows,
            "columns": [
                {
                    "column": self.columns[j],
                    "mean": float(self.mean[j]),
                    "spread": float(self.spread[j]),
                    "each": self.each[j].tolist(),
                }
                for j in self.order
            ],
        }

    def plot(self, most: int = 20) -> Figure:
        """Return a figure of the ``most`` important columns."""
        from lamina.plots.explanations import plot_importances

        return plot_importances(
            self.columns, self.mean, self.spread, loss=LOSS_NAMES[self.scoring], most=most
        )


@dataclass(frozen=True, eq=False, repr=False)
class Dependence:
    """The mean prediction when one or two columns are set to a value in every row.

    Attributes
    ----------
    columns : tuple of one or two str
    grids : tuple of arrays
        The values set: float64 at quantiles, datetime64[s] at quantiles, or str levels, the most
        frequent first ("missing" is one where values are missing).
    outputs : tuple of str
        The classes, labels or targets predicted.
    mean : (n_grid, n_outputs) or (n_grid_0, n_grid_1, n_outputs) float64
    individual : (n_rows, n_grid, n_outputs) float64 or None
        The curve of each row, where asked for.
    n_rows : int
        Rows averaged over.
    unit : {"probability", "prediction"}
        What the outputs are.
    """

    columns: tuple[str, ...]
    grids: tuple[NDArray[Any], ...]
    outputs: tuple[str, ...]
    mean: Floats
    individual: Floats | None
    n_rows: int
    unit: str

    def __repr__(self) -> str:
        sizes = " × ".join(str(len(grid)) for grid in self.grids)
        low, high = float(self.mean.min()), float(self.mean.max())
        return f"Dependence(on {self.columns}, {sizes} values: {low:.4g} to {high:.4g})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers; dates as ISO text."""
        grids = [grid.astype(str) if grid.dtype.kind == "M" else grid for grid in self.grids]
        return {
            "kind": "dependence",
            "columns": list(self.columns),
            "grids": [grid.tolist() for grid in grids],
            "unit": self.unit,
            "outputs": list(self.outputs),
            "mean": self.mean.tolist(),
            "individual": None if self.individual is None else self.individual.tolist(),
            "n_rows": self.n_rows,
        }

    def plot(self, output: int | str | None = None) -> Figure:
        """Return a figure for one of `outputs`, by index or name; the last by default.

        Of two classes the last is the positive one.
        """
        from lamina.plots.dependence import plot_dependence, plot_dependence_map

        k = _output_index(self.outputs, output, len(self.outputs) - 1, "Dependence.plot")
        label = _output_label(self.outputs, k, self.unit)
        if len(self.columns) == 2:
            return plot_dependence_map(self.columns, self.grids, self.mean[..., k], output=label)
        rows = None if self.individual is None else self.individual[..., k]
        return plot_dependence(
            self.columns[0], self.grids[0], self.mean[..., k], rows, output=label
        )


@dataclass(frozen=True, eq=False, repr=False)
class Attributions:
    """What each column adds to each row's prediction: Shapley values.

    ::

        values[i].sum(axis=0) = prediction[i] - baseline

    Attributes
    ----------
    columns : tuple of str
        The table's columns that the model reads, in the table's order.
    outputs : tuple of str
        The classes, labels or targets predicted.
    values : (n, n_columns, n_outputs) float64
        In the unit of the prediction: probability, or the target's own.
    baseline : (n_outputs,) float64
        The mean prediction of the background rows.
    prediction : (n, n_outputs) float64
    error : (n, n_columns, n_outputs) float64
        Standard error of the sampling of orders; 0 where `exact`.
    exact : bool
        Whether every set of columns was evaluated.
    cells : tuple of n tuples of n_columns str
        The rows' values, as people read them.
    unit : {"probability", "prediction"}
        What the outputs are.
    """

    columns: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Floats
    baseline: Floats
    prediction: Floats
    error: Floats
    exact: bool
    cells: tuple[tuple[str, ...], ...]
    unit: str

    def __repr__(self) -> str:
        n, n_columns, _ = self.values.shape
        how = "exact" if self.exact or not n else f"error up to {np.nanmax(self.error):.2g}"
        return f"Attributions({n} rows, {n_columns} columns, outputs {self.outputs}, {how})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        return {
            "kind": "attributions",
            "columns": list(self.columns),
            "unit": self.unit,
            "outputs": list(self.outputs),
            "baseline": self.baseline.tolist(),
            "prediction": self.prediction.tolist(),
            "values": self.values.tolist(),
            "error": self.error.tolist(),
            "exact": self.exact,
            "cells": [list(row) for row in self.cells],
        }

    def plot(self, row: int = 0, output: int | str | None = None, most: int = 12) -> Figure:
        """Return a figure of one row: from the baseline to the prediction, column by column.

        Parameters
        ----------
        row : int
        output : int or str, optional
            One of `outputs`, by index or name. By default the most probable class, of two classes
            the last, of several targets the first.
        most : int
            Columns shown; the others are one bar together.
        """
        from lamina.plots.explanations import plot_attributions

        n = len(self.values)
        if not -n <= row < n:
            raise SpecError(
                f"Attributions.plot: expected a row from 0 to {n - 1}, got {row}. Pass another."
            )
        default = 0
        if self.unit == "probability":
            default = 1 if len(self.outputs) == 2 else int(np.argmax(self.prediction[row]))
        k = _output_index(self.outputs, output, default, "Attributions.plot")
        return plot_attributions(
            self.columns,
            self.cells[row],
            self.values[row, :, k],
            float(self.baseline[k]),
            float(self.prediction[row, k]),
            output=_output_label(self.outputs, k, self.unit),
            most=most,
        )


Explanation = Importance | Dependence | Attributions


def _output_index(
    outputs: tuple[str, ...], output: int | str | None, default: int, where: str
) -> int:
    """Return the index of one of the outputs, given by index or name."""
    if output is None:
        return default
    if isinstance(output, str) and output in outputs:
        return outputs.index(output)
    if not isinstance(output, str | bool) and -len(outputs) <= output < len(outputs):
        return int(output) % len(outputs)
    raise SpecError(
        f"{where}: expected output to be one of {', '.join(map(repr, outputs))}, or an index, "
        f"got {output!r:.80}. Pass one of these."
    )


def _output_label(outputs: tuple[str, ...], k: int, unit: str) -> str:
    """Return what an axis calls an output."""
    return unit if len(outputs) == 1 else f"{unit} of {outputs[k]}"

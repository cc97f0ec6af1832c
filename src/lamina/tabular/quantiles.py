"""Quantiles of a number's distribution, row by row: a second, small ensemble on the residuals.

The first ensemble predicts; this one says how far off it will be. Its networks read the row and
the prediction, and learn quantiles of the residuals that members made on rows they had not seen
(the pinball loss at `LEVELS`), in folds of their own. Their quantiles out of fold calibrate them,
see `conformal`. Chosen by benchmarks/intervals.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.column_embeddings import ColumnEmbeddings
from lamina.core.ensemble import Ensemble
from lamina.core.errors import ModelFileError
from lamina.core.losses import Pinball
from lamina.core.many import train_many
from lamina.core.network import Network
from lamina.core.optim import AdamW
from lamina.core.schedules import cosine
from lamina.tabular.conformal import Calibration, Curves, fresh_scale
from lamina.tabular.inputs import NumberInput
from lamina.tabular.learner import make_folds, out_of_fold
from lamina.tabular.recipe import Recipe

Array = NDArray[Any]
Floats = NDArray[np.float64]

LEVELS: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.975, 0.99)
# Fewer epochs than a mean needs and no early stopping: the rows of a fold choose nothing, so that
# their quantiles are as good as a fresh row's.
RECIPE: Final = Recipe(
    widths=(64, 64),
    dropout=0.1,
    n_features=8,
    lr=5e-3,
    n_folds=4,
    least_members=4,
    n_seen=120_000,
    least_epochs=1,
    most_epochs=12,
)
N_REPEATS: Final = 2  # a row's quantiles out of fold are the mean of so many, nearer to all's
MOST_ROWS: Final = 1 << 17  # more say little about a spread
SHARED: Final = 0.02  # of all rows, for their value of y to be one that rows share
HAIR: Final = 1e-9  # standard deviations of y: less than that apart is the same value
MOSTLY: Final = 0.1  # of all rows, for ends of intervals near their value to be put onto it
LEAST_BEYOND: Final = 50  # rows expected beyond a quantile for the range of y to bound it


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """What the members of the first ensemble say of rows, in units of `NumberHead`'s y.

    Parameters
    ----------
    predicted : (n, n_targets)
        By the members that did not see the row.
    residual : (n, n_targets)
        y minus that.
    spread : (n, n_targets)
        The variance of all members' outputs.
    n_held, n_members : int
        How many did not see a row, of how many.
    excess : float ≥ 0
        See `conformal.selection_excess`.
    """

    predicted: Floats
    residual: Floats
    spread: Floats
    n_held: int
    n_members: int
    excess: float

    def fresh_residual(self, target: int, widths: Floats) -> Floats:
        """Return residuals (n,) as those of fresh rows are, given each row's own unit (n,).

        Where many rows share one value of y, such as no cost, it is the prediction alone that is
        off, and y does not come nearer to it as members are averaged: those residuals stay.
        """
        residual = self.residual[:, target]
        scale = fresh_scale(
            residual / widths,
            self.spread[:, target] / widths**2,
            self.excess,
            self.n_held,
            self.n_members,
        )
        alike = rows_alike(self.predicted[:, target] + residual)
        shared = alike >= max(SHARED * len(alike), 2)
        return residual * np.where(shared, max(scale, 1.0), scale)


@dataclass(frozen=True, eq=False)
class Quantiles:
    """Quantiles of targets given a row, in units of `NumberHead`'s y.

    Parameters
    ----------
    ensemble : Ensemble
        From x and the predictions' columns to quantiles (n, n_targets * n_levels), of residuals
        over `scale`.
    columns : tuple of NumberInput
        How each target's prediction becomes a column of x.
    scale : (n_targets,) float64
    calibrations : tuple of Calibration
        One a target.
    n_rows : int
        How many calibrated it.
    shared : (n_targets, 3) float64
        A value of y that many rows share, and how far above and below it an end of an interval
        may lie and still mean it; zeros where there is none. See `shared_value`.
    levels : tuple of float, increasing
        What the networks were trained for.
    """

    ensemble: Ensemble
    columns: tuple[NumberInput, ...]
    scale: Floats
    calibrations: tuple[Calibration, ...]
    n_rows: int
    shared: Floats
    levels: tuple[float, ...] = LEVELS

    def predict(self, x: Array, predicted: Floats, levels: Sequence[float]) -> Floats:
        """Return quantiles (n, n_targets, n_levels) for rows x and their predictions."""
        output = self.ensemble(with_predictions(x, predicted, self.columns))
        found = np.empty((len(x), len(self.scale), len(levels)))
        for t, calibration in enumerate(self.calibrations):
            curves = curves_of(output, t, self.levels)
            for i, level in enumerate(levels):
                residual = self.scale[t] * curves.at(calibration(level))
                found[:, t, i] = snapped(predicted[:, t] + residual, level, self.shared[t])
        return found

    def is_bounded(self, level: float) -> tuple[bool, bool]:
        """Return whether so many rows know a lower and an upper bound of y for a level."""
        below, above = self.n_rows * level, self.n_rows * (1.0 - level)
        return below >= LEAST_BEYOND, above >= LEAST_BEYOND

    def reads(self, cells: tuple[int, ...], n_targets: int) -> bool:
        """Return whether it goes with columns of x and so many targets."""
        encoding = self.ensemble.spec.encoding
        if not isinstance(encoding, ColumnEmbeddings) or n_targets != len(self.scale):
            return False
        added = (c for column in self.columns for c in column.cells)
        return encoding.cells == (*cells, *added)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes, with the arrays of `arrays`."""
        return {
            "network": self.ensemble.spec.to_json(),
            "n_members": len(self.ensemble),
            "n_rows": self.n_rows,
            "levels": list(self.levels),
            "n_knots": [len(column.knots) for column in self.columns],
            "n_places": [len(calibration.asked) for calibration in self.calibrations],
        }

    def arrays(self) -> dict[str, Array]:
        """Return all numbers but those of `to_json`."""
        places = [np.stack([c.asked, c.read]) for c in self.calibrations]
        return {
            "quantiles.theta": np.stack([net.theta for net in self.ensemble]),
            "quantiles.scale": self.scale,
            "quantiles.shared": self.shared.ravel(),
            "quantiles.knots": np.concatenate([column.knots for column in self.columns]),
            "quantiles.places": np.concatenate(places, axis=1),
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any], arrays: Mapping[str, Array]) -> Quantiles:
        """Rebuild; `ModelFileError` if it makes no sense."""
        try:
            return cls._rebuild(state, arrays)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"load: expected the quantiles of a table model, got {error!s:.80}. "
                "The file is damaged; fit the model again."
            ) from error

    @classmethod
    def _rebuild(cls, state: Mapping[str, Any], arrays: Mapping[str, Array]) -> Quantiles:
        parts = {"network": state["network"], "n_members": state["n_members"]}
        ensemble = Ensemble.from_file_parts(parts, {"theta": arrays["quantiles.theta"]})
        scale, places = arrays["quantiles.scale"], arrays["quantiles.places"]
        knots = arrays["quantiles.knots"]
        # Files of 0.1's first days know of no shared values
        shared = arrays.get("quantiles.shared", np.zeros(3 * len(scale)))
        for numbers, n_dims in ((scale, 1), (places, 2), (knots, 1), (shared, 1)):
            _require(numbers.dtype == np.float64 and numbers.ndim == n_dims, "arrays of its form")
            _require(bool(np.isfinite(numbers).all()), "finite numbers")
        levels = tuple(map(float, state["levels"]))
        _require(len(levels) >= 3 and len(set(levels)) == len(levels), "several levels")
        _require(levels == tuple(sorted(levels)) and 0 < levels[0] < 0.5 < levels[-1] < 1, "levels")
        _require(ensemble.spec.d_out == len(scale) * len(levels), "an output a level")
        _require(bool((scale > 0).all()), "positive scales")
        _require(len(shared) == 3 * len(scale), "a shared value a target")
        shared = shared.reshape(-1, 3)
        _require(bool((shared[:, 1:] >= 0).all()), "distances")
        _require(type(state["n_rows"]) is int and state["n_rows"] > 0, "a number of rows")
        _require(len(places) == 2, "places")
        columns = tuple(
            NumberInput("prediction", "", own, 0.0, False)
            for own in _split(knots, state["n_knots"], len(scale), 2)
        )
        calibrations = tuple(
            Calibration(*own.T) for own in _split(places.T, state["n_places"], len(scale), 1)
        )
        for column in columns:
            _require(bool((np.diff(column.knots) > 0).all()), "increasing knots")
        for calibration in calibrations:
            _require(bool((np.diff(calibration.asked) > 0).all()), "increasing levels")
            _require(bool((np.diff(calibration.read) >= 0).all()), "levels in order")
        return cls(ensemble, columns, scale, calibrations, state["n_rows"], shared, levels)


def learn_quantiles(
    x: Array,
    rows: OutOfFold,
    cells: tuple[int, ...],
    *,
    sample_weight: Array | None = None,
    rng: np.random.Generator,
    n_threads: int | None = None,
    max_seconds: float | None = None,
) -> Quantiles:
    """Learn quantiles of residuals, and calibrate them on rows out of fold.

    Parameters
    ----------
    x : (n, d_in) float32
    rows : OutOfFold
    cells : tuple of int
        Of x, as `ColumnEmbeddings` takes them.
    sample_weight : (n,), optional
        Positive.
    """
    residual = rows.residual
    n, n_targets = residual.shape
    columns = tuple(_prediction_column(rows.predicted[:, t]) for t in range(n_targets))
    scale = np.sqrt(np.average(residual**2, axis=0, weights=sample_weight))
    scale = np.where(scale > 0, scale, 1.0)
    y = (residual / scale).astype(np.float32)
    x = with_predictions(x, rows.predicted, columns)
    encoding = ColumnEmbeddings((*cells, *(c for p in columns for c in p.cells)), RECIPE.n_features)
    trained_on = [m for _ in range(N_REPEATS) for m in make_folds(n, RECIPE, None, None, rng)]
    start = np.quantile(residual / scale, LEVELS, axis=0).T.ravel()  # (n_targets * n_levels,)
    networks = [_network(x.shape[1], start, encoding, rng) for _ in trained_on]
    weight = None if sample_weight is None else sample_weight.astype(np.float32)
    train_many(
        networks,
        x,
        y,
        loss=Pinball(LEVELS),
        optimizer=AdamW(lr=cosine(RECIPE.lr, warmup=0.05), weight_decay=RECIPE.weight_decay),
        batch_size=RECIPE.batch_size(n),
        max_epochs=RECIPE.epochs(n),
        max_seconds=max_seconds,
        rows=trained_on,
        sample_weight=weight,
        rng=rng,
        n_threads=n_threads,
    )
    held = out_of_fold(networks, x, trained_on)
    calibrations, shared = [], np.zeros((n_targets, 3))
    for t in range(n_targets):
        curves = curves_of(held, t, LEVELS)
        fresh = rows.fresh_residual(t, scale[t] * curves.widths)
        calibrations.append(Calibration.fit(curves.place(fresh / scale[t]), sample_weight))
        ends = [
            rows.predicted[:, t] + scale[t] * curves.at(calibrations[-1](level))
            for level in (0.05, 0.95)
        ]
        shared[t] = shared_value(rows.predicted[:, t] + residual[:, t], *ends)
    return Quantiles(Ensemble(networks), columns, scale, tuple(calibrations), n, shared)


def shared_value(y: Floats, low: Floats, high: Floats) -> tuple[float, float, float]:
    """Return the value that most rows of y (n,) share, and how far ends of 90 % lie beside it.

    Where y is often exactly 0, an end of an interval is 0 too, but for the noise of what predicts
    it: half of all ends then lie just beyond it, and no moving of levels helps. The distances are
    those that all but a hundredth of the rows with that value keep to, out of fold.
    """
    alike = rows_alike(y)
    if alike.max() < max(MOSTLY * len(y), 2):
        return 0.0, 0.0, 0.0
    value = float(y[np.argmax(alike)])
    rows = np.abs(y - value) < HAIR
    above = np.quantile(np.maximum(low[rows] - value, 0.0), 0.99)
    below = np.quantile(np.maximum(value - high[rows], 0.0), 0.99)
    return value, float(above), float(below)


def snapped(quantile: Floats, level: float, shared: Floats) -> Floats:
    """Return quantiles (n,) of a level, those within noise of a shared value put onto it.

    Low ones from above and high ones from below, a hair beyond it, lest rounding on the way to y's
    unit leaves it outside: intervals only ever widen.
    """
    value, above, below = shared
    if level < 0.5 and above > 0:
        end = value - HAIR
        near = (quantile > end) & (quantile <= value + above)
    elif level > 0.5 and below > 0:
        end = value + HAIR
        near = (quantile < end) & (quantile >= value - below)
    else:
        return quantile
    return np.where(near, end, quantile)


def rows_alike(y: Floats) -> NDArray[np.int64]:
    """Return how many of y (n,), in standard deviations, are as each is, but for rounding."""
    _, which, counts = np.unique(np.round(y / HAIR), return_inverse=True, return_counts=True)
    return np.asarray(counts[which])


def _network(
    d_in: int, start: Floats, encoding: ColumnEmbeddings, rng: np.random.Generator
) -> Network:
    """Return a network that says the same quantiles of every row at first: those of all rows."""
    network = Network(
        d_in,
        RECIPE.widths,
        len(start),
        activation=RECIPE.activation,
        dropout=RECIPE.dropout,
        encoding=encoding,
        rng=rng,
    )
    network.weights[-1] = np.zeros_like(network.weights[-1])
    network.biases[-1] = start
    return network


def _prediction_column(predicted: Floats) -> NumberInput:
    """Return how predictions (n,) become a column of x."""
    found = NumberInput.fit("prediction", "", predicted)
    if found is not None:
        return replace(found, centre=0.0)
    return NumberInput("prediction", "", predicted[0] + np.array([-1.0, 1.0]), 0.0, False)


def with_predictions(
    x: Array, predicted: Floats, columns: Sequence[NumberInput]
) -> NDArray[np.float32]:
    """Return x (n, d_in + n_targets) with the predictions' columns."""
    d_in = x.shape[1]
    wider = np.empty((len(x), d_in + len(columns)), np.float32)
    wider[:, :d_in] = x
    for t, column in enumerate(columns):
        column.write(predicted[:, t], wider[:, d_in + t : d_in + t + 1])
    return wider


def curves_of(output: Array, target: int, levels: Sequence[float]) -> Curves:
    """Return one target's curves from the networks' outputs (n, n_targets * n_levels)."""
    own = slice(target * len(levels), (target + 1) * len(levels))
    return Curves.fit(np.array(levels), np.asarray(output[:, own], np.float64))


def _split(numbers: Array, counts: Sequence[int], n: int, least: int) -> list[Array]:
    """Return ``numbers`` cut into n parts of so many rows each."""
    _require(all(type(c) is int and c >= least for c in counts), "counts")
    _require(len(counts) == n and sum(counts) == len(numbers), "as many numbers as parts")
    return np.split(numbers, np.cumsum(counts)[:-1])


def _require(condition: bool, expected: str) -> None:
    if not condition:
        raise ValueError(f"not {expected}")

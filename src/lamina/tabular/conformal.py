"""Conformal calibration: what predicted quantiles must be moved by to hold on fresh rows.

Three steps, each learnt from rows that the predictor did not see:

* `fresh_scale`: residuals out of fold are those of single members whose best epoch the same rows
  chose; it says how much larger or smaller those of the whole ensemble will be.
* `Curves`: levels of a few predicted quantiles become a whole quantile function for each row, so
  that every observation has a place: the level at which its row's function passes through it.
* `Calibration`: where the places are not spread evenly, levels are moved until they are.

Coordinates of levels are v = log(q / (1 - q)), in which tails that fall exponentially are straight.

References
----------
Romano, Patterson and Candès 2019, "Conformalized quantile regression", arXiv:1905.03222;
Barber et al. 2021, "Predictive inference with the jackknife+", arXiv:1905.02928 (out-of-fold
scores); Chernozhukov, Wüthrich and Zhu 2021, "Distributional conformal prediction",
arXiv:1909.07889, algorithm 1 (levels as scores).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lamina.core.history import History

Floats = NDArray[np.float64]

MOST_KNOTS = 513  # of a calibration: more rows than that are summed up
LEAST_SLOPE = 1e-3  # of a quantile function, in standard deviations of the residuals
OUTER = float(np.log(9.0))  # the coordinate of level 0.9
CHANCE_FOLD = 32.0  # rows of a fold whose choice of an epoch is half chance; found on seven tables
# Of what squared residuals fall by in an ensemble, the share that those at an interval's ends do:
# outliers gain less. By benchmarks/intervals.py; with 1, CASP's 90 % cover 88.4 %.
OUTER_GAIN = 0.8
LEAST_SCALE = 0.5  # how much better an ensemble may claim to be than its members' residuals


def logit(levels: ArrayLike) -> Floats:
    """Return v = log(q / (1 - q))."""
    levels = np.asarray(levels, np.float64)
    return np.asarray(np.log(levels / (1.0 - levels)))


def fresh_scale(
    residual: Floats, spread: Floats, excess: float, n_held: float, n_members: int
) -> float:
    """Return what residuals out of fold are multiplied by to be like those of fresh rows.

    ::

        scale^2 = 1 + excess - g (1 / n_held - 1 / n_members) mean spread / mean residual^2

    with g = `OUTER_GAIN` and means over the four fifths of the rows of least spread; that of few
    members is least by luck too, which errs to the safe side. What follows g is what averaging
    over all members gains over averaging over `n_held`: squared errors fall by the members'
    spread, their ambiguity.

    Parameters
    ----------
    residual : (n,)
        Out of fold, each in its row's own unit.
    spread : (n,)
        The variance of the members' outputs at the rows, in the square of that unit. That most
        members learnt from a row makes it somewhat less, which errs to the safe side.
    excess : float ≥ 0
        By what share squared residuals are too small, see `selection_excess`.
    n_held : float
        Members that did not see a row.
    n_members : int

    Returns
    -------
    scale : float
        At least `LEAST_SCALE`.

    References
    ----------
    Krogh and Vedelsby 1995, "Neural network ensembles, cross validation, and active learning",
    eq. 7.
    """
    # By the four fifths of the rows on which members agree best: where tails are heavy, a few
    # others would make the mean, and 90 % of max(0, lognormal) with noise covered 77 % of fresh
    # rows, now 86 %. By half of them it is 89 %, but the intervals of diamonds then cover 92 %.
    calm = spread <= np.quantile(spread, 0.8)
    square = max(float(np.mean(residual[calm] ** 2)), np.finfo(np.float64).tiny)
    gain = (1.0 / n_held - 1.0 / n_members) * float(spread[calm].mean()) / square
    return float(np.sqrt(max(1.0 + excess - OUTER_GAIN * gain, LEAST_SCALE**2)))


def selection_excess(histories: Sequence[History], n_fold: float, least_loss: float = 0.0) -> float:
    """Return by what share the held-out loss flatters, as each fold chose its member's epoch.

    A member's loss at epochs that other members' folds chose is that of epochs chosen without its
    own rows. The others' folds may choose each its own (A), or one together (B)::

        excess = (share A + (1 - share) B - own) / (own - least_loss)
        A      = mean over k, j != k of loss_k(epoch_j)
        B      = mean over k of loss_k(epoch_-k),   epoch_-k of least mean over j != k of loss_j
        own    = mean over k of loss_k(epoch_k)
        share  = 1 / (1 + n_fold / 32)

    A is right for folds of a few rows, whose choice is chance; B for larger ones, where what tells
    epochs apart is real.

    Parameters
    ----------
    histories : sequence of History
        Of the members; those without held-out losses are left out.
    n_fold : float > 0
        Rows of a fold.
    least_loss : float
        What the best of predictions would score.

    Returns
    -------
    excess : float ≥ 0
        0 with fewer than two members to compare.
    """
    curves = [np.asarray(h.validation_loss) for h in histories if h.best_epoch is not None]
    curves = [curve for curve in curves if np.isfinite(curve).all()]
    if len(curves) < 2:
        return 0.0
    longest, k = max(map(len, curves)), len(curves)
    losses = np.stack([np.pad(c, (0, longest - len(c)), mode="edge") for c in curves])
    best = losses.min(axis=1)
    each = (losses[:, np.argmin(losses, axis=1)].sum(axis=1) - best) / (k - 1)  # (k,)
    together = losses[np.arange(k), np.argmin(losses.sum(axis=0) - losses, axis=1)]
    share = 1.0 / (1.0 + n_fold / CHANCE_FOLD)
    own = float(best.mean())
    honest = float((share * each + (1.0 - share) * together).mean())
    return (honest - own) / (own - least_loss) if own > least_loss else 0.0


@dataclass(frozen=True, eq=False)
class Curves:
    """A quantile function for each row: straight between levels in v, and beyond them.

    Beyond the outermost levels it goes on as steeply as it came from the median on average.

    Parameters
    ----------
    v : (n_levels,) increasing
        The levels' coordinates.
    values : (n, n_levels) increasing along rows
        The quantiles.
    """

    v: Floats
    values: Floats

    @classmethod
    def fit(cls, levels: Floats, quantiles: Floats) -> Curves:
        """Put quantiles (n, n_levels) of any order into order, and leave no two alike.

        Sorting never makes quantiles worse: Chernozhukov, Fernández-Val and Galichon 2010,
        "Quantile and probability curves without crossing", arXiv:0704.3649.
        """
        v = logit(levels)
        return cls(v, np.sort(quantiles, axis=1) + LEAST_SLOPE * v)

    def _slopes(self) -> tuple[Floats, Floats]:
        """Return the slopes (n,) below the first and above the last level."""
        middle = int(np.argmin(np.abs(self.v)))
        first, centre, last = self.values[:, 0], self.values[:, middle], self.values[:, -1]
        below = (centre - first) / (self.v[middle] - self.v[0])
        return below, (last - centre) / (self.v[-1] - self.v[middle])

    @property
    def widths(self) -> Floats:
        """Return how far apart the levels 0.1 and 0.9 are (n,), at least a tenth of the mean."""
        width = self.at(OUTER) - self.at(-OUTER)
        return np.asarray(np.maximum(width, 0.1 * width.mean()))

    def at(self, v: float) -> Floats:
        """Return the quantiles (n,) at one coordinate; they never fall as v grows."""
        below, above = self._slopes()
        if v < self.v[0]:
            return np.asarray(self.values[:, 0] + (v - self.v[0]) * below)
        if v > self.v[-1]:
            return np.asarray(self.values[:, -1] + (v - self.v[-1]) * above)
        k = int(np.clip(np.searchsorted(self.v, v, side="right"), 1, len(self.v) - 1))
        share = (v - self.v[k - 1]) / (self.v[k] - self.v[k - 1])
        return between(self.values[:, k - 1], self.values[:, k], share)

    def place(self, y: Floats) -> Floats:
        """Return the coordinates (n,) at which each row's function passes through y (n,)."""
        n_levels = len(self.v)
        k = np.clip((self.values <= y[:, np.newaxis]).sum(axis=1), 1, n_levels - 1)
        rows = np.arange(len(y))
        low, high = self.values[rows, k - 1], self.values[rows, k]
        place = self.v[k - 1] + (y - low) / (high - low) * (self.v[k] - self.v[k - 1])
        below, above = self._slopes()
        first, last = self.values[:, 0], self.values[:, -1]
        place = np.where(y < first, self.v[0] + (y - first) / below, place)
        return np.asarray(np.where(y > last, self.v[-1] + (y - last) / above, place))


@dataclass(frozen=True, eq=False)
class Calibration:
    """From the level that is asked for to the one at which to read the curves.

    Of n places in order, the i-th stands at level i / (n + 1): a fresh row lies below it with
    exactly that probability if rows come in no order, which is the finite-sample correction
    (1 - alpha)(1 + 1/n) of conformal prediction. Beyond the first and the last place the curves'
    own tails are believed.

    Parameters
    ----------
    asked : (k,) increasing
        Coordinates of levels.
    read : (k,) not decreasing
        Where to read the curves for them.
    """

    asked: Floats
    read: Floats

    @classmethod
    def fit(cls, places: Floats, weight: Floats | None = None) -> Calibration:
        """Learn from the places (n,) of rows out of fold, n ≥ 1; weights (n,) are positive."""
        order = np.argsort(places, kind="stable")
        w = np.ones(len(places)) if weight is None else weight[order] / weight.mean()
        asked = logit(np.cumsum(w) / (w.sum() + 1.0))
        read = places[order]
        if len(asked) > MOST_KNOTS:
            knots = np.linspace(asked[0], asked[-1], MOST_KNOTS)
            asked, read = knots, np.maximum.accumulate(np.interp(knots, asked, read))
        return cls(asked, read)

    def __call__(self, level: float) -> float:
        """Return the coordinate at which to read the curves for a level; it never falls."""
        v = float(logit(level))
        if v <= self.asked[0] or len(self.asked) == 1:
            return float(self.read[0] + (v - self.asked[0]))
        if v >= self.asked[-1]:
            return float(self.read[-1] + (v - self.asked[-1]))
        k = int(np.searchsorted(self.asked, v, side="right"))
        share = (v - self.asked[k - 1]) / (self.asked[k] - self.asked[k - 1])
        return float(between(self.read[k - 1], self.read[k], share))


def between(low: Floats, high: Floats, share: float) -> Floats:
    """Return low + share (high - low), never above high: rounding must not let levels cross."""
    return np.asarray(np.minimum(low + share * (high - low), high))

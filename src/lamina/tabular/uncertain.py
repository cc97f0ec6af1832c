"""Intervals and quantiles of a regressor's predictions: arguments checked, fit's part and reading.

`quantiles` learns them, `conformal` makes them hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from lamina.core.checks import check_number
from lamina.core.errors import SpecError
from lamina.tabular.conformal import selection_excess
from lamina.tabular.head import NumberHead
from lamina.tabular.learner import Learned
from lamina.tabular.quantiles import MOST_ROWS, OutOfFold, Quantiles, learn_quantiles
from lamina.tabular.recipe import find_recipe
from lamina.tabular.tabular_base import BaseTabular

Array = NDArray[Any]


class Uncertain(BaseTabular):
    """What a fitted regressor says of y beyond one number."""

    loss: str
    head_: NumberHead
    quantiles_: Quantiles
    _n_dims: int
    _share_of_time = 0.8  # the rest is for the quantiles

    def _learn_quantiles(
        self,
        x: Array,
        values: Array,
        learned: Learned,
        weight: Array | None,
        max_seconds: float | None,
    ) -> Quantiles:
        """Learn how far off predictions are, from the rows that their members did not see."""
        numbers = self.head_.numbers(learned.out_of_fold)
        head = self.head_
        recipe = find_recipe(self.preset, "TabularRegressor.fit").for_rows(len(x))
        rng = np.random.default_rng([self.report_.seed, 1])
        known = np.flatnonzero(np.isfinite(numbers).all(axis=1))
        kept = np.sort(rng.permutation(known)[:MOST_ROWS])
        outputs = learned.ensemble.predict_members(x[kept])
        n_held = recipe.n_repeats(len(x))
        n_fold = len(known) * n_held / len(outputs)
        excess = selection_excess(learned.histories, n_fold, head.least_loss(values[kept]))
        if self.loss == "absolute_error":
            excess = (1.0 + excess) ** 2 - 1.0
        rows = OutOfFold(
            predicted=(numbers[kept] - head.centre) / head.scale,
            residual=(values[kept] - numbers[kept]) / head.scale,
            spread=outputs.var(axis=0, ddof=1, dtype=np.float64),
            n_held=n_held,
            n_members=len(outputs),
            excess=excess,
        )
        return learn_quantiles(
            x[kept],
            rows,
            self._cells,
            sample_weight=None if weight is None else weight[kept],
            rng=rng,
            n_threads=self.n_threads,
            max_seconds=max_seconds,
        )

    def predict_interval(self, X: Any, coverage: float = 0.9) -> NDArray[np.float64]:
        """Return intervals that hold y of a fresh row with a given probability.

        They leave out as much probability below as above, and are wider where y is less certain.

        Parameters
        ----------
        X : table-like, n rows
        coverage : float in (0, 1), default 0.9
            Larger ones give intervals that contain those of smaller ones.

        Returns
        -------
        interval : ndarray (n, 2), or (n, n_targets, 2) where y had several columns
            Lower and upper end, in y's unit. With several targets each interval holds its own
            target with that probability, not all of them at once.

        Raises
        ------
        SpecError
            `coverage` is no number between 0 and 1.

        Notes
        -----
        The probability is over tables and rows: rows to come must be drawn as those of `fit` were.
        A coverage beyond what n rows can show, more than 1 - 2 / (n + 1), rests on the assumption
        that tails fall exponentially. The point of `predict` may lie outside an interval of small
        coverage where y is skewed.

        References
        ----------
        Romano, Patterson and Candès 2019, arXiv:1905.03222; Barber et al. 2021, arXiv:1905.02928.

        Examples
        --------
        >>> import lamina, numpy as np
        >>> X = {"width": np.arange(40.0), "colour": ["red", "blue"] * 20}
        >>> model = lamina.TabularRegressor(random_state=0).fit(X, np.arange(40.0))
        >>> model.predict_interval(X, coverage=0.8).shape
        (40, 2)
        """
        where = "TabularRegressor.predict_interval"
        share = check_number(coverage, "coverage", where, 0.0, 1.0, "neither")
        below = (1.0 - share) / 2.0
        above = min((1.0 + share) / 2.0, np.nextafter(1.0, 0.0))
        return self._quantiles(X, [below, float(above)], where)

    def predict_quantiles(self, X: Any, levels: Any) -> NDArray[np.float64]:
        """Return quantiles of y, row by row; those of higher levels are never lower.

        Parameters
        ----------
        X : table-like, n rows
        levels : array-like (n_levels,) of float in (0, 1)
            In any order; 0.5 is the median.

        Returns
        -------
        quantiles : ndarray (n, n_levels), or (n, n_targets, n_levels) where y had several columns
            In y's unit, in the order of `levels`.

        Raises
        ------
        SpecError
            A level is no number between 0 and 1, or there is none.

        Notes
        -----
        As for `predict_interval`, whose ends are quantiles.

        Examples
        --------
        >>> import lamina, numpy as np
        >>> X = {"width": np.arange(40.0), "colour": ["red", "blue"] * 20}
        >>> model = lamina.TabularRegressor(random_state=0).fit(X, np.arange(40.0))
        >>> q = model.predict_quantiles(X, [0.1, 0.5, 0.9])
        >>> q.shape, bool((np.diff(q, axis=1) >= 0).all())
        ((40, 3), True)
        """
        where = "TabularRegressor.predict_quantiles"
        several = np.atleast_1d(np.asarray(levels, dtype=object))
        if several.ndim != 1 or not len(several):
            raise SpecError(
                f"{where}: expected levels as a list of numbers between 0 and 1, got an array of "
                f"shape {several.shape}. Pass levels such as [0.1, 0.5, 0.9]."
            )
        checked = [check_number(q, "each level", where, 0.0, 1.0, "neither") for q in several]
        return self._quantiles(X, checked, where)

    def _quantiles(self, X: Any, levels: Sequence[float], where: str) -> NDArray[np.float64]:
        """Return quantiles (n, [n_targets,] n_levels) in y's unit."""
        check_is_fitted(self)
        if not hasattr(self, "quantiles_"):
            raise SpecError(
                f"{where}: expected a model that fit made, got one of fit_files, which learns no "
                "quantiles. Call fit with rows that memory holds."
            )
        head, found = self.head_, [np.empty((0, len(self.head_.scale), len(levels)))]
        for x, output in self._outputs(X, where):
            predicted = (head.numbers(output) - head.centre) / head.scale
            standard = self.quantiles_.predict(x, predicted, levels)
            found.append(head.centre[:, np.newaxis] + head.scale[:, np.newaxis] * standard)
        quantiles = np.concatenate(found)
        for i, level in enumerate(levels):
            has_low, has_high = self.quantiles_.is_bounded(level)
            low = head.low if has_low else np.full_like(head.low, head.least)
            high = head.high if has_high else np.full_like(head.high, np.inf)
            quantiles[..., i] = np.clip(quantiles[..., i], low, high)
        return quantiles[:, 0] if self._n_dims == 1 else quantiles

"""Feature maps: rows x turned into the values of formulas, in floats or exactly."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import as_matrix, check_count, shape_of
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.theory.evaluate import exactly, in_float64
from lamina.theory.expression import Expression, parse_expression, parse_many

_WHERE: Final = "feature_map"
_MOST_FEATURES: Final = 10_000


class FeatureMap:
    """A function from rows x (n, d) to features (n, k): one formula a feature.

    Attributes
    ----------
    expressions : tuple of Expression
    names : tuple of str
        The formulas as written.
    d_in : int
        The columns of x it needs; further ones are left aside.

    Examples
    --------
    >>> from lamina import theory
    >>> phi = theory.feature_map("x1, x2, x1*x2")
    >>> phi([[0, 0], [0, 1], [1, 0], [1, 1]]).tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    >>> from fractions import Fraction
    >>> phi([[Fraction(1, 3), Fraction(1, 2)]]).tolist()
    [[Fraction(1, 3), Fraction(1, 2), Fraction(1, 6)]]
    """

    def __init__(self, expressions: Iterable[Expression]) -> None:
        self.expressions = tuple(expressions)
        self.names = tuple(e.text for e in self.expressions)
        self.d_in = max((e.d_in for e in self.expressions), default=0)

    def __call__(self, x: object) -> NDArray[Any]:
        """Return the features of rows.

        Parameters
        ----------
        x : array-like (n, d), d ≥ d_in
            Floats, integers or booleans give float64. An array with Fraction or Decimal in it
            gives exact Fractions, in an array of objects: what ``theory.separability`` takes.

        Returns
        -------
        features : array (n, k)

        Raises
        ------
        ShapeError
            x is not 2-D or has too few columns.
        DataError
            A value is not finite, a formula is undefined at a row, or x is exact and a formula is
            not rational.
        """
        if _is_exact(x):
            return self._exact(x)
        rows = as_matrix(x, "x", _WHERE).astype(np.float64, copy=False)
        self._check_columns(rows.shape)
        features = np.empty((len(rows), len(self.expressions)))
        for k, expression in enumerate(self.expressions):
            features[:, k] = in_float64(expression, rows)
            bad = np.flatnonzero(~np.isfinite(features[:, k]))
            if len(bad):
                raise DataError(
                    f"{_WHERE}: expected {expression.text!r} to be defined at every row, got "
                    f"{features[bad[0], k]} at row {bad[0]}, x = {rows[bad[0]].tolist()}. "
                    f"Leave such rows out, or change the formula."
                )
        return features

    def _exact(self, x: object) -> NDArray[Any]:
        raw = np.asarray(x, dtype=object)
        if raw.ndim != 2:
            raise ShapeError(
                f"{_WHERE}: expected x of shape (n, d), got {shape_of(x)}. "
                f"Reshape it: one row a sample, one column a feature."
            )
        self._check_columns(raw.shape)
        features = np.empty((len(raw), len(self.expressions)), dtype=object)
        for i, row in enumerate(raw):
            numbers = [_fraction(v, i) for v in row]
            for k, expression in enumerate(self.expressions):
                features[i, k] = exactly(expression, numbers, _WHERE)
        return features

    def _check_columns(self, shape: tuple[int, ...]) -> None:
        if shape[1] < self.d_in:
            raise ShapeError(
                f"{_WHERE}: expected x of shape (n, {self.d_in}) or wider, got {shape}. "
                f"The formulas name x{self.d_in}: pass as many columns."
            )

    def __len__(self) -> int:
        return len(self.expressions)

    def __repr__(self) -> str:
        return f"feature_map({', '.join(self.names)!r})"


def feature_map(formulas: str | Iterable[str]) -> FeatureMap:
    """Make a feature map of formulas, read safely.

    Parameters
    ----------
    formulas : str or iterable of str
        ``"x1, x2, x1*x2"`` or ``["x1", "x2", "x1*x2"]``; what a formula may hold,
        ``theory.parse_expression`` says.

    Returns
    -------
    FeatureMap

    Raises
    ------
    SpecError
        A formula cannot be read; the sentence says which part.

    Examples
    --------
    >>> from lamina import theory
    >>> theory.feature_map("x1, x1**2").names
    ('x1', 'x1**2')
    """
    if isinstance(formulas, str):
        return FeatureMap(parse_many(formulas))
    if not isinstance(formulas, Iterable):
        raise SpecError(
            f"{_WHERE}: expected formulas as text, got {type(formulas).__name__}. "
            f'Pass for example "x1, x2, x1*x2".'
        )
    found = [parse_expression(formula) for formula in formulas]
    if not found:
        raise SpecError(f'{_WHERE}: expected formulas, got none. Pass for example "x1, x2, x1*x2".')
    return FeatureMap(found)


def polynomial_map(d_in: int, degree: int, *, interaction_only: bool = False) -> FeatureMap:
    """Make the map to all monomials of degree 1 to `degree` in x1 … x_d_in.

    Parameters
    ----------
    d_in : int ≥ 1
        Columns of x.
    degree : int ≥ 1
    interaction_only : bool, default False
        Leave out monomials in which a variable is squared or higher: enough for columns of 0 and 1.

    Returns
    -------
    FeatureMap
        C(d_in + degree, degree) - 1 features, by degree; the constant is left to the bias.

    Raises
    ------
    SpecError
        An argument is not as described, or there would be more than 10,000 features.

    Examples
    --------
    >>> from lamina import theory
    >>> theory.polynomial_map(2, 2).names
    ('x1', 'x2', 'x1**2', 'x1*x2', 'x2**2')
    """
    d_in = check_count(d_in, "d_in", "polynomial_map")
    degree = check_count(degree, "degree", "polynomial_map")
    choose = itertools.combinations if interaction_only else itertools.combinations_with_replacement
    monomials: list[str] = []
    for k in range(1, min(degree, d_in) + 1 if interaction_only else degree + 1):
        for columns in choose(range(1, d_in + 1), k):
            powers = Counter(columns)
            monomials.append(
                "*".join(f"x{j}" if p == 1 else f"x{j}**{p}" for j, p in powers.items())
            )
            if len(monomials) > _MOST_FEATURES:
                raise SpecError(
                    f"polynomial_map: expected at most {_MOST_FEATURES} features, got more from "
                    f"{d_in} columns and degree {degree}. Use a lower degree or fewer columns."
                )
    return FeatureMap(parse_expression(m) for m in monomials)


def _is_exact(x: object) -> bool:
    """Whether x holds fractions or decimals, whose exactness is to be kept."""
    if isinstance(x, np.ndarray):
        values: Iterable[Any] = x.ravel() if x.dtype == object else ()
    elif isinstance(x, list | tuple):
        values = itertools.chain.from_iterable(r for r in x if isinstance(r, list | tuple))
    else:
        return False
    return any(isinstance(v, Fraction | Decimal) for v in values)


def _fraction(value: Any, row: int) -> Fraction:
    try:
        return Fraction(value if isinstance(value, Fraction | Decimal | int) else float(value))
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"{_WHERE}: expected finite numbers in x, got {value!r} in row {row}. "
            f"Remove or replace such values first."
        ) from None

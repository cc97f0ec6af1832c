"""Threshold functions: which Boolean functions one unit computes, with a certificate either way."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import SpecError
from lamina.theory.boolean_parser import parse
from lamina.theory.exact_simplex import Ray, maximise
from lamina.theory.truth_table import Bits, all_inputs, as_table

Point = tuple[int, ...]
Mix = dict[Point, Fraction]

MOST_VARIABLES: Final = 12


@dataclass(frozen=True)
class ThresholdResult:
    """Whether one unit computes a Boolean function, and why.

    Attributes
    ----------
    is_threshold : bool
    weights : tuple of int or None
        f(v) = 1 exactly where ``weights @ v >= threshold``.
    threshold : int or None
    is_minimal : bool
        Whether the sum of |weights| is proved to be the smallest: no linear program has less.
    true_mix, false_mix : dict of input to Fraction
        If there are no such weights: positive shares, each summing to 1, of inputs where f is 1
        and of inputs where it is 0, whose means are the same ``point``. A unit that is on at
        every input of the first would be on at that mean, and off by the second.
    point : tuple of Fraction or None
    """

    is_threshold: bool
    weights: tuple[int, ...] | None = None
    threshold: int | None = None
    is_minimal: bool = False
    true_mix: Mix = field(default_factory=dict)
    false_mix: Mix = field(default_factory=dict)
    point: tuple[Fraction, ...] | None = None
    table: tuple[bool, ...] = field(default=(), repr=False)

    @property
    def bias(self) -> float | None:
        """Of a step unit: half a unit below the threshold, so that no sum is ever a tie."""
        return None if self.threshold is None else 0.5 - self.threshold

    def verify(self) -> bool:
        """Check the certificate against the function, with whole numbers and fractions only."""
        n = len(self.table).bit_length() - 1
        values = {tuple(row): self.table[r] for r, row in enumerate(all_inputs(n).tolist())}
        if self.weights is not None and self.threshold is not None:
            weights, threshold = self.weights, self.threshold
            return self.is_threshold and all(
                value == (sum(w * v for w, v in zip(weights, row, strict=True)) >= threshold)
                for row, value in values.items()
            )
        mixes = ((self.true_mix, True), (self.false_mix, False))
        return not self.is_threshold and all(
            sum(mix.values()) == 1
            and all(share > 0 and values[row] is side for row, share in mix.items())
            and _mean(mix) == self.point
            for mix, side in mixes
        )


def is_threshold_function(function: object) -> ThresholdResult:
    """Return whether one threshold unit computes a Boolean function, with a certificate.

    Parameters
    ----------
    function : str or array-like (2^n,)
        An expression as for `circuit`, or a truth table; at most 12 variables.

    Returns
    -------
    ThresholdResult
        Whole-number weights and a threshold, or two mixtures of inputs with the same mean.

    Raises
    ------
    SpecError, DataError
        The function cannot be read, or has too many variables.

    Notes
    -----
    A linear program over the minimal true and the maximal false inputs, in whole numbers. Its
    optimum bounds the sum of |weights| from below; where that bound is met, `is_minimal`.

    References
    ----------
    Muroga (1971), "Threshold logic and its applications"; Elgot (1961), Chow (1961): a function
    is a threshold function if and only if no such mixtures exist (asummability).

    Examples
    --------
    >>> from lamina import theory
    >>> theory.is_threshold_function("a & (b | c)").weights
    (2, 1, 1)
    >>> theory.is_threshold_function("a ^ b").true_mix
    {(0, 1): Fraction(1, 2), (1, 0): Fraction(1, 2)}
    """
    table = table_of(function, MOST_VARIABLES, "is_threshold_function")
    return _decide(table.tobytes())


def table_of(function: object, most: int, where: str) -> Bits:
    """Return the truth table (2^n,) of an expression or of a table, of at most n variables."""
    if isinstance(function, str) and not is_table_text(function):
        expression = parse(function, where)
        n = len(expression.names)
        _check_variables(n, most, where)
        return expression.evaluate(all_inputs(n).astype(bool))
    table = as_table(function, where)
    _check_variables(len(table).bit_length() - 1, most, where)
    if table.shape[1] != 1:
        raise SpecError(
            f"{where}: expected one function, got a truth table of {table.shape[1]} outputs. "
            "Pass one column at a time."
        )
    return table[:, 0]


def is_table_text(text: str) -> bool:
    """Tell a truth table such as 0110 from an expression."""
    return len(text.strip()) > 1 and set(text.strip()) <= {"0", "1"}


def _check_variables(n: int, most: int, where: str) -> None:
    if not 1 <= n <= most:
        raise SpecError(
            f"{where}: expected a function of 1 to {most} variables, got {n}: it looks at all 2^n "
            "inputs. Fix some variables, or split the function."
        )


def find_threshold(table: Bits) -> tuple[tuple[int, ...], int] | None:
    """Return weights and threshold of a truth table (2^n,), or None."""
    result = _decide(table.tobytes())
    if result.weights is None or result.threshold is None:
        return None
    return result.weights, result.threshold


@functools.lru_cache(maxsize=4096)
def _decide(key: bytes) -> ThresholdResult:
    table = np.frombuffer(key, bool)
    n = len(table).bit_length() - 1
    cube = table.reshape((2,) * n)
    signs = []  # of each variable: 1 rising, -1 falling, 0 without effect
    for i in range(n):
        low, high = cube.take(0, i), cube.take(1, i)
        rises, falls = bool((high & ~low).any()), bool((low & ~high).any())
        if rises and falls:
            return _not_unate(table, cube, i)
        signs.append(int(rises) - int(falls))
    used = [i for i in range(n) if signs[i]]
    for i in used:
        if signs[i] < 0:
            cube = np.flip(cube, i)
    positive = cube[tuple(slice(None) if signs[i] else 0 for i in range(n))].ravel()
    if not used:
        return _found(table, (0,) * n, int(not table[0]), True)
    true, false = _minimal_true(positive), ~_minimal_true(~positive[::-1])
    low_points = all_inputs(len(used))[true].astype(np.int64)
    high_points = all_inputs(len(used))[::-1][~false].astype(np.int64)
    answer = _solve(low_points, high_points)
    if isinstance(answer, Ray):
        mixes = _as_mixes(answer, low_points, high_points)
        true_mix, false_mix = (_restore(mix, used, signs, n) for mix in mixes)
        return _impossible(table, true_mix, false_mix)
    small, threshold, minimal = _whole(answer.prices, answer.value)
    weights = [0] * n
    for i, w in zip(used, small, strict=True):
        weights[i] = signs[i] * w
        threshold -= w if signs[i] < 0 else 0
    return _found(table, tuple(weights), threshold, minimal)


def _found(table: Bits, weights: Point, threshold: int, minimal: bool) -> ThresholdResult:
    return ThresholdResult(True, weights, threshold, minimal, table=tuple(table.tolist()))


def _impossible(table: Bits, true_mix: Mix, false_mix: Mix) -> ThresholdResult:
    return ThresholdResult(
        False,
        true_mix=true_mix,
        false_mix=false_mix,
        point=_mean(true_mix),
        table=tuple(table.tolist()),
    )


def _not_unate(table: Bits, cube: Bits, i: int) -> ThresholdResult:
    """Variable i raises f at one input and lowers it at another: swap it between the two."""
    low, high = cube.take(0, i), cube.take(1, i)

    def at(mask: NDArray[Any], bit: int) -> Point:
        rest = [int(v) for v in np.argwhere(mask)[0]]
        return (*rest[:i], bit, *rest[i:])

    half = Fraction(1, 2)
    rises, falls = np.asarray(high & ~low), np.asarray(low & ~high)
    true = dict.fromkeys(sorted((at(rises, 1), at(falls, 0))), half)
    false = dict.fromkeys(sorted((at(rises, 0), at(falls, 1))), half)
    return _impossible(table, true, false)


def _minimal_true(positive: Bits) -> Bits:
    """Mark the inputs where a rising function is 1, and 0 with any one bit less."""
    n = len(positive).bit_length() - 1
    minimal = positive.reshape((2,) * n).copy()
    cube = positive.reshape((2,) * n)
    for i in range(n):
        np.moveaxis(minimal, i, 0)[1] &= ~np.moveaxis(cube, i, 0)[0]
    return minimal.ravel()


def _solve(true: NDArray[np.int64], false: NDArray[np.int64]) -> Any:
    """Minimise sum w with w >= 0, w x >= T at true points, w y <= T - 1 at false ones.

    This is the dual: its prices are (w, T). Columns are shares of true and of false points.
    """
    columns = np.hstack([true.T, -false.T])  # (n, points)
    last = np.concatenate([-np.ones(len(true), np.int64), np.ones(len(false), np.int64)])
    matrix = np.vstack([columns, last])
    # w x - T >= 0 and T - w y >= 1
    objective = np.concatenate([np.zeros(len(true), np.int64), np.ones(len(false), np.int64)])
    limits = np.array([1] * true.shape[1] + [0])
    return maximise(objective, matrix, limits)


def _whole(prices: tuple[Fraction, ...], value: Fraction) -> tuple[list[int], int, bool]:
    """Return weights and threshold in whole numbers, and whether none are smaller in sum."""
    scale = math.lcm(*(p.denominator for p in prices))
    whole = [int(p * scale) for p in prices]
    return whole[:-1], whole[-1], sum(whole[:-1]) == math.ceil(value)


def _as_mixes(ray: Ray, true: NDArray[np.int64], false: NDArray[np.int64]) -> tuple[Mix, Mix]:
    """Turn the ray, sum of true <= sum of false in every variable, into mixtures of one mean.

    The function rises, so that true points may be given more ones until the means are equal.
    """
    shares = ray.x[: len(true)], ray.x[len(true) :]
    mixes: list[Mix] = []
    for points, mix in zip((true, false), shares, strict=True):
        total = sum(mix)
        mixes.append({tuple(p): s / total for p, s in zip(points.tolist(), mix, strict=True) if s})
    low, high = mixes
    for i, wanted in enumerate(_mean(high)):
        missing = wanted - _mean(low)[i]
        for point, share in sorted(low.items()):
            if missing and not point[i]:
                moved = min(share, missing)
                raised = (*point[:i], 1, *point[i + 1 :])
                low[raised] = low.get(raised, Fraction(0)) + moved
                low[point] = share - moved
                missing -= moved
        low = {p: s for p, s in low.items() if s}
    return low, high


def _restore(mix: Mix, used: list[int], signs: list[int], n: int) -> Mix:
    """Put falling variables the right way round again, and those without effect at 0."""
    result: Mix = {}
    for point, share in sorted(mix.items()):
        row = [0] * n
        for i, bit in zip(used, point, strict=True):
            row[i] = bit if signs[i] > 0 else 1 - bit
        result[tuple(row)] = share
    return result


def _mean(mix: Mix) -> tuple[Fraction, ...]:
    """The point that a mixture lies at."""
    rows = zip(*mix, strict=True)
    return tuple(
        sum((s * bit for s, bit in zip(mix.values(), row, strict=True)), Fraction(0))
        for row in rows
    )

"""Numbers as the exact values they hold: integers over one denominator a column.

A float is the binary fraction it stores, so 0.1 is 3602879701896397/2**55; an int, a Fraction or
a Decimal is itself; text is the decimal (or fraction) that it writes, so "0.1" is 1/10.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import shape_of
from lamina.core.errors import DataError, ShapeError

Integers = NDArray[np.object_]
"""An array of Python integers, which never overflow."""

# Beyond this a text such as "1e999999999" would fill the memory with zeros.
MOST_DIGITS = 5_000


class ExactVector(tuple[Fraction, ...]):
    """A vector of Fractions; NumPy sees it as an array of float64.

    Examples
    --------
    >>> from fractions import Fraction
    >>> import numpy as np
    >>> v = ExactVector([Fraction(1, 2), Fraction(1, 3)])
    >>> sum(v)
    Fraction(5, 6)
    >>> np.asarray(v).round(3).tolist()
    [0.5, 0.333]
    """

    __slots__ = ()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("ExactVector: an array of it is always a copy.")
        return np.array([to_float(v) for v in self], dtype=np.float64 if dtype is None else dtype)


@dataclass(frozen=True, eq=False)
class Points:
    """Rational points as integers: ``x[i, j] = (integers[i, j] + shift[j]) / scale[j]``.

    Parameters
    ----------
    values : array (n, d)
        The numbers as they came, of a NumPy number type or Fractions; `fraction` reads them.
    integers : object array (n, d) of int
        Moved to the middle of each column, which keeps them short.
    shift, scale : tuple of int, length d
    """

    values: NDArray[Any]
    integers: Integers
    shift: tuple[int, ...]
    scale: tuple[int, ...]

    @property
    def n(self) -> int:
        """The number of points."""
        return int(self.integers.shape[0])

    @property
    def d(self) -> int:
        """The number of coordinates."""
        return int(self.integers.shape[1])

    def take(self, rows: NDArray[Any]) -> Points:
        """Return the points of some rows, given by numbers or a mask."""
        return Points(self.values[rows], self.integers[rows], self.shift, self.scale)

    def row(self, i: int) -> list[Fraction]:
        """Return point i, read from the values as they came."""
        return [fraction(v) for v in self.values[i]]

    @cached_property
    def reach(self) -> Fraction:
        """The largest distance of a coordinate from the middle of its column; 1 if all are 0."""
        columns = zip(self.integers.T.tolist(), self.scale, strict=True)
        largest = (Fraction(max(map(abs, column), default=0), s) for column, s in columns)
        return max(largest, default=Fraction(0)) or Fraction(1)

    @cached_property
    def approximate(self) -> NDArray[np.float64]:
        """The points moved and scaled alike in every direction into [-1, 1]ᵈ, float64 (n, d)."""
        result = np.empty((self.n, self.d))
        for j, scale in enumerate(self.scale):
            up, down = self.reach.denominator, self.reach.numerator * scale
            result[:, j] = [a * up / down for a in self.integers[:, j].tolist()]
        return result

    def plane_to_integers(self, weights: Sequence[Fraction], bias: Fraction) -> list[int]:
        """Return v with the sign of ``integers[i] @ v[:-1] + v[-1]`` that of ``w·x + b``."""
        inner = [w / scale for w, scale in zip(weights, self.scale, strict=True)]
        moved = bias + sum(w * s for w, s in zip(inner, self.shift, strict=True))
        return to_integers([*inner, moved])

    def plane_from_integers(self, v: Sequence[int]) -> tuple[list[Fraction], Fraction]:
        """Return the w and b of ``x`` that belong to a vector over ``integers``."""
        bias = Fraction(v[-1]) - sum(a * s for a, s in zip(v[:-1], self.shift, strict=True))
        return [Fraction(a * s) for a, s in zip(v[:-1], self.scale, strict=True)], bias


def as_points(x: object, name: str, where: str) -> Points:
    """Return a matrix of numbers as exact `Points`.

    Parameters
    ----------
    x : array-like (n, d)
        Numbers, booleans, Fractions, Decimals, or text such as "0.1" or "1/3".
    name, where : str
        The argument and the function, for the error sentence.

    Raises
    ------
    ShapeError
        ``x`` is not 2-D.
    DataError
        A value is not a finite real number.
    """
    values = _as_array(x, name, where)
    if values.ndim != 2:
        advice = "Reshape it: one row a point, one column a coordinate."
        if values.ndim == 1:
            advice = f"Pass one row a point: {name}[:, None] if the points have one coordinate."
        raise ShapeError(f"{where}: expected {name} of shape (n, d), got {shape_of(x)}. {advice}")
    if values.dtype.kind == "f":
        _refuse_not_finite(values, name, where)
        convert: Callable[[NDArray[Any]], tuple[list[int], int]] = _float_column
    elif values.dtype.kind in "iub":
        convert = _whole_column
    else:
        values = _fractions(values, name, where)
        convert = _fraction_column
    n, d = values.shape
    integers = np.empty((n, d), dtype=object)
    shift, scale = [], []
    for j in range(d):
        column, denominator = convert(values[:, j])
        middle = (max(column) + min(column)) // 2 if column else 0
        integers[:, j] = [a - middle for a in column]
        shift.append(middle)
        scale.append(denominator)
    return Points(values, integers, tuple(shift), tuple(scale))


def fraction(value: Any) -> Fraction:
    """Return a number of Python or NumPy as the Fraction that it holds."""
    return value if isinstance(value, Fraction) else Fraction(*value.item().as_integer_ratio())


def to_float(value: Fraction) -> float:
    """Return the nearest float, infinity where the number is beyond all of them."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def root(value: Fraction) -> float:
    """Return the square root to full accuracy, also where the square is no float."""
    if value == 0:
        return 0.0
    shift = 128 - value.numerator.bit_length() + value.denominator.bit_length()
    shift += shift % 2
    scaled = value * Fraction(2) ** shift
    try:
        return math.ldexp(float(math.isqrt(int(scaled))), -shift // 2)
    except OverflowError:
        return math.inf


def to_integers(values: Sequence[Fraction | int]) -> list[int]:
    """Return the shortest integers that are a positive multiple of a rational vector."""
    common = math.lcm(*(Fraction(v).denominator for v in values))
    whole = [int(v * common) for v in values]
    divisor = math.gcd(*whole) or 1
    return [a // divisor for a in whole]


def solve(matrix: Iterable[Sequence[int]], right: Sequence[int]) -> list[Fraction] | None:
    """Solve a square system of integers exactly; None where it is singular.

    Fraction-free elimination: every division is exact, and no number is longer than a
    determinant of the system.

    Parameters
    ----------
    matrix : k rows of k integers
    right : k integers

    References
    ----------
    Bareiss 1968, "Sylvester's identity and multistep integer-preserving Gaussian elimination".

    Examples
    --------
    >>> solve([[2, 1], [1, 3]], [1, 0])
    [Fraction(3, 5), Fraction(-1, 5)]
    """
    size = len(right)
    table = np.array(
        [[*row, r] for row, r in zip(matrix, right, strict=True)], dtype=object
    ).reshape(size, size + 1)
    last = 1
    for k in range(size):
        found = next((i for i in range(k, size) if table[i, k]), None)
        if found is None:
            return None
        table[[k, found]] = table[[found, k]]
        pivot_row, pivot = table[k].copy(), table[k, k]
        table = (table * pivot - np.multiply.outer(table[:, k], pivot_row)) // last
        table[k] = pivot_row
        last = pivot
    return [Fraction(int(table[i, -1]), int(last)) for i in range(size)]


def _as_array(x: object, name: str, where: str) -> NDArray[Any]:
    """Return an array; a list keeps its integers and Fractions, which NumPy might round."""
    if x is None:
        raise DataError(f"{where}: expected {name} as a matrix of numbers, got None. Pass one.")
    try:
        values = np.asarray(x, dtype=object) if isinstance(x, list | tuple) else np.asarray(x)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: expected {name} as a matrix of numbers, got rows that NumPy makes no array "
            "of. Pass rows of equal length."
        ) from error
    if values.dtype == object and values.ndim == 1 and len(values):
        lengths = {len(row) if isinstance(row, list | tuple) else -1 for row in values}
        if len(lengths) > 1:
            raise ShapeError(
                f"{where}: expected rows of equal length in {name}, got {sorted(lengths)[:5]}. "
                "Fill up or drop the others."
            )
    if values.dtype.kind not in "fiubOUT":
        raise DataError(
            f"{where}: expected {name} as a matrix of real numbers, got dtype {values.dtype}. "
            "Convert it to numbers first."
        )
    return np.array(values)  # a copy: the proof must outlive what the caller does to x


def _refuse_not_finite(values: NDArray[Any], name: str, where: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        bad = np.argwhere(~finite)
        raise DataError(
            f"{where}: expected finite numbers in {name}, got {values[tuple(bad[0])]} at "
            f"{bad[0].tolist()} ({len(bad)} such value{'s' if len(bad) != 1 else ''}). "
            "Remove or impute such values first."
        )


def _fractions(values: NDArray[Any], name: str, where: str) -> NDArray[Any]:
    result = np.empty(values.shape, dtype=object)
    for place, value in np.ndenumerate(values):
        found = as_fraction(value)
        if found is None:
            raise DataError(
                f"{where}: expected finite numbers in {name}, got {value!r} at {list(place)}. "
                "Pass ints, floats, Fractions, Decimals or decimal text of at most "
                f"{MOST_DIGITS:,} digits; encode categories first."
            )
        result[place] = found
    return result


def as_fraction(value: object) -> Fraction | None:
    """Return any finite real number, or text of one, as a Fraction; None for what is none."""
    if isinstance(value, str):
        value = value.strip()
        if "/" in value:
            top, _, bottom = value.partition("/")
            short = len(value) <= MOST_DIGITS and top.strip("+-").isdecimal()
            good = short and bottom.isdecimal() and int(bottom) != 0
            return Fraction(int(top), int(bottom)) if good else None
        try:
            value = Decimal(value)
        except ArithmeticError:
            return None
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        n_digits = abs(value.adjusted()) + len(value.as_tuple().digits)
        return Fraction(value) if n_digits <= MOST_DIGITS else None
    if isinstance(value, bool | np.bool_):
        return Fraction(int(value))
    if isinstance(value, numbers.Rational):  # int, Fraction, NumPy's integers
        return Fraction(int(value.numerator), int(value.denominator))
    if isinstance(value, float | np.floating):
        return Fraction(*value.as_integer_ratio()) if math.isfinite(value) else None
    return None


def _float_column(column: NDArray[Any]) -> tuple[list[int], int]:
    """Return integers and their common denominator, a power of two."""
    if column.dtype.itemsize > 8:  # long double: more digits than int64 holds
        return _fraction_column(np.array([Fraction(*v.as_integer_ratio()) for v in column]))
    mantissa, exponent = np.frexp(column.astype(np.float64))
    whole = (mantissa * 2.0**53).astype(np.int64)
    lowest = np.where(whole == 0, 1, whole & -whole)  # the lowest bit that is set
    whole //= lowest
    exponent = exponent.astype(np.int64) - 53 + np.log2(lowest.astype(np.float64)).astype(np.int64)
    base = int(exponent[whole != 0].min()) if whole.any() else 0
    base = min(base, 0)
    shifts = np.where(whole == 0, 0, exponent - base)
    pairs = zip(whole.tolist(), shifts.tolist(), strict=True)
    return [a << s for a, s in pairs], 1 << -base


def _whole_column(column: NDArray[Any]) -> tuple[list[int], int]:
    return [int(a) for a in column.tolist()], 1


def _fraction_column(column: NDArray[Any]) -> tuple[list[int], int]:
    common = math.lcm(*(v.denominator for v in column)) if len(column) else 1
    return [v.numerator * (common // v.denominator) for v in column], common

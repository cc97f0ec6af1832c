"""Checks of what users pass in, made once at the edge; below it, arrays are trusted."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any, SupportsFloat, SupportsInt, TypeGuard

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lamina.core.errors import DataError, ShapeError, SpecError

Array = NDArray[np.floating[Any]]
"""An array of float32 or float64."""


def as_matrix(
    x: object,
    name: str,
    where: str,
    d: int | None = None,
    dtype: DTypeLike = np.float64,
    min_rows: int = 0,
) -> Array:
    """Return ``x`` as a C-contiguous matrix of ``dtype`` with finite values.

    Parameters
    ----------
    x : array-like, shape (n, d)
        Numbers or booleans in any memory layout; never modified, copied only where needed.
    name, where : str
        The argument and the function, for the error sentence.
    d : int, optional
        The number of columns to insist on.
    dtype : float32 or float64
        The type of the result.
    min_rows : int, default 0
        The fewest rows to accept.

    Returns
    -------
    ndarray, shape (n, d)

    Raises
    ------
    ShapeError
        If ``x`` is not 2-D, or has another number of columns or too few rows.
    DataError
        If ``x`` holds something other than finite real numbers.
    """
    raw = _as_real(x, name, where)
    columns = "d" if d is None else str(d)
    if raw.ndim != 2:
        advice = "Reshape it: one row a sample, one column a feature."
        if raw.ndim == 1:
            advice = f"Pass {name}[None, :] for one row or {name}[:, None] for one column."
        raise ShapeError(
            f"{where}: expected {name} of shape (n, {columns}), got {raw.shape}. {advice}"
        )
    if d is not None and raw.shape[1] != d:
        raise ShapeError(
            f"{where}: expected {name} of shape (n, {d}), got {raw.shape}. "
            f"Pass {name} with {d} column{'s' if d != 1 else ''}."
        )
    if raw.shape[0] < min_rows:
        raise ShapeError(
            f"{where}: expected {name} with at least {min_rows} row{'s' if min_rows != 1 else ''}, "
            f"got {raw.shape[0]}. Pass more rows."
        )
    return _as_finite(raw, name, where, dtype)


def as_target(
    y: object, n: int, d: int, where: str, dtype: DTypeLike = np.float64, name: str = "y"
) -> Array:
    """Return real-valued targets as a C-contiguous matrix of shape (n, d).

    Parameters
    ----------
    y : array-like, shape (n, d); also (n,) if d is 1
        Finite numbers.
    n, d : int
        The rows of the inputs and the outputs of the network.
    where, name : str
        The function and the argument, for the error sentence.
    dtype : float32 or float64
        The type of the result.

    Returns
    -------
    ndarray, shape (n, d)

    Raises
    ------
    ShapeError, DataError
        If the shape is another one, or a value is not a finite number.
    """
    raw = _as_real(y, name, where)
    if raw.ndim == 1 and d == 1:
        raw = raw[:, np.newaxis]  # (n, 1)
    if raw.shape != (n, d):
        form = f"({n}, {d})" if d != 1 else f"({n},) or ({n}, 1)"
        raise ShapeError(
            f"{where}: expected {name} of shape {form}, got {shape_of(y)}. "
            f"Pass one row of {name} for each row of x, one column for each output."
        )
    return _as_finite(raw, name, where, dtype)


def as_classes(y: object, n: int, n_classes: int, where: str, name: str = "y") -> NDArray[np.int32]:
    """Return integer classes 0 … n_classes-1 as a C-contiguous int32 vector.

    Parameters
    ----------
    y : array-like of integers or booleans, shape (n,) or (n, 1)
        The class of each row; floats are accepted if every one is a whole number.
    n, n_classes : int
        The rows of the inputs and the outputs of the network.
    where, name : str
        The function and the argument, for the error sentence.

    Returns
    -------
    ndarray of int32, shape (n,)

    Raises
    ------
    ShapeError, DataError
        If the shape is another one, or a value is not a class.
    """
    raw = _as_real(y, name, where)
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]  # (n,)
    if raw.shape != (n,):
        raise ShapeError(
            f"{where}: expected {name} of shape ({n},), got {shape_of(y)}. "
            f"Pass one class for each row of x."
        )
    if raw.dtype.kind == "f" and not bool(np.all(raw == np.floor(raw))):
        raise DataError(
            f"{where}: expected whole numbers as classes in {name}, got fractions or NaN. "
            f"Pass integers 0 to {n_classes - 1}, or rows of {n_classes} probabilities."
        )
    if n > 0 and (raw.min() < 0 or raw.max() >= n_classes):
        raise DataError(
            f"{where}: expected classes 0 to {n_classes - 1} in {name}, "
            f"got {raw.min()} to {raw.max()}. "
            f"Number the classes from 0, or make a network with more outputs."
        )
    return np.ascontiguousarray(raw, dtype=np.int32)


def as_weights(
    weight: object,
    n: int,
    where: str,
    dtype: DTypeLike = np.float64,
    name: str = "sample_weight",
) -> Array | None:
    """Return weights as a C-contiguous vector of shape (n,), or None for None.

    Parameters
    ----------
    weight : array-like, shape (n,), or None
        Finite and not negative, not all zero.
    n : int
        How many: the rows for sample weights, the outputs for output weights.
    where, name : str
        The function and the argument, for the error sentence.
    dtype : float32 or float64
        The type of the result.

    Returns
    -------
    ndarray, shape (n,), or None

    Raises
    ------
    ShapeError, DataError
        If the shape is another one, a value is negative or not finite, or all are zero.
    """
    if weight is None:
        return None
    raw = _as_real(weight, name, where)
    if raw.shape != (n,):
        raise ShapeError(
            f"{where}: expected {name} of shape ({n},), got {raw.shape}. "
            f"Pass one weight each, or None for equal weights."
        )
    result = _as_finite(raw, name, where, dtype)
    if n > 0 and (result.min() < 0 or result.max() == 0):
        got = f"a minimum of {result.min():g}" if result.min() < 0 else "only zeros"
        raise DataError(
            f"{where}: expected {name} not negative and not all zero, got {got}. "
            f"Drop the rows that should not count, or pass None for equal weights."
        )
    return result


def check_out(out: object, shape: tuple[int, int], dtype: np.dtype[Any], where: str) -> None:
    """Insist that ``out`` is an array that a result can be written to as it is.

    Raises
    ------
    ShapeError, DataError
        It has another shape; it is no array, of another dtype, read-only or not C-contiguous.
    """
    wanted = f"out as a C-contiguous, writeable {dtype} array of shape {shape}"
    advice = f"Make it with np.empty({shape}, np.{dtype}), or leave it out."
    if not isinstance(out, np.ndarray):
        raise DataError(f"{where}: expected {wanted}, got a {type(out).__name__}. {advice}")
    if out.shape != shape:
        raise ShapeError(f"{where}: expected {wanted}, got shape {out.shape}. {advice}")
    if out.dtype != dtype:
        raise DataError(f"{where}: expected {wanted}, got {out.dtype}. {advice}")
    if not out.flags.carray:  # C-contiguous, aligned and writeable
        got = "one that is read-only"
        if out.flags.writeable:
            got = "one with gaps, of another order or not aligned"
        raise DataError(f"{where}: expected {wanted}, got {got}. {advice}")


def check_choice(value: object, choices: Iterable[str], name: str, where: str) -> str:
    """Return ``value`` if it is one of the names in ``choices``; else raise SpecError."""
    names = list(choices)
    if isinstance(value, str) and value in names:
        return value
    raise SpecError(
        f"{where}: expected {name} to be one of {', '.join(names)}, got {value!r}. "
        f"Use one of these names."
    )


def is_whole_number(value: object) -> TypeGuard[SupportsInt]:
    """Whether ``value`` is an integer of Python or NumPy; a bool is not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))


def _is_real_number(value: object) -> TypeGuard[SupportsFloat]:
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def check_count(value: object, name: str, where: str, low: int = 1) -> int:
    """Return ``value`` as an int if it is a whole number of at least ``low``; else SpecError."""
    if is_whole_number(value) and int(value) >= low:
        return int(value)
    raise SpecError(
        f"{where}: expected {name} to be a whole number of at least {low}, got {value!r}. "
        f"Pass such an integer."
    )


def check_number(
    value: object,
    name: str,
    where: str,
    low: float = -math.inf,
    high: float = math.inf,
    closed: str = "both",
) -> float:
    """Return ``value`` as a float if it is finite and lies in the interval; else SpecError.

    ``closed`` says which ends belong to the interval: both, left, right or neither.
    """
    left = "[" if closed in ("both", "left") and low > -math.inf else "("
    right = "]" if closed in ("both", "right") and high < math.inf else ")"
    if _is_real_number(value):
        number = float(value)
        above = number >= low if left == "[" else number > low
        below = number <= high if right == "]" else number < high
        if math.isfinite(number) and above and below:
            return number
    raise SpecError(
        f"{where}: expected {name} to be a number in {left}{low:g}, {high:g}{right}, "
        f"got {value!r}. Choose a value in that range."
    )


def resolve_rng(rng: object) -> np.random.Generator:
    """Return a generator: ``rng`` itself, or a new one from a seed (None: fresh entropy).

    Parameters
    ----------
    rng : None, int of at least 0, or numpy.random.Generator

    Returns
    -------
    numpy.random.Generator

    Raises
    ------
    SpecError
        If ``rng`` is anything else.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None:
        return np.random.default_rng()
    if is_whole_number(rng) and int(rng) >= 0:
        return np.random.default_rng(int(rng))
    raise SpecError(
        f"rng: expected None, an integer of at least 0 or a numpy.random.Generator, got {rng!r}. "
        f"Pass a seed such as rng=0."
    )


def shape_of(x: object) -> tuple[int, ...]:
    """The shape of anything array-like; () for what has none."""
    shape = getattr(x, "shape", None)
    if shape is None:
        try:
            shape = np.shape(x)  # type: ignore[call-overload]
        except ValueError:  # ragged lists
            shape = ()
    return tuple(shape)


def _as_real(x: object, name: str, where: str) -> NDArray[Any]:
    """View ``x`` as an array of real numbers, without a copy where it already is one."""
    if x is None:  # NumPy would make it NaN
        raise DataError(f"{where}: expected {name} as an array of numbers, got None. Pass one.")
    try:
        raw = np.asarray(x)
        if raw.dtype.kind == "O":
            raw = raw.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{where}: expected {name} as an array of numbers, got {_describe(x)}. "
            f"Pass numbers; encode text and categories, and make sparse matrices dense, first."
        ) from error
    if raw.dtype.kind not in "fiub":
        raise DataError(
            f"{where}: expected {name} as an array of real numbers, got dtype {raw.dtype}. "
            f"Convert it to numbers first."
        )
    return raw


def _as_finite(raw: NDArray[Any], name: str, where: str, dtype: DTypeLike) -> Array:
    """Convert to a C-contiguous array of ``dtype`` and refuse NaN and infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        result: Array = np.ascontiguousarray(raw, dtype=dtype)
        # One pass without a temporary; only a sum that is not finite needs the exact look.
        all_finite = bool(np.isfinite(np.sum(result))) or bool(np.isfinite(result).all())
    if all_finite:
        return result
    bad = np.argwhere(~np.isfinite(result))
    first = tuple(int(i) for i in bad[0])
    got = raw[first]
    advice = "Remove or impute such values first."
    if np.isfinite(got):
        advice = f"Scale {name}: the value does not fit into {np.dtype(dtype)}."
    raise DataError(
        f"{where}: expected finite numbers in {name}, got {got} at {list(first)} "
        f"({len(bad)} such value{'s' if len(bad) != 1 else ''}). {advice}"
    )


def _describe(x: object) -> str:
    """A short description of an object for an error sentence."""
    if isinstance(x, (list, tuple)):
        return f"a {type(x).__name__} that is ragged or holds something else"
    if isinstance(x, np.ndarray):
        return f"an array of dtype {x.dtype} that holds something else"
    return f"an object of type {type(x).__name__}"

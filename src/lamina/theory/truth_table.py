"""Truth tables: all inputs in order, tables read from what users give, sums of products.

Row r of a table of n variables is the input whose bits, the first variable's first, write r.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError

Bits = NDArray[np.bool_]

MOST_TABLED: Final = 16
"""Variables of a truth table that is turned into a circuit or a formula."""


@functools.lru_cache(maxsize=32)
def all_inputs(n: int) -> NDArray[np.uint8]:
    """Return every input of n variables, (2^n, n), read-only."""
    rows = inputs_between(0, 1 << n, n)
    rows.flags.writeable = False
    return rows


def inputs_between(start: int, stop: int, n: int) -> NDArray[np.uint8]:
    """Return rows start … stop - 1 of all inputs of n variables."""
    shifts = np.arange(n - 1, -1, -1)
    return (np.arange(start, stop)[:, np.newaxis] >> shifts & 1).astype(np.uint8)


def as_table(value: object, where: str) -> Bits:
    """Return a truth table (2^n, outputs) from text, an array or a mapping.

    Parameters
    ----------
    value : str, array-like (2^n,) or (2^n, outputs), or mapping
        ``"0110"``, ``[0, 1, 1, 0]``, or ``{(0, 1): 1, (1, 0): 1}`` whose missing inputs give 0.
    where : str
        The function, for error sentences.

    Raises
    ------
    DataError
        Its length is no power of two, or a value is neither 0 nor 1.
    """
    if isinstance(value, Mapping):
        return _from_mapping(value, where)
    cells = list(value.strip()) if isinstance(value, str) else value
    try:
        array = np.asarray(cells)
        if array.dtype.kind in "US":
            array = array.astype(np.int64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: expected a truth table of 0 and 1, got {value!r:.60}. "
            'Write, for example, "0110".'
        ) from error
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise DataError(
            f"{where}: expected only 0 and 1 in a truth table, got something else. "
            'Write, for example, "0110" or [0, 1, 1, 0].'
        )
    n_rows = array.shape[0] if array.ndim in (1, 2) else 0
    if array.ndim not in (1, 2) or n_rows < 2 or n_rows & (n_rows - 1) or array.size == 0:
        raise DataError(
            f"{where}: expected a truth table of 2, 4, 8, … rows, one for each input, got shape "
            f"{array.shape}. List the outputs for the inputs in order: 00, 01, 10, 11."
        )
    if n_rows > 1 << MOST_TABLED:
        raise DataError(
            f"{where}: expected a truth table of at most {MOST_TABLED} variables, got "
            f"{n_rows.bit_length() - 1}. Write the function as an expression."
        )
    return array.reshape(n_rows, -1).astype(bool)


def _from_mapping(value: Mapping[object, object], where: str) -> Bits:
    keys = [key if isinstance(key, (tuple, str)) else (key,) for key in value]
    lengths = {len(key) for key in keys}
    n = lengths.pop() if len(lengths) == 1 else 0
    known = n > 0 and all(str(bit) in ("0", "1", "True", "False") for key in keys for bit in key)
    if not known or n > MOST_TABLED or any(v not in (0, 1) for v in value.values()):
        raise DataError(
            f"{where}: expected inputs of equal length (at most {MOST_TABLED}) and outputs, all "
            "of 0 and 1, in a truth table. Write, for example, {(0, 1): 1, (1, 0): 1}."
        )
    table = np.zeros((1 << n, 1), bool)
    for key, output in zip(keys, value.values(), strict=True):
        row = 0
        for bit in key:
            row = row << 1 | (str(bit) in ("1", "True"))
        table[row] = bool(output)
    return table


def variables_of(table: Bits) -> list[int]:
    """Return which variables a table (2^n,) depends on."""
    n = len(table).bit_length() - 1
    cube = table.reshape((2,) * n)
    return [i for i in range(n) if not np.array_equal(cube.take(0, i), cube.take(1, i))]


def symmetric_values(table: Bits) -> Bits | None:
    """Return the value (n + 1,) for each number of ones, if nothing else matters."""
    n = len(table).bit_length() - 1
    counts = all_inputs(n).sum(axis=1)
    values = np.zeros(n + 1, bool)
    values[counts] = table
    return values if np.array_equal(values[counts], table) else None


# --- sums of products ----------------------------------------------------------------------------

Cube = tuple[tuple[int, bool], ...]
"""A product: pairs (variable, its value)."""


def sum_of_products(table: Bits) -> list[Cube]:
    """Return an irredundant sum of prime implicants of a table (2^n,).

    No literal and no product can be left out; a sum with fewer products may exist.

    References
    ----------
    Minato (1992), "Fast generation of irredundant sum-of-products forms".
    """
    n = len(table).bit_length() - 1
    bits = (
        int.from_bytes(np.packbits(table[::-1]).tobytes(), "big")
        if n >= 3
        else sum(1 << r for r in range(len(table)) if table[r])
    )  # row r is bit r
    return _isop(bits, bits, 0, n)[0]


def _isop(lower: int, upper: int, variable: int, n: int) -> tuple[list[Cube], int]:
    """A cover of a function between two, of variables from one on, and the function it is."""
    size = 1 << n - variable
    if lower == 0:
        return [], 0
    if upper == (1 << size) - 1:
        return [()], upper
    half = size // 2
    mask = (1 << half) - 1
    lower_0, lower_1 = lower & mask, lower >> half
    upper_0, upper_1 = upper & mask, upper >> half
    cubes_0, f_0 = _isop(lower_0 & ~upper_1, upper_0, variable + 1, n)
    cubes_1, f_1 = _isop(lower_1 & ~upper_0, upper_1, variable + 1, n)
    rest = lower_0 & ~f_0 | lower_1 & ~f_1
    cubes, f = _isop(rest, upper_0 & upper_1, variable + 1, n)
    return (
        [
            *(((variable, False), *cube) for cube in cubes_0),
            *(((variable, True), *cube) for cube in cubes_1),
            *cubes,
        ],
        f_0 | f | (f_1 | f) << half,
    )


def product_text(cube: Cube, names: Sequence[str]) -> str:
    """Write a product: ``a & ~b``."""
    return " & ".join(names[i] if value else f"~{names[i]}" for i, value in cube) or "1"

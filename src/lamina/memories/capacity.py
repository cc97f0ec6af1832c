"""How many pairs a memory holds: recall and interference, by their number and with noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import ShapeError, SpecError
from lamina.memories.key_value import KeyValueMemory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS: Final = 512  # answers that are compared with all values at a time


@dataclass(frozen=True)
class Capacity:
    """What noisy queries recall, of so many random pairs.

    Attributes
    ----------
    n_pairs : int
    relu, softmax : float
        The share of queries whose answer is nearest to their own value, of `KeyValueMemory.store`
        with either activation.
    relu_interference, softmax_interference : float
        The root mean square distance of an answer from its own value, over the values' root mean
        square length: what the other pairs and the noise put in. 0 is exact; 1 is no better than
        the answer 0.
    """

    n_pairs: int
    relu: float
    softmax: float
    relu_interference: float
    softmax_interference: float


def measure_recall(memory: KeyValueMemory, queries: npt.ArrayLike, values: npt.ArrayLike) -> float:
    """Return the share of queries whose answer is nearer to its own value than to any other.

    Parameters
    ----------
    memory : KeyValueMemory
    queries : (n, d_key) array
    values : (n, d_value) array
        Row i is what query i should recall; equal values count as one.

    Raises
    ------
    ShapeError
        If there are not as many values as queries.
    """
    answers, wanted = memory(queries), np.asarray(values, dtype=np.float64)
    if answers.shape != wanted.shape:
        raise ShapeError(
            f"measure_recall: expected values of shape {answers.shape}, got {wanted.shape}. Pass "
            "what each query should recall."
        )
    hits = 0
    for start in range(0, len(wanted), ROWS):
        rows = answers[start : start + ROWS]
        # |a - v|² without |a|², which is the same for every v
        far = (wanted**2).sum(1) - 2.0 * rows @ wanted.T  # (ROWS, n)
        hits += int((wanted[far.argmin(1)] == wanted[start : start + ROWS]).all(1).sum())
    return hits / len(wanted)


def measure_capacity(
    d_key: int,
    n_pairs: Sequence[int] = (16, 64, 256, 1024, 4096),
    *,
    noise: float = 0.1,
    d_value: int = 16,
    beta: float | None = None,
    rng: int | np.random.Generator = 0,
) -> list[Capacity]:
    """Store ever more random pairs, and ask for them with noise in the query.

    Without noise ReLU with a threshold for each key never fails; with noise it fails once keys
    come nearer to each other than the noise is long, as the attention does.

    Parameters
    ----------
    d_key : int
        Of random keys, of length 1.
    n_pairs : sequence of int
    noise : float
        The length of what is added to a query, relative to the key.
    d_value : int
    beta : float, optional
        Of the softmax, as for `KeyValueMemory.store`: the larger, the nearer it is to looking up
        the nearest key, which is the best that can be done.
    rng : int or Generator

    Returns
    -------
    list of Capacity

    Notes
    -----
    O(n² (d_key + d_value)) for n pairs.
    """
    if d_key < 2 or not all(n >= 1 for n in n_pairs) or noise < 0.0:
        raise SpecError(
            f"measure_capacity: expected d_key >= 2, pairs and noise >= 0, got d_key={d_key}, "
            f"n_pairs={list(n_pairs)}, noise={noise}. Change these."
        )
    rng = np.random.default_rng(rng)
    found = []
    for n in n_pairs:
        keys, values = _unit(rng, n, d_key), rng.standard_normal((n, d_value))
        queries = keys + noise * _unit(rng, n, d_key)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        relu = KeyValueMemory.store(keys, values)
        softmax = KeyValueMemory.store(keys, values, "softmax", beta=beta)
        recalled = (measure_recall(memory, queries, values) for memory in (relu, softmax))
        stray = (_interference(memory(queries), values) for memory in (relu, softmax))
        found.append(Capacity(n, *recalled, *stray))
    return found


def plot_capacity(found: Sequence[Capacity]) -> Figure:
    """Return a picture of recall and interference over the number of pairs; needs ``[plots]``.

    Examples
    --------
    >>> figure = plot_capacity(measure_capacity(8, (16, 64, 256)))
    """
    from lamina.plots.capacity import plot_capacity as plot

    if not found:
        raise SpecError(
            "plot_capacity: expected what measure_capacity found, got an empty list. Measure some."
        )
    rows = [np.array(column, dtype=np.float64) for column in zip(*map(astuple, found), strict=True)]
    return plot(*rows)


def _interference(answers: npt.NDArray[Any], values: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean((answers - values) ** 2) / np.mean(values**2)))


def _unit(rng: np.random.Generator, n: int, d: int) -> npt.NDArray[np.float64]:
    rows = rng.standard_normal((n, d))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

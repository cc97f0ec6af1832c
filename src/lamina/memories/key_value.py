"""A feed-forward layer built from pairs of key and value, and read back as such."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.core.functions import ACTIVATIONS
from lamina.core.network import Network
from lamina.core.optim import AdamW
from lamina.core.schedules import cosine
from lamina.core.trainer import train

Float64 = NDArray[np.float64]

UNIT_TOLERANCE: Final = 1e-5  # of a key's length: float32 vectors that were divided by theirs
SAME_KEY: Final = 1e-9  # 1 - cosine below which two keys cannot be told apart
BATCH: Final = 100  # pairs a step of training
ROWS: Final = 1024  # of a block of products of keys with keys: 1024 n float64 at a time


class KeyValueMemory:
    """A feed-forward layer read as a memory: ``m(x) = f(x @ keys.T + thresholds) @ values``.

    Parameters
    ----------
    keys : (n, d_key) array
        Rows of ``w_in``.
    values : (n, d_value) array
        Columns of ``w_out``.
    activation : str, default "relu"
        An activation of `lamina.Network`, or "softmax": attention over the keys.
    thresholds : (n,) array, optional
        What is added to the products (a layer's biases); none by default.

    Raises
    ------
    ShapeError
        If keys, values and thresholds are not as many, or of the wrong dimension.
    DataError
        If a number is not finite.
    SpecError
        If there is no such activation.

    References
    ----------
    Geva et al. 2021, arXiv:2012.14913, equations 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> from lamina.memories import KeyValueMemory
    >>> memory = KeyValueMemory.store(np.eye(3), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> memory(np.eye(3)[1])
    array([[3., 4.]])
    """

    def __init__(
        self,
        keys: npt.ArrayLike,
        values: npt.ArrayLike,
        activation: str = "relu",
        *,
        thresholds: npt.ArrayLike | None = None,
    ) -> None:
        where = "KeyValueMemory"
        self.keys: Float64 = _as_rows(keys, where, "keys")
        self.values: Float64 = _as_rows(values, where, "values")
        n = len(self.keys)
        if len(self.values) != n:
            raise ShapeError(
                f"{where}: expected as many values as keys, got {len(self.values)} values and "
                f"{n} keys. Pass one value for each key."
            )
        if activation not in ACTIVATIONS and activation != "softmax":
            raise SpecError(
                f"{where}: expected one of {', '.join(ACTIVATIONS)} or softmax as activation, "
                f"got {activation!r}. Choose one of these."
            )
        self.activation = activation
        self.thresholds: Float64 = np.zeros(n)
        if thresholds is not None:
            self.thresholds = np.array(thresholds, dtype=np.float64)
            if self.thresholds.shape != (n,):
                raise ShapeError(
                    f"{where}: expected thresholds of shape ({n},), got "
                    f"{self.thresholds.shape}. Pass one for each key."
                )

    @classmethod
    def store(
        cls,
        keys: npt.ArrayLike,
        values: npt.ArrayLike,
        activation: str = "relu",
        *,
        beta: float | None = None,
    ) -> KeyValueMemory:
        """Build the layer that returns each key's value.

        With "relu", neuron i fires on its own key with coefficient 1 and is 0 on every other key:
        its threshold lies halfway between 1 and its largest cosine c with another key. Retrieval
        is exact up to rounding, about 2 eps / (1 - c), for distinct keys of length 1; a query
        nearer than (1 - c) / 2 to a key, counted in length, wakes no other neuron.
        With "softmax", the weights are those of attention, softmax(beta x @ keys.T), never exact.

        Parameters
        ----------
        keys : (n, d_key) array
            Distinct, each of length 1.
        values : (n, d_value) array
        activation : {"relu", "softmax"}
        beta : float, optional
            The inverse temperature of "softmax"; sqrt(d_key) by default.

        Raises
        ------
        DataError
            If keys are not of length 1, or two are equal.
        ShapeError, SpecError
            As for the class.

        Notes
        -----
        2 n² d_key operations; 8192 n bytes at a time.
        """
        where = "KeyValueMemory.store"
        found = _as_rows(keys, where, "keys")
        if activation == "softmax":
            scale = np.sqrt(found.shape[1]) if beta is None else beta
            return cls(found * scale, values, "softmax")
        if activation != "relu" or beta is not None:
            raise SpecError(
                f"{where}: expected relu, or softmax with its beta, got {activation!r} with "
                f"beta={beta}. Only these two have a rule for storing."
            )
        length = np.linalg.norm(found, axis=1)
        worst = int(np.argmax(np.abs(length - 1.0)))
        if abs(length[worst] - 1.0) > UNIT_TOLERANCE:
            raise DataError(
                f"{where}: expected keys of length 1, got length {length[worst]:.6g} in row "
                f"{worst}. Divide each key by its length, and each query by its own."
            )
        found = found / length[:, None]
        nearest, cosine = _nearest_others(found)
        gap = (1.0 - cosine) / 2.0  # from the threshold up to the key itself
        worst = int(np.argmin(gap))
        if gap[worst] < SAME_KEY:
            raise DataError(
                f"{where}: expected distinct keys, got rows {worst} and {nearest[worst]} equal. "
                "Keep one pair for each key."
            )
        return cls(found / gap[:, None], values, thresholds=-(1.0 + cosine) / (2.0 * gap))

    @classmethod
    def fit(
        cls,
        keys: npt.ArrayLike,
        values: npt.ArrayLike,
        n_memories: int,
        *,
        max_epochs: int = 1000,
        rng: int | np.random.Generator = 0,
        n_threads: int | None = None,
    ) -> KeyValueMemory:
        """Train a ReLU layer of n_memories neurons on pairs; fewer than the pairs must share.

        The output bias becomes one more memory, which always fires with coefficient 1.

        Parameters
        ----------
        keys : (n, d_key) array
            Of any length.
        values : (n, d_value) array
        n_memories : int
        max_epochs : int
            Of `lamina.train` with AdamW, its rate falling along a cosine from 0.005.
        rng, n_threads
            As for `lamina.train`.
        """
        x, y = _as_rows(keys, "KeyValueMemory.fit", "keys"), cls(keys, values).values
        rng = np.random.default_rng(rng)
        seed = int(rng.integers(2**31))
        network = Network(x.shape[1], (n_memories,), y.shape[1], activation="relu", rng=seed)
        optimizer = AdamW(cosine(0.005), weight_decay=0.0)
        train(
            network,
            x,
            y,
            optimizer=optimizer,
            batch_size=BATCH,
            max_epochs=max_epochs,
            rng=rng,
            n_threads=n_threads,
        )
        w_in, w_out = (np.asarray(w, dtype=np.float64) for w in network.weights)
        b_in, b_out = (np.asarray(b, dtype=np.float64) for b in network.biases)
        return cls(
            np.vstack([w_in, np.zeros((1, x.shape[1]))]),
            np.vstack([w_out.T, b_out]),
            thresholds=np.append(b_in, 1.0),
        )

    def __len__(self) -> int:
        return len(self.keys)

    def __call__(self, queries: npt.ArrayLike) -> Float64:
        """Return what the memory holds for each query: (n, d_key) or (d_key,) -> (n, d_value)."""
        result: Float64 = self.coefficients(queries) @ self.values
        return result

    def coefficients(self, queries: npt.ArrayLike) -> Float64:
        """Return how much each memory fires on each query: (n, d_key) -> (n, len(self))."""
        where = "KeyValueMemory"
        x = _as_rows(np.atleast_2d(np.asarray(queries)), where, "queries")
        if x.shape[1] != self.keys.shape[1]:
            raise ShapeError(
                f"{where}: expected queries of {self.keys.shape[1]} numbers, got {x.shape[1]}. "
                "Pass rows as long as the keys."
            )
        z = x @ self.keys.T + self.thresholds  # (n, n_memories)
        if self.activation == "softmax":
            z = np.exp(z - z.max(axis=1, keepdims=True))
            return np.asarray(z / z.sum(axis=1, keepdims=True))
        return ACTIVATIONS[self.activation].value(z)

    def read_pairs(self) -> tuple[Float64, Float64]:
        """Read the layer back: the direction each neuron answers to, and what it then adds.

        A ReLU neuron may be multiplied by a > 0 in w_in and its bias and divided by a in w_out,
        and neurons may be permuted, without changing the function; what is read does not depend on
        the first, and comes in the neurons' order.

        Returns
        -------
        keys : (n, d_key) array
            Of length 1; zeros for a neuron whose key is zero.
        values : (n, d_value) array
            ``values * f(|key| + threshold)``: exactly what `store` was given.
        """
        if self.activation == "softmax":
            raise SpecError(
                "KeyValueMemory.read_pairs: expected neurons that fire one by one, got softmax. "
                "Read keys and values themselves."
            )
        length = np.linalg.norm(self.keys, axis=1)
        directions = self.keys / np.where(length > 0.0, length, 1.0)[:, None]
        fired = ACTIVATIONS[self.activation].value(length + self.thresholds)
        return directions, self.values * fired[:, None]

    def to_network(self, dtype: str = "float64") -> Network:
        """Return the memory as a `lamina.Network` of one hidden layer.

        Raises
        ------
        SpecError
            With "softmax", which is no activation of a hidden layer.
        """
        if self.activation == "softmax":
            raise SpecError(
                "KeyValueMemory.to_network: expected an activation of hidden layers, got softmax. "
                "Store the pairs with activation relu."
            )
        d_key, d_value = self.keys.shape[1], self.values.shape[1]
        network = Network(d_key, (len(self),), d_value, activation=self.activation, dtype=dtype)
        theta = np.zeros(network.n_params)
        (w_in, b_in), (w_out, _) = network.spec.slices()
        theta[w_in], theta[b_in] = self.keys.ravel(), self.thresholds
        theta[w_out] = self.values.T.ravel()
        network.theta = theta
        return network


def _as_rows(array: npt.ArrayLike, where: str, name: str) -> Float64:
    """Return a copy as float64 of two dimensions; refuse what has no rows or is not finite."""
    try:
        rows = np.array(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: expected {name} of numbers, got {error}. Pass a two-dimensional array."
        ) from None
    if rows.ndim != 2 or 0 in rows.shape:
        raise ShapeError(
            f"{where}: expected {name} as a non-empty array of two dimensions, got shape "
            f"{rows.shape}. Pass one row for each."
        )
    if not np.isfinite(rows).all():
        raise DataError(
            f"{where}: expected finite {name}, got NaN or infinity. Remove those rows first."
        )
    return rows


def _nearest_others(keys: Float64) -> tuple[NDArray[np.intp], Float64]:
    """Return each unit key's nearest other key and its cosine; -1 of a single key."""
    n = len(keys)
    if n == 1:
        return np.zeros(1, dtype=np.intp), np.full(1, -1.0)
    nearest = np.empty(n, dtype=np.intp)
    cosine = np.empty(n)
    for start in range(0, n, ROWS):
        rows = np.arange(start, min(start + ROWS, n))
        products = keys[rows] @ keys.T  # (ROWS, n)
        products[np.arange(len(rows)), rows] = -np.inf
        nearest[rows] = products.argmax(axis=1)
        cosine[rows] = products.max(axis=1)
    return nearest, cosine

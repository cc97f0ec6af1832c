"""``coefs_`` and ``intercepts_`` as users see and edit them, theta as the engine takes it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core.engine import Engine, make_engine
from lamina.core.errors import ShapeError
from lamina.core.spec import NetworkSpec

Array = npt.NDArray[Any]
Arrays = list[Array]


class Coefficients:
    """The learned parameters, and the engines that hold them packed.

    theta is authoritative until somebody asks for the arrays. From then on they may be edited at
    any time without our knowing, so each use compares them with what the engines hold, bit for
    bit, and packs anew if anything differs. A fit followed by predictions never pays for it.

    Parameters
    ----------
    theta : array (n_params,), optional
        Kept, not copied; ``None`` if the arrays are given instead.
    dims : tuple of int
        d_in, the widths and d_out.
    coefs, intercepts : lists of arrays (fan_in, fan_out) and (fan_out,), optional
        What a user assigned.

    Notes
    -----
    The arrays handed out are views of one copy of theta; a weight matrix is thus Fortran-ordered,
    since theta keeps it as (fan_out, fan_in).
    """

    __slots__ = ("_coefs", "_dims", "_engines", "_intercepts", "_shown", "_theta", "_views")

    def __init__(
        self,
        theta: Array | None = None,
        dims: tuple[int, ...] = (),
        *,
        coefs: Any = None,
        intercepts: Any = None,
    ) -> None:
        self._theta = theta
        self._dims = dims
        self._coefs = coefs
        self._intercepts = intercepts
        self._shown: Array | None = None  # what the arrays that we handed out are views of
        self._views: tuple[Array, ...] = ()
        self._engines: dict[Any, Engine] = {}

    # --- as users see it ----------------------------------------------------------------------

    @property
    def coefs(self) -> Any:
        """The list of weight matrices (fan_in, fan_out), open to edits; None if unset."""
        self._show()
        return self._coefs

    @property
    def intercepts(self) -> Any:
        """The list of bias vectors (fan_out,), open to edits; None if unset."""
        self._show()
        return self._intercepts

    def _show(self) -> None:
        if self._theta is None or self._coefs is not None or self._intercepts is not None:
            return
        shown = self._theta.copy()
        weights, biases = _views(shown, self._dims)
        self._shown, self._views = shown, (*weights, *biases)
        self._coefs, self._intercepts = weights, biases

    # --- as the engine takes it ---------------------------------------------------------------

    @property
    def theta(self) -> Array:
        """The flat parameter vector, true to every edit up to now; not to be written to."""
        self._synchronise()
        assert self._theta is not None  # noqa: S101 (for mypy: _synchronise sets it)
        return self._theta

    @property
    def dims(self) -> tuple[int, ...]:
        """d_in, the widths and d_out, true to every edit up to now."""
        self._synchronise()
        return self._dims

    def engine(self, activations: str | tuple[str, ...], output: str, dtype: Any) -> Engine:
        """Return an engine with these parameters, from the cache where nothing has changed.

        It computes in float32 if both the parameters and the rows allow, else in float64.

        Parameters
        ----------
        activations : str or tuple of str
            lamina's names: one, or one a hidden layer.
        output : str
        dtype : numpy.dtype
            Of the rows.
        """
        self._synchronise()
        engines = self._engines
        key = (activations, output, dtype)
        engine = engines.get(key)
        if engine is None:
            theta = self._theta
            assert theta is not None  # noqa: S101 (for mypy: _synchronise sets it)
            single = np.result_type(theta, dtype) == np.float32
            spec = network_spec(self._dims, activations, output, "float32" if single else "float64")
            engine = engines[key] = make_engine(spec, theta)
        return engine

    def _synchronise(self) -> None:
        """Take up edits of the arrays. Engines are replaced, never changed under a caller."""
        if self._coefs is None and self._intercepts is None:
            return
        if self._unreplaced():
            theta, dims = self._shown, self._dims
        else:
            theta, dims = flatten(self._coefs, self._intercepts)
        if dims != self._dims or not _same_bits(theta, self._theta):
            assert theta is not None  # noqa: S101 (for mypy)
            self._theta, self._dims, self._engines = theta.copy(), dims, {}

    def _unreplaced(self) -> bool:
        """Whether the lists hold the very arrays that we handed out."""
        if not isinstance(self._coefs, list) or not isinstance(self._intercepts, list):
            return False
        arrays = (*self._coefs, *self._intercepts)
        return len(arrays) == len(self._views) and all(
            a is b for a, b in zip(arrays, self._views, strict=True)
        )

    # --- pickle and deepcopy: no engine -------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        if self._coefs is None and self._intercepts is None:
            return {"theta": self._theta, "dims": self._dims}
        return {"coefs": self._coefs, "intercepts": self._intercepts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def network_spec(
    dims: tuple[int, ...],
    activations: str | tuple[str, ...],
    output: str,
    dtype: Any,
    dropout: float = 0.0,
) -> NetworkSpec:
    """Return the plain network of these dimensions; one activation name serves all layers."""
    n_hidden = len(dims) - 2
    names = (activations,) * n_hidden if isinstance(activations, str) else activations
    return NetworkSpec(
        d_in=dims[0],
        widths=dims[1:-1],
        d_out=dims[-1],
        activations=names,
        output=output,
        dropout=dropout,
        dtype=np.dtype(dtype).name,
    )


def flatten(coefs: Sequence[Any], intercepts: Sequence[Any]) -> tuple[Array, tuple[int, ...]]:
    """Return theta and the dimensions of scikit-learn's lists of arrays.

    Raises
    ------
    ShapeError
        The arrays do not follow on each other.
    """
    try:
        weights = [np.asarray(w) for w in coefs]
        biases = [np.asarray(b) for b in intercepts]
        shapes = [w.shape for w in weights]
        dims = (shapes[0][0], *(shape[1] for shape in shapes))
        fits = shapes == list(pairwise(dims))
        fits = fits and [b.shape for b in biases] == [(d,) for d in dims[1:]] and min(dims) > 0
    except (TypeError, IndexError):
        fits = False
    if not fits:
        raise ShapeError(
            "coefs_, intercepts_: expected matrices (fan_in, fan_out), each fan_in the fan_out "
            f"before it, and vectors (fan_out,), got {_shapes(coefs)} and {_shapes(intercepts)}. "
            "Assign arrays of fitting shapes, or fit again."
        )
    single = all(a.dtype == np.float32 for a in (*weights, *biases))
    pieces = [a for w, b in zip(weights, biases, strict=True) for a in (w.T.ravel(), b)]
    return np.concatenate(pieces, dtype=np.float32 if single else np.float64), dims


def _shapes(arrays: Any) -> str:
    return str([np.shape(a) for a in arrays]) if isinstance(arrays, (list, tuple)) else "none"


def _views(theta: Array, dims: tuple[int, ...]) -> tuple[Arrays, Arrays]:
    """Return the matrices (fan_in, fan_out) and vectors (fan_out,) that theta holds."""
    weights, biases = [], []
    start = 0
    for fan_in, fan_out in pairwise(dims):
        middle = start + fan_in * fan_out
        weights.append(theta[start:middle].reshape(fan_out, fan_in).T)
        biases.append(theta[middle : middle + fan_out])
        start = middle + fan_out
    return weights, biases


def _same_bits(a: Array | None, b: Array | None) -> bool:
    """Whether two vectors agree in every bit: a NaN equals itself, and -0 is not 0."""
    if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
        return False
    bits = np.uint32 if a.dtype == np.float32 else np.uint64
    return np.array_equal(a.view(bits), b.view(bits))

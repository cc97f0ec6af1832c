"""The network: an architecture and its parameters, callable, traceable, differentiable."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core import modelfile
from lamina.core.checks import as_matrix, as_weights, check_out
from lamina.core.derivatives import Differentiable
from lamina.core.encodings import Encoding
from lamina.core.engine import (
    Engine,
    make_engine,
    recent_n_threads,
    require_memory,
    resolve_precision,
)
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.core.initialize import initialize
from lamina.core.losses import Loss, resolve_loss
from lamina.core.parameters import Parameters, finite_copy, unpack
from lamina.core.spec import NetworkSpec

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Trace:
    """What a forward pass saw.

    Attributes
    ----------
    z, h : list of arrays (n, d_l)
        Pre-activations and activations: ``z[l - 1]`` and ``h[l - 1]`` belong to layer l, and
        ``h[-1]`` is y_pred.
    """

    z: list[Array]
    h: list[Array]


@dataclass(frozen=True)
class Gradients:
    """Derivatives of a loss.

    Attributes
    ----------
    weights, biases : list of arrays (d_l, fan_in_l) and (d_l,)
        One a layer, in the order of ``net.weights`` and ``net.biases``.
    x : array (n, d_in)
    loss : float
        The loss itself.
    table : array (n_entries, n_features) or None
        Of the encoding, if it has a table.
    """

    weights: list[Array]
    biases: list[Array]
    x: Array
    loss: float
    table: Array | None = None


class Network(Differentiable):
    """A multilayer perceptron: a directed acyclic graph of layers 1…L on the native engine.

    ::

        u_l = concat(h_{l-1}, h_j for j in skips[l]),  z_l = W_l u_l + b_l,  h_0 = x
        h_l = phi(z_l)  (+ h_{l-1} if residual and the widths match),  y_pred = output(z_L)

    With an encoding h_0 = encoding(x), computed inside the engine a block of rows at a time.

    Parameters
    ----------
    d_in : int ≥ 1
        Columns of x.
    widths : sequence of int ≥ 1
        Units in each hidden layer; ``()`` is a linear model, one int one hidden layer.
    d_out : int ≥ 1
        Columns of y_pred.
    activation : str or sequence of str, default "relu"
        One name, or one a hidden layer: identity, step, sigmoid, tanh, relu, leaky_relu,
        softplus, gelu, gelu_tanh, silu, selu, mish, sine, squared_relu.
    output : {"identity", "sigmoid", "softmax", "exp", "step"}, default "identity"
        The output unit: identity for regression, softmax for one class of several, sigmoid for
        yes or no, exp for counts and rates.
    skips : dict of int to sequence of int, optional
        ``{l: (j, …)}`` feeds layer l each h_j as well, 0 ≤ j ≤ l - 2; try ``{l: (0,)}`` where a
        deep network forgets its input.
    residual : bool, default False
        Add h_{l-1} where the widths match; helps from about five layers on.
    dropout : float in [0, 1), default 0.0
        The share of hidden units left out at random in each training step; 0.1 to 0.5 against
        overfitting.
    encoding : HashGrid, Fourier, RandomFourier, OneBlob or ColumnEmbeddings, optional
        What the first layer reads instead of x: ``lamina.HashGrid()`` for fields, whose inputs are
        few coordinates and whose values change over short distances; ``lamina.ColumnEmbeddings``
        for the columns of a table.
    dtype : {"float32", "float64"}, default "float32"
        Of parameters and arithmetic; float64 for finite differences and proofs.
    rng : int or numpy.random.Generator, optional
        The seed of the first weights; None draws one.

    Raises
    ------
    SpecError
        An argument is not as described.

    Examples
    --------
    >>> import lamina, numpy as np
    >>> net = lamina.Network(2, (16,), 1, rng=0)
    >>> net(np.zeros((3, 2))).shape
    (3, 1)
    """

    __slots__ = ("__weakref__", "_d_in", "_d_out", "_dtype", "_engine", "_spec", "_theta")

    _engine: Engine | None

    def __init__(
        self,
        d_in: int,
        widths: Iterable[int],
        d_out: int,
        *,
        activation: str | Iterable[str] = "relu",
        output: str = "identity",
        skips: Mapping[int, Iterable[int]] | None = None,
        residual: bool = False,
        dropout: float = 0.0,
        encoding: Encoding | None = None,
        dtype: npt.DTypeLike = "float32",
        rng: int | np.random.Generator | None = None,
    ) -> None:
        spec = NetworkSpec.create(
            d_in,
            widths,
            d_out,
            activation=activation,
            output=output,
            skips=skips,
            residual=residual,
            dropout=dropout,
            encoding=encoding,
            dtype=dtype,
        )
        # Drawn in float64 (all of theta, and one layer beside it), then rounded to the dtype.
        require_memory((16 + np.dtype(spec.dtype).itemsize) * spec.n_params)
        self._hold(spec, initialize(spec, rng))

    @classmethod
    def from_spec(cls, spec: NetworkSpec, theta: npt.ArrayLike) -> Network:
        """Make a network of an architecture and its flat parameter vector, which is copied.

        Parameters
        ----------
        spec : NetworkSpec
        theta : array (n_params,)
            W_1 row by row, b_1, W_2, b_2, …

        Raises
        ------
        ShapeError, DataError
            `theta` has another length, or NaN or infinity in it.
        """
        net = cls.__new__(cls)
        net._hold(spec, finite_copy(theta, (spec.n_params,), "theta", np.dtype(spec.dtype)))
        return net

    def _hold(self, spec: NetworkSpec, theta: Array) -> None:
        """Take both; `theta` must be ours alone."""
        self._spec = spec
        self._d_in = spec.d_in
        self._d_out = spec.d_out
        self._dtype = np.dtype(spec.dtype)
        self._engine = None
        theta.flags.writeable = False
        self._theta = theta

    # --- what it is ------------------------------------------------------------------------------

    @property
    def spec(self) -> NetworkSpec:
        """The architecture."""
        return self._spec

    @property
    def theta(self) -> Array:
        """The flat parameter vector (n_params,), read-only: W_1 row by row, b_1, W_2 and so on.

        The table of an encoding comes last, row by row.

        Assigning to it copies in all parameters at once; a ShapeError or DataError (another
        length, NaN or infinity) leaves the network as it was.
        """
        return self._theta

    @theta.setter
    def theta(self, value: npt.ArrayLike) -> None:
        theta = finite_copy(value, self._theta.shape, "net.theta", self._dtype)
        theta.flags.writeable = False
        self._theta = theta  # a new array: those given out before keep the values they had
        if self._engine is not None:
            self._engine.set_parameters(theta)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of parameters and arithmetic."""
        return self._dtype

    @property
    def n_params(self) -> int:
        """Weights and biases, and the encoding's table, together."""
        return self._theta.size

    @property
    def weights(self) -> Parameters:
        """One read-only array (d_l, fan_in_l) a layer; assigning to an item copies in."""
        return Parameters(self, "weights")

    @property
    def biases(self) -> Parameters:
        """One read-only array (d_l,) a layer; assigning to an item copies in."""
        return Parameters(self, "biases")

    @property
    def encoding(self) -> Encoding | None:
        """What turns x into h_0; None if h_0 is x."""
        return self._spec.encoding

    @property
    def table(self) -> Array | None:
        """The encoding's table (n_entries, n_features), read-only; None if it has none.

        Level after level: ``levels(d_in)`` of a HashGrid says how many entries each, `embedding`
        of ColumnEmbeddings takes a column out. Assigning copies in.
        """
        entries, _ = self._spec.table_shape
        return (
            self._theta[self._spec.table_slice].reshape(self._spec.table_shape) if entries else None
        )

    @table.setter
    def table(self, value: npt.ArrayLike) -> None:
        entries, _ = shape = self._spec.table_shape
        if not entries:
            raise SpecError(
                "net.table: expected a network whose encoding has a table, got "
                f"{self._spec.encoding!r}. Make it with encoding=lamina.HashGrid()."
            )
        theta = self._theta.copy()
        theta[self._spec.table_slice] = finite_copy(value, shape, "net.table", self._dtype).ravel()
        self.theta = theta

    def __repr__(self) -> str:
        spec = self._spec
        parts = [str(spec.d_in), str(spec.widths), str(spec.d_out)]
        if spec.widths:
            same = len(set(spec.activations)) == 1
            parts.append(f"activation={(spec.activations[0] if same else spec.activations)!r}")
        parts.append(f"output={spec.output!r}")
        if spec.skips:
            parts.append(f"skips={dict(spec.skips)}")
        if spec.residual:
            parts.append("residual=True")
        if spec.dropout:
            parts.append(f"dropout={spec.dropout}")
        if spec.encoding is not None:
            parts.append(f"encoding={spec.encoding!r}")
        parts.append(f"dtype={spec.dtype!r}")
        return f"Network({', '.join(parts)})  # {self.n_params:,} parameters"

    # --- forward ---------------------------------------------------------------------------------

    def __call__(
        self, x: npt.ArrayLike, out: Array | None = None, *, precision: str | None = None
    ) -> Array:
        """Return y_pred for the rows of `x`.

        Parameters
        ----------
        x : array-like (n, d_in)
            Any real type and memory layout; converted to the network's dtype, without a copy
            where it is C-contiguous and of that dtype. n may be 0. NaN and infinity are let
            through to the rows they are in: prediction is total. A single row is ``x[None, :]``.
        out : array (n, d_out), optional
            Where to write y_pred instead of a new array: C-contiguous, writeable and of the
            network's dtype. It may overlap `x`. Give the same array again and again to answer
            row by row without an allocation.
        precision : {None, "float32", "float64", "bfloat16"}, optional
            None follows the network's dtype, and so must the first two names. "bfloat16", for
            networks of float32, is faster for batches of 32 rows and more: products take factors
            of 8 bits, which leaves 2 to 3 decimal digits.

        Returns
        -------
        y_pred : array (n, d_out)
            Of the network's dtype; `out` itself if it was given. A row's bits do not depend on
            the other rows.

        Raises
        ------
        ShapeError
            `x` has not d_in columns, or `out` is not (n, d_out).
        DataError
            `x` holds something other than real numbers, or `out` cannot be written to as it is.
        SpecError
            `precision` is none of these, or not to be had on this machine.

        Notes
        -----
        2 n n_params floating-point operations. The parameters stay packed for the kernels, and
        are packed again only when they change. Any number of threads may call at once, each
        with an `out` of its own.

        Examples
        --------
        >>> import lamina, numpy as np
        >>> net = lamina.Network(2, (16,), 1, rng=0)
        >>> rows = np.zeros((5, 2), np.float32)
        >>> y_pred = np.empty((1, 1), np.float32)
        >>> for i in range(len(rows)):
        ...     _ = net(rows[i : i + 1], out=y_pred)
        """
        engine = self._engine or self._make_engine()
        half = False
        if precision is not None:
            half = resolve_precision(precision, self.spec.dtype, "Network") == "bfloat16"
        # The short way, for single rows: clean arrays go straight to the engine.
        y_pred: Array | None = None if half else engine.predict(x, out, recent_n_threads)
        if y_pred is not None:
            return y_pred
        rows = _as_rows(x, self._d_in, self._dtype)
        if out is not None:
            check_out(out, (len(rows), self._d_out), self._dtype, "Network")
            if np.may_share_memory(rows, out):
                rows = rows.copy()
        return engine.forward(rows, out=out, bfloat16=half)

    def trace(self, x: npt.ArrayLike) -> Trace:
        """Return every layer's pre-activation and activation for the rows of `x`.

        Parameters
        ----------
        x : array-like (n, d_in)
            As for calling the network.

        Returns
        -------
        Trace
            ``.z`` and ``.h``, one array (n, d_l) a layer.
        """
        engine = self._engine or self._make_engine()
        return Trace(*engine.trace(_as_rows(x, self._d_in, self._dtype)))

    # --- loss and gradients ----------------------------------------------------------------------

    def loss(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        loss: str | Loss | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> float:
        """Return the mean loss over the rows, dropout off.

        Parameters
        ----------
        x : array-like (n, d_in), n ≥ 1, finite
        y : array-like (n, d_out), or (n,) for one output or integer classes
        loss : str or loss object, optional
            squared_error, absolute_error, huber, binary_cross_entropy, cross_entropy, poisson,
            pinball, or an object such as ``lamina.Huber(0.5)``; None follows the output unit.
        sample_weight : array-like (n,), optional
            Not negative; the mean over rows becomes a weighted one.

        Raises
        ------
        ShapeError, DataError, SpecError
            Shapes do not fit, there are no rows, a number is not finite, a class does not exist,
            or the loss does not go with the output unit.
        """
        rows, target, resolved, weight = self._check("Network.loss", x, y, loss, sample_weight)
        engine = self._engine or self._make_engine()
        return engine.evaluate(rows, target, resolved, sample_weight=weight)

    def gradients(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        loss: str | Loss | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Gradients:
        """Return the derivatives of the mean loss by every parameter and by x, dropout off.

        Parameters and errors as for `loss`.

        Returns
        -------
        Gradients
            ``.weights``, ``.biases``, ``.x``, ``.loss`` and, of an encoding, ``.table``.

        Notes
        -----
        6 n n_params floating-point operations.
        """
        rows, target, resolved, weight = self._check("Network.gradients", x, y, loss, sample_weight)
        engine = self._engine or self._make_engine()
        grad = np.empty(self.n_params, self._dtype)
        grad_x = np.empty_like(rows)
        value = engine.evaluate(
            rows, target, resolved, sample_weight=weight, grad=grad, grad_x=grad_x
        )
        weights, biases = unpack(self._spec, grad)
        shape = self._spec.table_shape
        table = grad[self._spec.table_slice].reshape(shape) if shape[0] else None
        return Gradients(weights, biases, grad_x, value, table)

    def _derivatives_of(self, x: npt.ArrayLike, where: str) -> tuple[Engine, Array]:
        rows = as_matrix(x, "x", where, self._d_in, self._dtype)
        return self._engine or self._make_engine(), rows

    def _check(
        self,
        where: str,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        loss: str | Loss | None,
        sample_weight: npt.ArrayLike | None,
    ) -> tuple[Array, Array, Loss, Array | None]:
        """Return x, y, the loss and the weights as the engine wants them."""
        resolved = resolve_loss(loss, self._spec.output, where)
        rows = as_matrix(x, "x", where, self._d_in, self._dtype, min_rows=1)
        target = resolved.check_data(rows, y, self._spec, where)
        return rows, target, resolved, as_weights(sample_weight, len(rows), where, self._dtype)

    # --- parameters in, state out ----------------------------------------------------------------

    def _make_engine(self) -> Engine:
        engine = make_engine(self._spec, self._theta)
        self._engine = engine
        return engine

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a model file, all or nothing; `lamina.load` reads it.

        Raises
        ------
        ModelFileError
            `path` cannot be written.
        """
        modelfile.write(path, "network", self._spec.to_json(), {"theta": self._theta})

    @classmethod
    def from_file_parts(cls, spec: Mapping[str, Any], arrays: Mapping[str, Array]) -> Network:
        """Make a network of what `modelfile.read` returned for the role "network".

        Raises
        ------
        SpecError, ShapeError, DataError
            The parts are not those of a network, or do not belong together.
        """
        checked = NetworkSpec.from_json(spec)
        return cls.from_spec(checked, modelfile.theta_alone(arrays, checked.dtype, "Network"))

    def __getstate__(self) -> tuple[dict[str, Any], Array]:
        return self._spec.to_json(), self._theta

    def __setstate__(self, state: tuple[dict[str, Any], Array]) -> None:
        spec, theta = state
        self._hold(NetworkSpec.from_json(spec), np.array(theta))


def _as_rows(x: object, d_in: int, dtype: np.dtype[Any]) -> Array:
    """Return `x` as a contiguous (n, d_in) of `dtype`; NaN and infinity pass."""
    try:
        if x is None:  # NumPy would make it NaN
            raise TypeError
        rows = np.asarray(x)
        if rows.dtype.kind not in "fiubO":
            raise TypeError
        with np.errstate(over="ignore"):  # 1e300 is infinity in float32
            rows = np.require(rows, dtype, ["C", "A"])
    except (TypeError, ValueError) as error:
        got = f"an array of {x.dtype}" if isinstance(x, np.ndarray) else f"a {type(x).__name__}"
        raise DataError(
            f"Network: expected x of shape (n, {d_in}) as rows of real numbers, "
            f"got {'None' if x is None else got + ' that is not'}. Convert it to numbers first."
        ) from error
    if rows.ndim != 2 or rows.shape[1] != d_in:
        advice = "Give one row a sample and one column a feature"
        if rows.shape == (d_in,):
            advice = "For a single row pass x[None, :]"
        raise ShapeError(f"Network: expected x of shape (n, {d_in}), got {rows.shape}. {advice}.")
    return rows

"""BatchEnsemble: members that share their weights and differ in scales and biases."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core import modelfile
from lamina.core.checks import as_matrix, as_weights, check_count, resolve_rng
from lamina.core.derivative_losses import DerivativeLoss
from lamina.core.engine import Engine, make_engine, require_memory
from lamina.core.errors import SpecError
from lamina.core.initialize import initialize
from lamina.core.losses import Loss, resolve_loss
from lamina.core.network import _as_rows as as_input
from lamina.core.parameters import finite_copy
from lamina.core.spec import NetworkSpec

Array = npt.NDArray[Any]

MOST_MEMBERS = 65536


@dataclass(frozen=True)
class BatchEnsembleSpec(NetworkSpec):
    """The architecture of a `BatchEnsemble`: that of one network, and how many share its weights.

    theta is, layer by layer, W (d_l, fan_in), input scales (n_members, fan_in), output scales and
    biases (n_members, d_l).
    """

    shared_by: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.shared_by, "n_members", "BatchEnsemble")
        if self.shared_by > MOST_MEMBERS:
            raise SpecError(
                f"BatchEnsemble: expected at most {MOST_MEMBERS} members, got {self.shared_by}. "
                "Make several ensembles."
            )
        if self.skips or self.residual or self.encoding is not None:
            raise SpecError(
                "BatchEnsemble: expected no skips, residual or encoding, got one. "
                "Use lamina.Ensemble for such networks."
            )

    @property
    def n_members(self) -> int:
        """How many share the weights."""
        return self.shared_by

    def parameter_shapes(self) -> tuple[tuple[tuple[int, int], tuple[int]], ...]:
        """((d_l, fan_in_l), (the numbers of all members' vectors,)) for each layer."""
        dims = self.layer_dims
        pairs = zip(dims[1:], dims[:-1], strict=True)
        return tuple(((d, f), (self.shared_by * (f + 2 * d),)) for d, f in pairs)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON types that ``from_json`` turns back into an equal specification."""
        return {**super().to_json(), "shared_by": self.shared_by}


@dataclass(frozen=True)
class SharedParameters:
    """Arrays of one number a parameter, one a layer: parameters, or derivatives of a loss.

    Attributes
    ----------
    weights : list of arrays (d_l, fan_in_l)
    input_scales : list of arrays (n_members, fan_in_l)
    output_scales, biases : list of arrays (n_members, d_l)
    """

    weights: list[Array]
    input_scales: list[Array]
    output_scales: list[Array]
    biases: list[Array]


class BatchEnsemble:
    """An ensemble whose members share their weights; calling it returns the mean of its members.

    ::

        u = h_{l-1} * r_i,  z = (u W_l^T) * s_i + b_i,  h_l = phi(z)       for member i

    Parameters
    ----------
    d_in, widths, d_out, activation, output, dropout, dtype
        As for `Network`, one member.
    n_members : int ≥ 1, default 32
        k. More cost arithmetic in proportion, but hardly any parameters: each fan_in + 2 d_l a
        layer.
    rng : int or numpy.random.Generator, optional
        The seed of the first weights and scales. The first layer's input scales are ±1 at random,
        so that members begin different; all other scales are 1 (TabM, section 3.3).

    Raises
    ------
    SpecError
        An argument is not as described.

    Notes
    -----
    `lamina.train` trains it: every row passes through all members, and the loss is the mean over
    members of each one's own. Weight decay and l2 pull at the shared weights only. A row costs
    what k networks' rows cost; what k separate networks pay k times and this once a step is the
    optimiser, the weights' way through the caches, and the start of a step. Small batches gain
    most, large ones little.

    References
    ----------
    Wen, Tran and Ba 2020, arXiv:2002.06715, eq. 5; Gorishniy, Kotelnikov and Babenko 2024, "TabM",
    arXiv:2410.24210, section 3.

    Examples
    --------
    >>> import lamina, numpy as np
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> model = lamina.BatchEnsemble(1, (16,), 1, n_members=8, rng=0)
    >>> history = lamina.train(model, x, x**2, max_epochs=5, rng=0)
    >>> model(x).shape, model.predict_members(x).shape
    ((64, 1), (8, 64, 1))
    """

    __slots__ = ("__weakref__", "_engine", "_spec", "_theta")

    def __init__(
        self,
        d_in: int,
        widths: Iterable[int],
        d_out: int,
        *,
        n_members: int = 32,
        activation: str | Iterable[str] = "relu",
        output: str = "identity",
        dropout: float = 0.0,
        dtype: npt.DTypeLike = "float32",
        rng: int | np.random.Generator | None = None,
    ) -> None:
        one = NetworkSpec.create(
            d_in,
            widths,
            d_out,
            activation=activation,
            output=output,
            dropout=dropout,
            dtype=dtype,
        )
        count = check_count(n_members, "n_members", "BatchEnsemble")
        values = {field.name: getattr(one, field.name) for field in fields(one)}
        spec = BatchEnsembleSpec(**values, shared_by=count)
        require_memory(16 * spec.n_params)
        generator = resolve_rng(rng)
        first = initialize(one, generator)
        theta = np.ones(spec.n_params, one.dtype)
        parts = _unpack(spec, theta)
        for layer, (weight, bias) in enumerate(one.slices()):
            parts.weights[layer][...] = first[weight].reshape(parts.weights[layer].shape)
            parts.biases[layer][...] = first[bias]
        scales = parts.input_scales[0]
        scales[...] = generator.choice([-1.0, 1.0], scales.shape)
        self._hold(spec, theta)

    def _hold(self, spec: BatchEnsembleSpec, theta: Array) -> None:
        self._spec = spec
        self._engine: Engine | None = None
        theta.flags.writeable = False
        self._theta = theta

    @property
    def spec(self) -> BatchEnsembleSpec:
        """The architecture."""
        return self._spec

    @property
    def n_members(self) -> int:
        """How many share the weights."""
        return self._spec.n_members

    @property
    def n_params(self) -> int:
        """Weights, scales and biases together."""
        return self._theta.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of parameters and arithmetic."""
        return self._theta.dtype

    @property
    def theta(self) -> Array:
        """The flat parameter vector (n_params,), read-only; assigning copies in.

        Layer by layer: the weight, all input scales, all output scales, all biases.
        """
        return self._theta

    @theta.setter
    def theta(self, value: npt.ArrayLike) -> None:
        theta = finite_copy(value, self._theta.shape, "BatchEnsemble.theta", self.dtype)
        theta.flags.writeable = False
        self._theta = theta
        if self._engine is not None:
            self._engine.set_parameters(theta)

    @property
    def parameters(self) -> SharedParameters:
        """Read-only views of theta, one array a layer."""
        return _unpack(self._spec, self._theta)

    def __repr__(self) -> str:
        spec = self._spec
        return (
            f"BatchEnsemble({spec.d_in}, {spec.widths}, {spec.d_out}, n_members={self.n_members}, "
            f"output={spec.output!r}, dtype={spec.dtype!r})  # {self.n_params:,} parameters"
        )

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return the mean of the members' outputs for the rows of `x`.

        Parameters
        ----------
        x : array-like (n, d_in)
            As for calling a `Network`.

        Returns
        -------
        y_pred : array (n, d_out)
        """
        return self._made().forward(as_input(x, self._spec.d_in, self.dtype))

    def predict_members(self, x: npt.ArrayLike) -> Array:
        """Return every member's output for the rows of `x`, (n_members, n, d_out)."""
        return self._made().forward_members(as_input(x, self._spec.d_in, self.dtype))

    def loss(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        loss: str | Loss | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> float:
        """Return the mean over members of each one's loss; arguments as for `Network.loss`."""
        rows, target, resolved, weight = self._check(
            "BatchEnsemble.loss", x, y, loss, sample_weight
        )
        return self._made().evaluate(rows, target, resolved, sample_weight=weight)

    def gradients(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        loss: str | Loss | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> SharedParameters:
        """Return the derivatives of `loss` by every parameter; arguments as for `loss`."""
        rows, target, resolved, weight = self._check(
            "BatchEnsemble.gradients", x, y, loss, sample_weight
        )
        grad = np.empty(self.n_params, self.dtype)
        self._made().evaluate(rows, target, resolved, sample_weight=weight, grad=grad)
        return _unpack(self._spec, grad)

    def _check(
        self, where: str, x: object, y: object, loss: str | Loss | None, sample_weight: object
    ) -> tuple[Array, Array, Loss, Array | None]:
        spec = self._spec
        resolved = plain_loss(resolve_loss(loss, spec.output, where), where)
        rows = as_matrix(x, "x", where, spec.d_in, self.dtype, min_rows=1)
        target = resolved.check_target(y, len(rows), spec.d_out, self.dtype, where)
        return rows, target, resolved, as_weights(sample_weight, len(rows), where, self.dtype)

    def _made(self) -> Engine:
        if self._engine is None:
            self._engine = make_engine(self._spec, self._theta)
        return self._engine

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the ensemble to a model file, all or nothing; `lamina.load` reads it.

        Raises
        ------
        ModelFileError
            `path` cannot be written.
        """
        modelfile.write(path, "batch_ensemble", self._spec.to_json(), {"theta": self._theta})

    @classmethod
    def from_file_parts(cls, spec: Mapping[str, Any], arrays: Mapping[str, Array]) -> BatchEnsemble:
        """Make an ensemble of what `modelfile.read` returned for the role "batch_ensemble".

        Raises
        ------
        SpecError, ShapeError, DataError
            The parts are not those of an ensemble, or do not belong together.
        """
        checked = BatchEnsembleSpec.from_json(spec)
        theta = modelfile.theta_alone(arrays, checked.dtype, "BatchEnsemble")
        model = cls.__new__(cls)
        model._hold(
            checked, finite_copy(theta, (checked.n_params,), "theta", np.dtype(checked.dtype))
        )
        return model

    def __getstate__(self) -> tuple[dict[str, Any], Array]:
        return self._spec.to_json(), self._theta

    def __setstate__(self, state: tuple[dict[str, Any], Array]) -> None:
        spec, theta = state
        self._hold(BatchEnsembleSpec.from_json(spec), np.array(theta))


def plain_loss(loss: Loss, where: str) -> Loss:
    """Return `loss`, which may not contain derivatives by x: the members have none."""
    if isinstance(loss, DerivativeLoss):
        raise SpecError(
            f"{where}: expected a loss of the outputs with a BatchEnsemble, got {loss!r}. "
            "Use a Network for losses that contain derivatives."
        )
    return loss


def _unpack(spec: BatchEnsembleSpec, theta: Array) -> SharedParameters:
    """Return views on a vector in theta's layout."""
    k, dims = spec.n_members, spec.layer_dims
    result = SharedParameters([], [], [], [])
    start = 0
    for d, fan_in in zip(dims[1:], dims[:-1], strict=True):
        for part, shape in (
            (result.weights, (d, fan_in)),
            (result.input_scales, (k, fan_in)),
            (result.output_scales, (k, d)),
            (result.biases, (k, d)),
        ):
            stop = start + shape[0] * shape[1]
            part.append(theta[start:stop].reshape(shape))
            start = stop
    return result

"""A loss of the caller's own, of the outputs and their derivatives by the inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import as_matrix
from lamina.core.curvature import axis_weights, check_smooth
from lamina.core.derivative_losses import DerivativeLoss
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.core.losses import Target
from lamina.core.spec import NetworkSpec

Array = NDArray[Any]
Function = Callable[[Array, Array, Array, Array, Array | None], Sequence[Any]]

_PARTS = ("loss", "d_values", "d_jacobian", "d_curvature")


class JetEngine(Protocol):
    """What an engine needs to have for a `JetLoss`: `Engine` of core/engine.py has it."""

    @property
    def spec(self) -> NetworkSpec:
        """The architecture."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its arrays."""

    @property
    def jet(self) -> Callable[..., None]:
        """Derivatives of outputs."""

    @property
    def jet_backward(self) -> Callable[..., None]:
        """Gradients of a function of these."""


@dataclass(frozen=True, repr=False)
class JetLoss(DerivativeLoss):
    """A loss that you write in NumPy: of values, first and weighted second derivatives.

    For physics: the residual of a differential equation, its boundary values, measured slopes.
    `lamina.train`, ``net.loss`` and ``net.gradients`` take it like any other loss. ::

        loss, d_values, d_jacobian, d_curvature = function(x, y, values, jacobian, curvature)

    Parameters
    ----------
    function : callable
        Called with arrays of the network's dtype for the rows of a batch:

        - ``x`` (n, d_in) and ``y`` (n, k), read-only: the rows, and whatever `y` was given;
        - ``values`` (n, d_out): y_pred, the output unit included;
        - ``jacobian`` (n, d_out, d_in): d y_pred / d x;
        - ``curvature`` (n, d_out): sum_j c_j d^2 y_pred / d x_j^2; None without `curvature`.

        Returns ``loss`` (n,), one number a row, and the derivative of each row's loss by that
        row's values, jacobian and curvature, of their shapes; None for one that is zero.
    curvature : bool or sequence of d_in float, default False
        Whether second derivatives are wanted: True for the Laplacian, or the weight c_j of each
        axis, such as ``(1, -4)`` for the wave operator of (t, x) at speed 2. Activations must be
        smooth then (sine, tanh, softplus, silu, gelu). A grid's second derivatives jump, so that
        equations of second order are better solved without one.

    Raises
    ------
    SpecError
        `function` cannot be called. When used: no smooth activations, or a linear `HashGrid`.
    ShapeError, DataError
        When used: `function` returns something else than described, or numbers not finite.

    Notes
    -----
    The loss is the mean over rows, weighted by `sample_weight`. Costs d_in + 1 times ordinary
    training (d_in + 2 with curvature), once more forward, and a call of `function` a step. `y`
    may be None, or have any number of columns k, NaN included: it is for `function` alone. An
    exception in `function` ends training; the network keeps the last whole step's parameters.
    Dropout must be 0.

    References
    ----------
    Raissi, Perdikaris and Karniadakis (2019), "Physics-informed neural networks", Journal of
    Computational Physics 378.

    Examples
    --------
    u'' = -sin x with u = 0 at both ends of [0, pi]; y says which rows are ends:

    >>> import lamina, numpy as np
    >>> def residual(x, y, values, jacobian, curvature):
    ...     inside = 1 - y  # (n, 1)
    ...     r = inside * (curvature + np.sin(x))
    ...     b = y * values
    ...     return (r**2 + b**2)[:, 0], 2 * y * b, None, 2 * inside * r
    >>> x = np.linspace(0, np.pi, 33)[:, None]
    >>> y = ((x == 0) | (x == np.pi)).astype(float)
    >>> net = lamina.Network(1, (16,), 1, activation="tanh", rng=0)
    >>> loss = lamina.JetLoss(residual, curvature=True)
    >>> before = net.loss(x, y, loss)
    >>> _ = lamina.train(net, x, y, loss=loss, batch_size=33, max_epochs=50, rng=0)
    >>> net.loss(x, y, loss) < before
    True
    """

    name: ClassVar[str] = "jet"
    function: Function
    curvature: bool | tuple[float, ...] = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise SpecError(
                f"JetLoss: expected function to be callable, got {self.function!r}. "
                "Pass a function of (x, y, values, jacobian, curvature)."
            )
        if not isinstance(self.curvature, bool):
            row = as_matrix(np.atleast_2d(np.asarray(self.curvature)), "curvature", "JetLoss")
            object.__setattr__(self, "curvature", tuple(row.ravel().tolist()))

    @property
    def label(self) -> str:
        """How sentences name it."""
        return f"JetLoss({getattr(self.function, '__name__', 'function')})"

    def __repr__(self) -> str:
        return self.label

    @property
    def params(self) -> list[float]:
        """None: the engine does not know this loss."""
        return []

    def has_gradients(self) -> bool:
        """Whether y holds derivatives: what it holds is the function's affair."""
        return False

    def check_data(self, x: Array, y: Any, spec: NetworkSpec, where: str) -> Target:
        """Return y as (n, k); the network must have the derivatives that are asked for."""
        self.check_activations(spec, where)
        if self.curvature is not False:
            check_smooth(spec, where)
            self._weights(spec.d_in)
        if y is None:
            return np.empty((len(x), 0), spec.dtype)
        try:
            raw = np.asarray(y, spec.dtype)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{where}: expected y as an array of real numbers, got a {type(y).__name__} that "
                "is not. Pass numbers, NaN where one is not known, or None."
            ) from error
        if raw.ndim == 1:
            raw = raw[:, np.newaxis]
        if raw.ndim != 2 or len(raw) != len(x):
            raise ShapeError(
                f"{where}: expected y of shape ({len(x)}, k) or ({len(x)},), got {raw.shape}. "
                "Give one row a row of x, or None."
            )
        if np.isinf(raw).any():
            raise DataError(
                f"{where}: expected finite numbers or NaN in y, got infinity. Drop those rows."
            )
        return raw

    def evaluate(
        self,
        engine: JetEngine,
        x: Array,
        y: Array,
        sample_weight: Array | None = None,
        grad: Array | None = None,
        grad_x: Array | None = None,
        n_threads: int | None = None,
    ) -> float:
        """Return the weighted mean of the rows' losses, and fill the gradients asked for.

        Raises
        ------
        ShapeError, DataError
            The function returned something else than it should.
        """
        spec, n = engine.spec, len(x)
        made: dict[str, Array] = {
            "values": np.empty((n, spec.d_out), engine.dtype),
            "jacobian": np.empty((n, spec.d_out, spec.d_in), engine.dtype),
        }
        weights = self._weights(spec.d_in)
        if weights is not None:
            made["curvature"] = np.empty((n, spec.d_out), engine.dtype)
        engine.jet(x, coefficients=weights, n_threads=n_threads, **made)
        row_loss, seeds = self._call(x, y, made)
        w = np.ones(n) if sample_weight is None else np.asarray(sample_weight, np.float64)
        share = w / w.sum()  # (n,)
        if grad is not None or grad_x is not None:
            scaled = {
                name: seed * share.reshape(-1, *[1] * (seed.ndim - 1))
                for name, seed in seeds.items()
            }
            engine.jet_backward(
                x, coefficients=weights, grad=grad, grad_x=grad_x, n_threads=n_threads, **scaled
            )
        return float(share @ row_loss)

    def _weights(self, d_in: int) -> Array | None:
        """The weight of each axis' second derivative; None where there is no curvature."""
        if self.curvature is False:
            return None
        return axis_weights(None if self.curvature is True else self.curvature, d_in, "JetLoss")

    def _call(self, x: Array, y: Array, made: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        """Return the rows' losses (n,) and d loss by what was made, checked."""
        inputs = [x.view(), y.view()]
        for a in inputs:
            a.flags.writeable = False
        is_finite = all(np.isfinite(a).all() for a in made.values())
        found = self.function(
            inputs[0], inputs[1], made["values"], made["jacobian"], made.get("curvature")
        )
        if not isinstance(found, tuple | list) or len(found) != len(_PARTS):
            raise ShapeError(
                f"{self.label}: expected four results ({', '.join(_PARTS)}), got "
                f"{_kind(found)}. Return None for a derivative that is zero."
            )
        shapes: dict[str, tuple[int, ...]] = {"loss": (len(x),)}
        shapes |= {f"d_{name}": a.shape for name, a in made.items()}
        checked: dict[str, Array] = {}
        for name, part in zip(_PARTS, found, strict=True):
            if part is None and name != "loss":
                continue
            if name not in shapes:
                raise ShapeError(
                    f"{self.label}: expected None for d_curvature without curvature, got "
                    f"{_kind(part)}. Make it with JetLoss(function, curvature=True)."
                )
            checked[name] = self._part(name, part, shapes[name], is_finite)
        return checked.pop("loss"), checked

    def _part(self, name: str, part: Any, shape: tuple[int, ...], is_finite: bool) -> Array:
        try:
            array: Array = np.asarray(part, np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{self.label}: expected {name} as an array of real numbers, got {_kind(part)}. "
                "Return NumPy arrays."
            ) from error
        if array.shape != shape:
            raise ShapeError(
                f"{self.label}: expected {name} of shape {shape}, got {array.shape}. "
                "Return one loss a row, and derivatives of the shapes of what was passed in."
            )
        if is_finite and not np.isfinite(array).all():
            raise DataError(
                f"{self.label}: expected finite numbers in {name} for finite inputs, got NaN or "
                "infinity. Guard divisions, roots and logarithms in the function."
            )
        return array


def _kind(found: object) -> str:
    if isinstance(found, tuple | list):
        return f"{len(found)} of them"
    return f"a {type(found).__name__}"

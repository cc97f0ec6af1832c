"""Losses as float64 formulas, the targets they accept, and the output units they go with.

The native engine computes the same functions; tests compare it with these.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lamina.core.checks import as_classes, as_target, check_choice, check_number, shape_of
from lamina.core.errors import DataError, SpecError
from lamina.core.functions import OUTPUTS, Float64, Output, log_softmax, softmax, softplus

Target = NDArray[Any]
"""A checked target: float (n, target_width), or int32 classes (n,)."""


@dataclass(frozen=True)
class Loss:
    """A loss of one row: ``sum_j v_j l_j / d_out``, unless the class says otherwise.

    Attributes
    ----------
    name : str
        The name that users and the native engine know it by.
    outputs : tuple of str
        The output units it goes with.
    target_range : (float, float)
        The values a target may have.

    Notes
    -----
    ``value`` and ``gradient`` start from z, the pre-activation of the output unit, so that a loss
    and its natural output unit stay exact where the unit saturates. ``v`` (d_out,) are the
    weights of the outputs.
    """

    name: ClassVar[str] = ""
    outputs: ClassVar[tuple[str, ...]] = tuple(OUTPUTS)
    target_range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)

    @property
    def params(self) -> list[float]:
        """The numbers that the native engine needs beside the name."""
        return [float(p) for field in fields(self) for p in np.ravel(getattr(self, field.name))]

    def target_width(self, d_out: int) -> int:
        """Columns of the target for a network of ``d_out`` outputs."""
        return d_out

    def check_target(self, y: object, n: int, d_out: int, dtype: DTypeLike, where: str) -> Target:
        """Return the target as the engine takes it, or say what is wrong with it.

        Parameters
        ----------
        y : array-like
            What the user passed: shape (n, target_width), or (n,) if that is 1.
        n, d_out : int
            The rows of the inputs and the outputs of the network.
        dtype : float32 or float64
            The type of the result.
        where : str
            The function, for the error sentence.

        Returns
        -------
        ndarray, shape (n, target_width)

        Raises
        ------
        ShapeError, DataError, SpecError
            If the shape, the values or the outputs of the network do not suit the loss.
        """
        target = as_target(y, n, self.target_width(d_out), where, dtype)
        low, high = self.target_range
        if target.size and (target.min() < low or target.max() > high):
            raise DataError(
                f"{where}: expected y in [{low:g}, {high:g}] for loss {self.name}, "
                f"got {target.min():g} to {target.max():g}. Rescale y or choose another loss."
            )
        return target

    def check_data(self, x: NDArray[Any], y: object, spec: Any, where: str) -> Target:
        """Return the target of checked rows x for the network of a NetworkSpec."""
        return self.check_target(y, len(x), spec.d_out, spec.dtype, where)

    def value(self, z: Float64, y: Target, v: Float64, output: Output) -> Float64:
        """Losses of the rows, shape (n,), from z (n, d_out) and a checked target."""
        raise NotImplementedError

    def gradient(self, z: Float64, y: Target, v: Float64, output: Output) -> Float64:
        """The derivatives of ``value`` with respect to z, shape (n, d_out)."""
        raise NotImplementedError


# --- losses of y_pred: any output unit --------------------------------------------------------


@dataclass(frozen=True)
class _PredictionLoss(Loss):
    """A loss with l_j = element(y_pred_j, y_j) and slope = d element / d y_pred."""

    def value(self, z: Float64, y: Target, v: Float64, output: Output) -> Float64:
        """Losses of the rows, as in ``Loss.value``."""
        return np.asarray((v * self._element(output.value(z), y)).mean(axis=1))

    def gradient(self, z: Float64, y: Target, v: Float64, output: Output) -> Float64:
        """Carry the slope back through the output unit, as in ``Loss.gradient``."""
        y_pred = output.value(z)
        return output.pullback(y_pred, v * self._slope(y_pred, y) / z.shape[1])

    def _element(self, y_pred: Float64, y: Target) -> Float64:
        raise NotImplementedError

    def _slope(self, y_pred: Float64, y: Target) -> Float64:
        raise NotImplementedError


@dataclass(frozen=True)
class SquaredError(_PredictionLoss):
    """(y_pred - y)^2."""

    name: ClassVar[str] = "squared_error"

    def _element(self, y_pred: Float64, y: Target) -> Float64:
        return np.asarray((y_pred - y) ** 2)

    def _slope(self, y_pred: Float64, y: Target) -> Float64:
        return np.asarray(2.0 * (y_pred - y))


@dataclass(frozen=True)
class AbsoluteError(_PredictionLoss):
    """|y_pred - y|, with subgradient 0 where they are equal."""

    name: ClassVar[str] = "absolute_error"

    def _element(self, y_pred: Float64, y: Target) -> Float64:
        return np.asarray(np.abs(y_pred - y))

    def _slope(self, y_pred: Float64, y: Target) -> Float64:
        return np.asarray(np.sign(y_pred - y))


@dataclass(frozen=True)
class Huber(_PredictionLoss):
    """0.5 r^2 for |r| <= delta, else delta (|r| - delta/2), where r = y_pred - y.

    Parameters
    ----------
    delta : float, default 1.0, greater than 0
        In units of the target: larger errors count linearly. Set it near the scale of the noise.

    References
    ----------
    Huber (1964), "Robust estimation of a location parameter", Annals of Mathematical Statistics.
    """

    name: ClassVar[str] = "huber"
    delta: float = 1.0

    def __post_init__(self) -> None:
        delta = check_number(self.delta, "delta", "Huber", 0.0, math.inf, "neither")
        object.__setattr__(self, "delta", delta)

    def _element(self, y_pred: Float64, y: Target) -> Float64:
        r = np.abs(y_pred - y)
        return np.where(r <= self.delta, 0.5 * r * r, self.delta * (r - 0.5 * self.delta))

    def _slope(self, y_pred: Float64, y: Target) -> Float64:
        return np.clip(y_pred - y, -self.delta, self.delta)


@dataclass(frozen=True)
class Pinball(_PredictionLoss):
    """The quantile loss max(q r, (q - 1) r), r = y - y_pred, for several levels q at once.

    Output column ``t * n_levels + k`` is level k of target t; the subgradient at r = 0 is 0.

    Parameters
    ----------
    levels : tuple of float, default (0.5,), each in (0, 1)
        The quantiles to predict; the default predicts the median.

    References
    ----------
    Koenker and Bassett (1978), "Regression quantiles", Econometrica 46.
    """

    name: ClassVar[str] = "pinball"
    levels: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", _as_levels(self.levels))

    def target_width(self, d_out: int) -> int:
        """Targets of the network: d_out / n_levels, which must be whole."""
        if d_out % len(self.levels):
            raise SpecError(
                f"Pinball: expected d_out to be a multiple of the {len(self.levels)} levels, "
                f"got {d_out}. Make a network with n_targets * {len(self.levels)} outputs."
            )
        return d_out // len(self.levels)

    def _residual(self, y_pred: Float64, y: Target) -> tuple[Float64, Float64]:
        """Return r (n, d_out) and the level of each output (d_out,)."""
        n_levels = len(self.levels)
        r = np.repeat(y, n_levels, axis=1) - y_pred  # (n, n_targets) -> (n, d_out)
        return r, np.tile(self.levels, r.shape[1] // n_levels)

    def _element(self, y_pred: Float64, y: Target) -> Float64:
        r, q = self._residual(y_pred, y)
        return np.maximum(q * r, (q - 1.0) * r)

    def _slope(self, y_pred: Float64, y: Target) -> Float64:
        r, q = self._residual(y_pred, y)
        return np.where(r == 0, 0.0, np.heaviside(-r, 0.0) - q)


# --- losses of z: one natural output unit, so that d l / d z = y_pred - y ---------------------


@dataclass(frozen=True)
class _LikelihoodLoss(Loss):
    """A negative log-likelihood l_j = element(z_j, y_j) whose slope in z is y_pred - y."""

    def value(self, z: Float64, y: Target, v: Float64, output: Output) -> Float64:  # noqa: ARG002
        """Losses of the rows, as in ``Loss.value``."""
        return np.asarray((v * self._element(z, y)).mean(axis=1))

    def gradient(self, z: Float64, y: Target, v: Float64, output: Output) -> Float64:
        """The derivatives, as in ``Loss.gradient``."""
        return np.asarray(v * (output.value(z) - y) / z.shape[1])

    def _element(self, z: Float64, y: Target) -> Float64:
        raise NotImplementedError


@dataclass(frozen=True)
class BinaryCrossEntropy(_LikelihoodLoss):
    """-y log p - (1 - y) log(1 - p) with p = sigmoid(z), a target in [0, 1] for each output."""

    name: ClassVar[str] = "binary_cross_entropy"
    outputs: ClassVar[tuple[str, ...]] = ("sigmoid",)
    target_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def _element(self, z: Float64, y: Target) -> Float64:
        return np.asarray(y * softplus(-z) + (1.0 - y) * softplus(z))


@dataclass(frozen=True)
class Poisson(_LikelihoodLoss):
    """y_pred - y log y_pred with y_pred = exp(z), that is exp(z) - y z, for a target y >= 0."""

    name: ClassVar[str] = "poisson"
    outputs: ClassVar[tuple[str, ...]] = ("exp",)
    target_range: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def _element(self, z: Float64, y: Target) -> Float64:
        return np.asarray(np.exp(z) - y * z)


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """-sum_j v_j t_j log p_j with p = softmax(z): a sum over the outputs, not a mean.

    t is the one-hot row of an integer class, or a given row of probabilities, smoothed to
    (1 - s) t + s / d_out.

    Parameters
    ----------
    label_smoothing : float, default 0.0, in [0, 1)
        s. A little, such as 0.1, keeps a network from growing over-confident.

    References
    ----------
    Szegedy et al. (2016), arXiv:1512.00567, section 7.
    """

    name: ClassVar[str] = "cross_entropy"
    outputs: ClassVar[tuple[str, ...]] = ("softmax",)
    target_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        s = check_number(self.label_smoothing, "label_smoothing", "CrossEntropy", 0.0, 1.0, "left")
        object.__setattr__(self, "label_smoothing", s)

    def check_target(self, y: object, n: int, d_out: int, dtype: DTypeLike, where: str) -> Target:
        """Return classes as int32 (n,), or rows of probabilities (n, d_out), as ``Loss`` does.

        One column is read as classes, several as probabilities whose rows sum to 1 within 1e-3.
        """
        shape = shape_of(y)
        if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1 and d_out > 1):
            return as_classes(y, n, d_out, where)
        target = super().check_target(y, n, d_out, dtype, where)
        error = float(np.abs(target.sum(axis=1) - 1.0).max(initial=0.0))
        if error > 1e-3:
            raise DataError(
                f"{where}: expected rows of probabilities in y, got a row whose sum is off by "
                f"{error:g}. Divide each row by its sum, or pass integer classes."
            )
        return target

    def probabilities(self, y: Target, d_out: int) -> Float64:
        """The smoothed rows t, shape (n, d_out), of classes (n,) or of rows (n, d_out)."""
        t = np.eye(d_out)[y.astype(np.intp)] if y.ndim == 1 else y  # (n, d_out)
        return np.asarray((1.0 - self.label_smoothing) * t + self.label_smoothing / d_out)

    def value(self, z: Float64, y: Target, v: Float64, output: Output) -> Float64:  # noqa: ARG002
        """Losses of the rows, as in ``Loss.value``."""
        t = self.probabilities(y, z.shape[1])
        return np.asarray(-(v * t * log_softmax(z)).sum(axis=1))

    def gradient(self, z: Float64, y: Target, v: Float64, output: Output) -> Float64:  # noqa: ARG002
        """p_j sum_k v_k t_k - v_j t_j, as in ``Loss.gradient``."""
        vt = v * self.probabilities(y, z.shape[1])  # (n, d_out)
        return np.asarray(softmax(z) * vt.sum(axis=1, keepdims=True) - vt)


# --- names ------------------------------------------------------------------------------------

_LOSSES: Final = (
    SquaredError,
    AbsoluteError,
    Huber,
    BinaryCrossEntropy,
    CrossEntropy,
    Poisson,
    Pinball,
)
LOSSES: Final[dict[str, type[Loss]]] = {loss.name: loss for loss in _LOSSES}
DEFAULT_LOSS: Final[dict[str, type[Loss]]] = {
    "identity": SquaredError,
    "sigmoid": BinaryCrossEntropy,
    "softmax": CrossEntropy,
    "exp": Poisson,
    "step": SquaredError,
}


def resolve_loss(loss: str | Loss | None, output: str, where: str = "loss") -> Loss:
    """Return the loss object of a name, an object or None, checked against the output unit.

    Parameters
    ----------
    loss : str, Loss or None
        None follows the output unit: identity and step take squared_error, sigmoid
        binary_cross_entropy, softmax cross_entropy, exp poisson.
    output : str
        The output unit of the network.
    where : str
        The function, for the error sentence.

    Returns
    -------
    Loss

    Raises
    ------
    SpecError
        If the name is unknown or the loss does not go with the output unit.

    Examples
    --------
    >>> resolve_loss(None, "softmax")
    CrossEntropy(label_smoothing=0.0)
    >>> resolve_loss("huber", "identity").params
    [1.0]
    """
    check_choice(output, OUTPUTS, "output", where)
    if loss is None:
        return DEFAULT_LOSS[output]()
    resolved = (
        loss if isinstance(loss, Loss) else LOSSES[check_choice(loss, LOSSES, "loss", where)]()
    )
    if output not in resolved.outputs:
        raise SpecError(
            f"{where}: expected output {' or '.join(resolved.outputs)} with loss {resolved.name}, "
            f"got output {output}. Change the network's output or the loss."
        )
    return resolved


def _as_levels(levels: object) -> tuple[float, ...]:
    """The levels of Pinball as a tuple; one number is one level."""
    several = tuple(levels) if isinstance(levels, Iterable) else (levels,)
    if not several:
        raise SpecError(
            "Pinball: expected at least one level, got none. Pass levels such as (0.1, 0.9)."
        )
    return tuple(check_number(q, "each level", "Pinball", 0.0, 1.0, "neither") for q in several)

"""Losses that compare derivatives of the outputs with respect to the inputs, not values alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lamina.core.checks import check_choice, check_number, shape_of
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.core.losses import Loss, Target

VALUE_LOSSES = ("squared_error", "absolute_error")


@dataclass(frozen=True)
class DerivativeLoss(Loss):
    """What Eikonal and Sobolev have in common: the layout of y, and NaN where it is unknown."""

    def has_gradients(self) -> bool:
        """Whether y holds derivatives beside values."""
        raise NotImplementedError

    def check_data(self, x: NDArray[Any], y: Any, spec: Any, where: str) -> Target:
        """Return y as the engine takes it, (n, d_out) or (n, d_out * (1 + d_in)).

        Parameters
        ----------
        x : array (n, d_in)
        y : array-like, or pair (values, gradients) where the loss compares gradients
            values (n, d_out), or (n,) for one output; gradients (n, d_out, d_in), or (n, d_in)
            for one output. NaN is an unknown target, which has no term in the loss.
        spec : NetworkSpec
        where : str
            The function, for the error sentence.

        Raises
        ------
        ShapeError, DataError, SpecError
            The shapes do not fit, a value is infinite, or the network has steps.
        """
        self.check_activations(spec, where)
        (n, d_in), d_out, dtype = x.shape, spec.d_out, spec.dtype
        if not self.has_gradients():
            return _known(y, [(n, d_out)], d_out == 1, "y", dtype, where)
        if not (isinstance(y, tuple | list) and len(y) == 2):
            width = d_out * (1 + d_in)
            return _known(y, [(n, width)], False, "y", dtype, where)
        values = _known(y[0], [(n, d_out)], d_out == 1, "values", dtype, where)
        shapes: list[tuple[int, ...]] = [(n, d_out, d_in)]
        if d_out == 1:
            shapes.append((n, d_in))
        gradients = _known(y[1], shapes, False, "gradients", dtype, where)
        return np.concatenate([values, gradients.reshape(n, d_out * d_in)], axis=1)

    def check_activations(self, spec: Any, where: str) -> None:
        """Refuse a network whose outputs do not depend on x but by jumps."""
        if "step" in (*spec.activations, spec.output):
            raise SpecError(
                f"{where}: expected activations with a slope with loss {self.name}, got 'step'. "
                "Use sine, softplus, silu or tanh."
            )

    def check_training(self, dropout: float, precision: str | None) -> None:
        """Refuse what training on derivatives does not have.

        Raises
        ------
        SpecError
            Dropout, whose masks would cut the function that is differentiated, or bfloat16,
            whose rounding would be differentiated with it.
        """
        if dropout:
            raise SpecError(
                f"train: expected dropout 0 with loss {self.name}, got {dropout}. "
                "Make a network without dropout."
            )
        if precision == "bfloat16":
            raise SpecError(
                f"train: expected precision float32 or float64 with loss {self.name}, "
                "got 'bfloat16'. Pass precision=None."
            )


@dataclass(frozen=True)
class Eikonal(DerivativeLoss):
    """A signed distance: known values where y has them, and |grad f| = 1 everywhere.

    ::

        mean over outputs of  l(f - y) + weight (|grad f| - 1)^2 + normals |grad f - n|^2

    where grad f is d y_pred / d x. A NaN in y is a point without a target: of it only the other
    terms count. For a shape, give surface points y = 0 and points drawn at random y = NaN, both
    with the same weight; the loss is the mean over all rows.

    Parameters
    ----------
    weight : float ≥ 0, default 0.1
        Of the eikonal term. Raise it where level sets crowd or spread.
    normals : float ≥ 0, default 0.0
        Of the term for given gradients; then y holds values and gradients, as for `Sobolev`, and
        NaN stands for a normal that is not known.
    value_loss : {"squared_error", "absolute_error"}, default "squared_error"
        l; absolute_error pins the surface harder.

    Notes
    -----
    Costs d_in + 1 times ordinary training. The gradient of the eikonal term is taken as 0 where
    grad f is 0. Hidden activations should be smooth (sine, softplus, silu); with relu only the
    slopes of its pieces learn. Of a HashGrid take interpolation="smoothstep": a linear one's
    gradient jumps at the walls of its cells. Dropout must be 0.

    References
    ----------
    Gropp et al. (2020), "Implicit geometric regularization for learning shapes",
    arXiv:2002.10099, eq. 2 and 3.

    Examples
    --------
    >>> import lamina, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = rng.uniform(-1, 1, (64, 2))
    >>> y = np.where(np.arange(64) < 32, 0.0, np.nan)  # 32 points on the shape, 32 anywhere
    >>> x[:32] /= 2 * np.linalg.norm(x[:32], axis=1, keepdims=True)  # a circle of radius 1/2
    >>> net = lamina.Network(2, (32, 32), 1, activation="softplus", rng=0)
    >>> before = net.loss(x, y, lamina.Eikonal())
    >>> _ = lamina.train(net, x, y, loss=lamina.Eikonal(), max_epochs=20, rng=0)
    >>> net.loss(x, y, lamina.Eikonal()) < before
    True
    """

    # DIFF(Gropp 2020, eq. 2): normals are compared by the squared length of the difference, which
    # is smooth where they are met; there by its length.
    name: ClassVar[str] = "eikonal"
    weight: float = 0.1
    normals: float = 0.0
    value_loss: str = "squared_error"

    def __post_init__(self) -> None:
        for field in ("weight", "normals"):
            number = check_number(getattr(self, field), field, "Eikonal", 0.0, math.inf, "left")
            object.__setattr__(self, field, number)
        check_choice(self.value_loss, VALUE_LOSSES, "value_loss", "Eikonal")

    @property
    def params(self) -> list[float]:
        """The numbers that the native engine needs beside the name."""
        return [self.weight, self.normals, float(self.value_loss == "absolute_error")]

    def has_gradients(self) -> bool:
        """Whether y holds normals."""
        return self.normals > 0


@dataclass(frozen=True)
class Sobolev(DerivativeLoss):
    """Values and given gradients, matched together.

    ::

        mean over outputs of  l(f - y) + weight sum_j (d f / d x_j - g_j)^2

    y is a pair (values, gradients) of shapes (n, d_out) and (n, d_out, d_in), or one array
    (n, d_out * (1 + d_in)) that holds a row's values and then its Jacobian row by row. NaN is a
    number that is not known, and has no term.

    Parameters
    ----------
    weight : float ≥ 0, default 1.0
        Of the gradients' term. Gradients of a fast function are large: lower it until both terms
        are of one size.
    value_loss : {"squared_error", "absolute_error"}, default "squared_error"
        l.

    Notes
    -----
    Costs d_in + 1 times ordinary training. Dropout must be 0.

    References
    ----------
    Czarnecki et al. (2017), "Sobolev training for neural networks", arXiv:1706.04859, eq. 1.

    Examples
    --------
    >>> import lamina, numpy as np
    >>> x = np.linspace(-1, 1, 32)[:, None]
    >>> net = lamina.Network(1, (32,), 1, activation="tanh", rng=0)
    >>> before = net.loss(x, (x**2, 2 * x), lamina.Sobolev())
    >>> _ = lamina.train(net, x, (x**2, 2 * x), loss=lamina.Sobolev(), max_epochs=50, rng=0)
    >>> net.loss(x, (x**2, 2 * x), lamina.Sobolev()) < before
    True
    """

    name: ClassVar[str] = "sobolev"
    weight: float = 1.0
    value_loss: str = "squared_error"

    def __post_init__(self) -> None:
        number = check_number(self.weight, "weight", "Sobolev", 0.0, math.inf, "left")
        object.__setattr__(self, "weight", number)
        check_choice(self.value_loss, VALUE_LOSSES, "value_loss", "Sobolev")

    @property
    def params(self) -> list[float]:
        """The numbers that the native engine needs beside the name."""
        return [self.weight, float(self.value_loss == "absolute_error")]

    def has_gradients(self) -> bool:
        """Whether y holds gradients: always."""
        return True


def _known(
    y: ArrayLike,
    shapes: list[tuple[int, ...]],
    column: bool,
    name: str,
    dtype: DTypeLike,
    where: str,
) -> NDArray[Any]:
    """Return `y` as `dtype` in one of the shapes; NaN may stay, infinity may not."""
    try:
        raw = np.asarray(y, dtype)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: expected {name} as an array of real numbers, got a {type(y).__name__} "
            "that is not. Pass numbers, NaN where one is not known."
        ) from error
    if column and raw.ndim == 1:
        raw = raw[:, np.newaxis]  # (n, 1)
    if raw.shape not in shapes:
        raise ShapeError(
            f"{where}: expected {name} of shape {' or '.join(map(str, shapes))}, got "
            f"{shape_of(y)}. Give one row a row of x; gradients may come in a pair "
            "(values, gradients)."
        )
    if np.isinf(raw).any():
        raise DataError(
            f"{where}: expected finite numbers or NaN in {name}, got infinity. "
            "Use NaN for what is not known."
        )
    return np.ascontiguousarray(raw)

"""Optimisers as frozen configurations; the engine does the arithmetic.

g is the gradient of loss + l2/2 * sum of squared weights (never biases), t the step from 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from lamina.core.checks import check_count, check_number
from lamina.core.errors import SpecError
from lamina.core.schedules import Schedule

_RANGES: dict[str, tuple[float, float, str]] = {
    "lr": (0.0, math.inf, "neither"),
    "beta_1": (0.0, 1.0, "left"),
    "beta_2": (0.0, 1.0, "left"),
    "epsilon": (0.0, math.inf, "neither"),
    "momentum": (0.0, 1.0, "left"),
    "weight_decay": (0.0, math.inf, "left"),
    "l2": (0.0, math.inf, "left"),
    "tol": (0.0, math.inf, "left"),
}


class Optimizer:
    """What the optimisers share: fields checked when made."""

    def __post_init__(self) -> None:
        where = type(self).__name__
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, field.name)
            if field.name in _RANGES and not isinstance(value, Schedule):
                checked = check_number(value, field.name, where, *_RANGES[field.name])
                object.__setattr__(self, field.name, checked)


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay: the default optimiser.

    ::

        m = beta_1 m + (1 - beta_1) g,  v = beta_2 v + (1 - beta_2) g^2
        w -= lr weight_decay w                                    (weights only)
        w -= lr (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)

    Parameters
    ----------
    lr : float > 0 or schedule, default 1e-3
        The learning rate; a number or, say, ``lamina.cosine(3e-3, warmup=0.05)``.
    beta_1, beta_2 : float in [0, 1), default 0.9 and 0.999
        Memory of the two moments; lower beta_2 (0.95) where gradients come in bursts.
    epsilon : float > 0, default 1e-8
        Raise it where rare features make steps too bold.
    weight_decay : float ≥ 0, default 1e-2
        The pull of each step towards zero, in units of the learning rate.
    l2 : float ≥ 0, default 0.0
        The penalty l2/2 |W|^2 as part of the loss, as scikit-learn has it; weight_decay is the
        better regulariser under Adam.

    References
    ----------
    Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov and Hutter 2019,
    arXiv:1711.05101, algorithm 2.
    """

    lr: float | Schedule = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 1e-2
    l2: float = 0.0


@dataclass(frozen=True)
class Adam(AdamW):
    """Adam without weight decay; the formula and parameters of `AdamW`."""

    weight_decay: float = 0.0


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    ::

        w -= lr weight_decay w                                    (weights only)
        u = momentum u - lr g
        w += u                   nesterov: w += momentum u - lr g, with the new u

    Parameters
    ----------
    lr : float > 0 or schedule
        The learning rate; there is no good default, 0.01 to 0.1 is where to begin.
    momentum : float in [0, 1), default 0.0
        The share of the last move that is kept; 0.9 is usual.
    nesterov : bool, default False
        Look ahead along the velocity; a little better with momentum, which it needs.
    weight_decay, l2 : float ≥ 0, default 0.0
        As for `AdamW`; for plain SGD with a constant rate the two are the same.

    References
    ----------
    Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning",
    eq. 1-4.
    """

    lr: float | Schedule
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.nesterov, bool | np.bool_):
            raise SpecError(
                f"SGD: expected nesterov True or False, got {self.nesterov!r}. Pass a bool."
            )
        if self.nesterov and self.momentum == 0:
            raise SpecError(
                "SGD: expected momentum above 0 with nesterov=True, got 0. "
                "Pass momentum=0.9, or nesterov=False."
            )


@dataclass(frozen=True)
class LBFGS(Optimizer):
    """Limited-memory BFGS on all rows at once: for small networks and small data.

    An iteration counts as an epoch; `train`'s batch_size, and dropout, play no part.

    Parameters
    ----------
    max_iter : int ≥ 1, optional
        Most iterations; None takes `train`'s max_epochs.
    tol : float ≥ 0, default 1e-5
        Converged when the largest gradient component is at most this; lower it for more digits.
    l2 : float ≥ 0, default 0.0
        The penalty l2/2 |W|^2 as part of the loss.
    memory : int ≥ 1, default 10
        Pairs of steps and gradients kept; more may save iterations at the price of memory.

    References
    ----------
    Byrd, Lu, Nocedal and Zhu 1995, "A limited memory algorithm for bound constrained
    optimization", through SciPy.
    """

    max_iter: int | None = None
    tol: float = 1e-5
    l2: float = 0.0
    memory: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.memory, "memory", "LBFGS")
        if self.max_iter is not None:
            check_count(self.max_iter, "max_iter", "LBFGS")


def native_hyper(optimizer: AdamW | SGD) -> tuple[str, dict[str, float | bool]]:
    """Return the engine's name for an optimiser and its numbers, the learning rate apart."""
    names = [field.name for field in fields(optimizer) if field.name != "lr"]
    kind = "adam" if isinstance(optimizer, AdamW) else "sgd"
    return kind, {name: getattr(optimizer, name) for name in names}


def resolve_optimizer(optimizer: object, where: str) -> AdamW | SGD | LBFGS:
    """Return `optimizer` itself, `AdamW()` for None; anything else is a SpecError."""
    if optimizer is None:
        return AdamW()
    if isinstance(optimizer, AdamW | SGD | LBFGS):
        return optimizer
    raise SpecError(
        f"{where}: expected optimizer to be AdamW, Adam, SGD or LBFGS, got {optimizer!r}. "
        "Pass one, such as lamina.AdamW(lr=1e-3)."
    )

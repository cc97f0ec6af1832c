"""A learned network against a constructed one of the same width, both certified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lamina.core.checks import check_count, check_number
from lamina.core.errors import SpecError
from lamina.core.network import Network
from lamina.core.optim import LBFGS
from lamina.core.trainer import train
from lamina.theory.approximation import Approximation
from lamina.theory.certify import Certificate, certify_error
from lamina.theory.evaluate import in_float64

_WHERE: Final = "learned_against"
_ROWS: Final = {1: 2000, 2: 6400, 3: 13_824}  # on a grid


@dataclass(frozen=True)
class Learned:
    """Networks that were trained for the task of a constructed one.

    Attributes
    ----------
    constructed : Approximation
    networks : tuple of Network
        One a seed.
    certificates : tuple of Certificate
        Of each: bounds of its greatest error over the box.
    seeds : tuple of int
    """

    constructed: Approximation
    networks: tuple[Network, ...]
    certificates: tuple[Certificate, ...]
    seeds: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Learned({len(self.networks)} networks, bounds {self.errors.round(6).tolist()})"

    @property
    def errors(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The proved bounds (n_seeds,)."""
        return np.array([c.upper for c in self.certificates])


def learned_against(
    constructed: Approximation,
    *,
    n_seeds: int = 5,
    max_epochs: int = 500,
    max_seconds: float | None = None,
    rng: int = 0,
) -> Learned:
    """Train networks of the same width for the same function, and certify them as well.

    Parameters
    ----------
    constructed : Approximation
        What ``theory.approximate`` returned; not of step units, which have no gradient.
    n_seeds : int ≥ 1, default 5
        Trainings, from the seeds rng, rng + 1, …
    max_epochs : int ≥ 1, default 500
        Iterations of L-BFGS on the squared error over an even grid.
    max_seconds : float > 0, optional
        For each training.
    rng : int ≥ 0, default 0
        The first seed.

    Returns
    -------
    Learned

    Raises
    ------
    SpecError
        An argument is not as described.

    Notes
    -----
    Inputs are scaled to [-1, 1] for training, and the scale is folded into the first layer after.

    Examples
    --------
    >>> from lamina import theory
    >>> a = theory.approximate("abs(x)", (-1, 1), 0.05, "tanh")
    >>> learned = theory.learned_against(a, n_seeds=2, max_epochs=50)
    >>> learned.errors.shape
    (2,)
    """
    if not isinstance(constructed, Approximation):
        raise SpecError(
            f"{_WHERE}: expected what theory.approximate returns, got "
            f"{type(constructed).__name__}. Construct a network first."
        )
    if not constructed.n_units:
        raise SpecError(
            f"{_WHERE}: expected a constructed network with units, got one without, which is a "
            f"constant. Construct it with a smaller tolerance."
        )
    if constructed.activation == "step":
        raise SpecError(
            f"{_WHERE}: expected relu, sigmoid or tanh units, got step, which have no gradient to "
            f"learn by. Construct the network with another activation."
        )
    n_seeds = check_count(n_seeds, "n_seeds", _WHERE)
    first = check_count(rng, "rng", _WHERE, 0)
    if max_seconds is not None:
        max_seconds = check_number(max_seconds, "max_seconds", _WHERE, 0.0, closed="right")
    networks = tuple(
        _trained(constructed, first + i, max_epochs, max_seconds) for i in range(n_seeds)
    )
    f, box = constructed.expression, constructed.box
    certificates = tuple(
        certify_error(net, f, box, max_seconds=max_seconds or 30.0) for net in networks
    )
    return Learned(constructed, networks, certificates, tuple(range(first, first + n_seeds)))


def _trained(a: Approximation, seed: int, max_epochs: int, max_seconds: float | None) -> Network:
    d = len(a.box)
    per_axis = round(_ROWS[d] ** (1 / d))
    axes = [np.linspace(-1.0, 1.0, per_axis)] * d
    t = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, d)
    centre, half = a.box.mean(axis=1), 0.5 * (a.box[:, 1] - a.box[:, 0])
    y = in_float64(a.expression, centre + half * t)[:, np.newaxis]
    net = Network(d, (a.n_units,), 1, activation=a.activation, dtype="float64", rng=seed)
    # Thresholds all over the box: biases of zero would put every kink in the middle.
    net.biases[0] = np.random.default_rng(seed).uniform(-1, 1, a.n_units) * np.abs(
        net.weights[0]
    ).sum(axis=1)
    train(
        net, t, y, optimizer=LBFGS(), max_epochs=max_epochs, max_seconds=max_seconds, rng=seed
    )  # fmt: skip
    weight = net.weights[0] / half
    net.weights[0], net.biases[0] = weight, net.biases[0] - weight @ centre
    return net

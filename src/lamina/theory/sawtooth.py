"""Depth against width: the sawtooth, a few units a layer if deep, exponentially many if shallow.

References
----------
Telgarsky (2016), "Benefits of depth in neural networks", arXiv:1602.04485: the tent map, its
n-fold composition, and the count of crossings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from lamina.core.checks import check_count
from lamina.core.errors import SpecError
from lamina.core.network import Network
from lamina.theory.exact_pieces import Corner, exact_corners

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHERE: Final = "sawtooth"
_MOST_FOLDS: Final = 16  # 65,536 shallow units; all sums stay below 2^53


@dataclass(frozen=True)
class Sawtooth:
    """The n-fold tent on [0, 1]: 2^n straight pieces between 0 and 1, up and down in turn.

    ::

        tent(x) = 2 relu(x) - 4 relu(x - 1/2),   f = tent o tent o … o tent   (n times)
        f(k / 2^n) = k mod 2,  k = 0 … 2^n

    Attributes
    ----------
    n_folds : int
    deep : Network
        n hidden layers of 2 units: one tent a layer.
    """

    n_folds: int
    deep: Network

    @property
    def n_pieces(self) -> int:
        """Straight pieces of the sawtooth, 2^n."""
        return int(2**self.n_folds)

    @cached_property
    def shallow(self) -> Network:
        """The same function with one hidden layer, of 2^n units."""
        n = self.n_pieces
        net = Network(1, (n,), 1, dtype="float64", rng=0)
        slopes = n * (1.0 - 2.0 * (np.arange(n) % 2))  # n, -n, n, …
        net.weights[0], net.biases[0] = np.ones((n, 1)), -np.arange(n) / n
        net.weights[1], net.biases[1] = np.diff(slopes, prepend=0.0)[np.newaxis], [0.0]
        return net

    def n_units_at_least(self, depth: int = 1) -> int:
        """Hidden units without which no relu network of a depth comes within 1/2 of the sawtooth.

        Parameters
        ----------
        depth : int ≥ 1, default 1
            Hidden layers.

        Notes
        -----
        Whatever is less than 1/2 away from f crosses 1/2 between any two of its 2^n + 1 turns:
        2^n times, and needs as many straight pieces. One hidden layer of m units has at most m + 1
        pieces. Each further layer of m_l units multiplies their number by at most m_l + 1, so that
        m units in L layers have at most (m / L + 1)^L.
        """
        depth = check_count(depth, "depth", _WHERE)
        if depth == 1:
            return self.n_pieces - 1
        m = max(math.ceil(depth * (self.n_pieces ** (1 / depth) - 1)) - 1, 1)
        while (Fraction(m, depth) + 1) ** depth < self.n_pieces:  # exact, whatever the root's error
            m += 1
        return int(m)

    def corners(self) -> list[Corner]:
        """The turns (k / 2^n, k mod 2), in fractions."""
        n = self.n_pieces
        return [(Fraction(k, n), Fraction(k % 2)) for k in range(n + 1)]

    def verify(self) -> bool:
        """Whether the deep network is the sawtooth on [0, 1], decided in fractions alone.

        And the shallow one, for up to 8 folds; and both (the shallow one up to 12 folds) as the
        engine computes them, at every turn and half-way between, where float64 is exact.
        """
        corners = self.corners()
        zero, one = Fraction(0), Fraction(1)
        right = exact_corners(self.deep, zero, one) == corners
        if self.n_folds <= 8:
            right = right and exact_corners(self.shallow, zero, one) == corners
        x = np.arange(2 * self.n_pieces + 1) / (2 * self.n_pieces)
        wanted = np.where(np.arange(len(x)) % 2 == 1, 0.5, (np.arange(len(x)) // 2) % 2)
        for net in (self.deep, self.shallow) if self.n_folds <= 12 else (self.deep,):
            right = right and bool((net(x[:, np.newaxis])[:, 0] == wanted).all())
        return right

    def counterexample(self, net: Network | Callable[[float], float]) -> float | None:
        """Return x = k / 2^n at which a function is at least 1/2 from the sawtooth, or None.

        Of a relu network with fewer than ``n_units_at_least()`` units in one hidden layer there is
        always one.
        """
        x = np.arange(self.n_pieces + 1) / self.n_pieces
        if isinstance(net, Network):
            value = net(x[:, np.newaxis])[:, 0].astype(np.float64)
        else:
            value = np.array([net(v) for v in x.tolist()])
        off = np.abs(value - np.arange(len(x)) % 2)
        worst = int(off.argmax())
        return float(x[worst]) if off[worst] >= 0.5 else None

    def plot(self) -> Figure:
        """Return a figure of the folds, and of the units that each depth needs."""
        from lamina.plots.sawtooth import plot_sawtooth

        least = {depth: self.n_units_at_least(depth) for depth in range(1, self.n_folds + 1)}
        return plot_sawtooth(self.n_folds, least)


def sawtooth(n_folds: int) -> Sawtooth:
    """Make the n-fold tent as a deep, narrow relu network and as a shallow, wide one.

    Parameters
    ----------
    n_folds : int
        1 to 16.

    Returns
    -------
    Sawtooth

    Raises
    ------
    SpecError
        `n_folds` is anything else.

    Examples
    --------
    >>> from lamina import theory
    >>> saw = theory.sawtooth(5)
    >>> sum(saw.deep.spec.widths), sum(saw.shallow.spec.widths), saw.n_units_at_least()
    (10, 32, 31)
    >>> saw.verify()
    True
    """
    n_folds = check_count(n_folds, "n_folds", _WHERE)
    if n_folds > _MOST_FOLDS:
        raise SpecError(
            f"{_WHERE}: expected n_folds of at most {_MOST_FOLDS}, got {n_folds}: the shallow "
            f"network would need 2^{n_folds} units. Take fewer folds."
        )
    net = Network(1, (2,) * n_folds, 1, dtype="float64", rng=0)
    net.weights[0], net.biases[0] = [[1.0], [1.0]], [0.0, -0.5]
    for layer in range(1, n_folds):  # the tent of the layer before, and that minus 1/2
        net.weights[layer], net.biases[layer] = [[2.0, -4.0], [2.0, -4.0]], [0.0, -0.5]
    net.weights[n_folds], net.biases[n_folds] = [[2.0, -4.0]], [0.0]
    return Sawtooth(n_folds, net)

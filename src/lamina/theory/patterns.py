"""The classic example: two patterns of four black pixels on a ring of sixteen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lamina.core.network import Network

# Neither has a period, so each has 16 shifts; neither is the other's mirror image.
_BLACK_A = (0, 1, 2, 3)
_BLACK_B = (0, 1, 4, 6)


def translation_patterns() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return two patterns of 16 pixels with 4 black ones each, shape (16,).

    References
    ----------
    Hinton 2012, "Neural networks for machine learning", lecture 2e: what perceptrons can't do.

    Examples
    --------
    >>> from lamina import theory
    >>> a, b = theory.translation_patterns()
    >>> int(a.sum()), int(b.sum())
    (4, 4)
    """
    patterns = np.zeros((2, 16), dtype=np.int64)
    for pattern, black in zip(patterns, (_BLACK_A, _BLACK_B), strict=True):
        pattern[list(black)] = 1
    return patterns[0], patterns[1]


@dataclass(frozen=True, eq=False)
class TranslationNetwork:
    """A trained network and what it says of all 32 shifted patterns.

    Attributes
    ----------
    network : Network
        16 inputs, one hidden layer, one output: the probability of pattern a.
    x, y : arrays (32, 16), (32,)
        All shifts of a (class 1), then of b (class 0).
    probability : array (32,)
    """

    network: Network
    x: NDArray[Any]
    y: NDArray[np.int64]
    probability: NDArray[Any]

    def __repr__(self) -> str:
        return f"TranslationNetwork({self.n_correct} of {len(self.y)} right)"

    @property
    def n_correct(self) -> int:
        """How many of the 32 are on the right side of one half."""
        return int(np.sum((self.probability > 0.5) == (self.y == 1)))


def translation_network(width: int = 16, rng: int = 0) -> TranslationNetwork:
    """Train one hidden layer to tell the two patterns apart under all shifts, and ask it of all.

    Parameters
    ----------
    width : int ≥ 1, default 16
        Hidden units.
    rng : int, default 0
        The seed.

    Examples
    --------
    >>> from lamina import theory
    >>> theory.translation_network().n_correct
    32
    """
    from lamina.core.network import Network
    from lamina.core.optim import Adam
    from lamina.core.trainer import train
    from lamina.theory.groups import orbit

    a, b = translation_patterns()
    x = np.concatenate([orbit(a, "cyclic"), orbit(b, "cyclic")]).astype(np.float64)  # (32, 16)
    y = np.repeat([1, 0], 16)
    net = Network(16, (width,), 1, activation="tanh", output="sigmoid", dtype="float64", rng=rng)
    train(net, x, y, optimizer=Adam(lr=0.02), batch_size=32, max_epochs=400, rng=rng)
    return TranslationNetwork(net, x, y, net(x)[:, 0])

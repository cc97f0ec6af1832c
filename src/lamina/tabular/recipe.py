"""Recipes: what `fit` does with a table when nobody tunes it, chosen by benchmarks/tables.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from lamina.core.errors import SpecError

# Below so many rows half the features and some dropout take half the time and are as good in the
# mean (six tables of 120 to 2,300 rows: 1 % better, from 16 % better on wine to 18 % worse on
# digits); above them they are worse (five tables of 10,000 rows: dropout alone costs 1.4 %).
FEW_ROWS = 5000
# Folds of fewer rows choose a member's best epoch too much by chance: 16 of them are 1 % worse on
# five tables of 120 to 1,500 rows and 2 % on one of 2,300, 1 % better on four of 10,000.
FEW_ROWS_FOLDS = 8


@dataclass(frozen=True)
class Recipe:
    """How the members of a table's ensemble are made and trained.

    Parameters
    ----------
    widths, activation, dropout
        Of each member's network.
    n_features : int
        Of each column's embedding.
    lr, weight_decay : float
        AdamW's; the rate rises over the first twentieth of the steps, then falls as a cosine.
    n_folds : int
        Parts of the rows. A member learns from all but one, and is scored on that one.
    least_members : int
        Tables of few rows are divided anew until there are so many members: their folds are small,
        and members cost them nothing.
    n_seen : int
        Rows a member sees in all, which makes the number of epochs.
    least_epochs, most_epochs : int
        Bounds on it.
    patience : int
        Epochs without a lower held-out loss before a member stops.
    tries_neighbours : bool
        Whether a pilot asks if neighbours' targets help; see `pilot`.
    """

    widths: tuple[int, ...] = (128, 128)
    activation: str = "relu"
    dropout: float = 0.0
    n_features: int = 16
    lr: float = 8e-3
    weight_decay: float = 1e-2
    n_folds: int = 16
    least_members: int = 16
    n_seen: int = 240_000
    least_epochs: int = 3
    most_epochs: int = 200
    patience: int = 16
    tries_neighbours: bool = True

    def for_rows(self, n_rows: int) -> Recipe:
        """Return the recipe for a table of so many rows: few need a smaller network."""
        if n_rows >= FEW_ROWS:
            return self
        return replace(
            self,
            n_features=self.n_features // 2,
            dropout=max(self.dropout, 0.1),
            n_folds=min(self.n_folds, FEW_ROWS_FOLDS),
        )

    def batch_size(self, n_rows: int) -> int:
        """Return about a 64th of the rows, a power of two from 16 to 128: few rows need steps."""
        return int(np.clip(1 << (n_rows // 64).bit_length(), 16, 128))

    def epochs(self, n_rows: int) -> int:
        """Return how many epochs a member trains at most."""
        return int(np.clip(self.n_seen // n_rows, self.least_epochs, self.most_epochs))

    def n_repeats(self, n_rows: int) -> int:
        """Return how often the rows are divided into folds."""
        if n_rows > 2000:
            return 1
        return -(-self.least_members // self.n_folds)


_DEFAULT: Final = Recipe()
PRESETS: Final = {
    "fast": replace(
        _DEFAULT,
        widths=(128,),
        n_folds=4,
        least_members=8,
        n_seen=120_000,
        patience=8,
        tries_neighbours=False,
    ),
    "default": _DEFAULT,
    "best": replace(_DEFAULT, widths=(256, 256), least_members=32, n_seen=480_000, patience=24),
}


def find_recipe(preset: object, where: str) -> Recipe:
    """Return the recipe of a preset's name.

    Raises
    ------
    SpecError
        There is no such preset.
    """
    if isinstance(preset, str) and preset in PRESETS:
        return PRESETS[preset]
    raise SpecError(
        f"{where}: expected preset to be one of {', '.join(map(repr, PRESETS))}, "
        f"got {preset!r:.80}. Use 'default' unless you have measured otherwise."
    )

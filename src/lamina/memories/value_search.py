"""Values of all neurons, of length 1, for searches by cosine: mapped from a file beside the bank.

The bank keeps them as float16, compressed by its database; reading them all takes longer than a
query may. The first search writes them once more, as float32, into ``PATH.values``: 32 bytes of the
bank's identity, then the rows. Where that cannot be written, they are kept in memory.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import ModelFileError, ShapeError
from lamina.core.modelfile import write_atomically
from lamina.memories.bank_file import BankFile

HEAD: Final = 32  # bytes
ROWS: Final = "<f4"


class ValueSearch:
    """The values of one bank, layer after layer.

    Parameters
    ----------
    bank : BankFile

    Attributes
    ----------
    unit : float32 array (neurons of all layers, d_model)
    """

    def __init__(self, bank: BankFile) -> None:
        self.bank = bank
        path = Path(bank.path + ".values")
        head = bank.identity().encode().ljust(HEAD)
        found = _mapped(path, head, bank.n_neurons)
        if found is None:
            found = _read(bank)
            # Not on a full disk, nor into a folder that may not be written to
            with contextlib.suppress(ModelFileError):
                write_atomically(path, [head, found.data.cast("B")], "memories.open")
        self.unit = found

    def value(self, layer: int, neuron: int) -> npt.NDArray[np.float32]:
        """Return a neuron's value, divided by its length."""
        row: npt.NDArray[np.float32] = self.unit[self.bank.index(layer, neuron)]
        return row

    def along(self, direction: npt.ArrayLike, k: int) -> list[tuple[int, int, float]]:
        """Return (layer, neuron, cosine) of the values nearest to a direction.

        Raises
        ------
        ShapeError
            The direction is not of the model's width.
        """
        vector = np.asarray(direction, dtype=np.float32)
        if vector.shape != self.unit.shape[1:]:
            raise ShapeError(
                f"Bank.neurons_along: expected a vector of {self.unit.shape[1]} numbers, got shape "
                f"{vector.shape}. Pass one of the model's width."
            )
        cosine = self.unit @ (vector / max(float(np.linalg.norm(vector)), 1e-30))
        best = np.arange(len(cosine))
        if 0 <= k < len(best):  # all that reach the k-th, so that ties are broken by place
            best = np.flatnonzero(cosine >= np.partition(cosine, len(best) - k - 1)[-k - 1])
        best = best[np.argsort(-cosine[best], kind="stable")][:k]
        return [(*self.bank.place(int(i)), float(cosine[i])) for i in best]


def _read(bank: BankFile) -> npt.NDArray[np.float32]:
    """Return the values from the bank's database."""
    unit: npt.NDArray[np.float32] | None = None
    for layer, d_ff in bank.d_ff.items():
        blob = bank.rows("SELECT value FROM directions WHERE layer = ?", [layer])[0][0]
        rows = np.frombuffer(blob, np.float16).reshape(d_ff, -1)
        if unit is None:
            unit = np.empty((bank.n_neurons, rows.shape[1]), ROWS)
        unit[bank.index(layer, 0) :][:d_ff] = rows
    assert unit is not None  # noqa: S101 (a bank has a layer)
    return unit


def _mapped(path: Path, head: bytes, n_rows: int) -> npt.NDArray[np.float32] | None:
    """Return the rows of a file that belongs to the bank, read as they are needed."""
    try:
        with path.open("rb") as file:
            if file.read(HEAD) != head:
                return None
        width, rest = divmod(path.stat().st_size - HEAD, 4 * n_rows)
        if rest or not width:
            return None
        rows: npt.NDArray[np.float32] = np.memmap(
            path, ROWS, mode="r", offset=HEAD, shape=(n_rows, width)
        ).view(np.ndarray)
    except (OSError, ValueError):
        return None
    return rows

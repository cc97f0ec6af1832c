"""Chunks: encoded rows on disk, drawn into equal parts at random, one of which is in memory."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]

X_NAME, Y_NAME = "x.f32", "y.f64"


@dataclass(frozen=True)
class Layout:
    """How many rows lie where: the chunks one after the other, then the rows held out.

    Parameters
    ----------
    n_chunks, chunk_rows : int
        All chunks have equally many rows: to the engine, each is an epoch of one run.
    n_held : int
        Rows that are never learnt from.
    d_in : int
        Numbers of a row of x.
    """

    n_chunks: int
    chunk_rows: int
    n_held: int
    d_in: int

    @classmethod
    def plan(cls, n_rows: int, n_held: int, most_rows: int, d_in: int) -> Layout:
        """Divide ``n_rows``: chunks of at most ``most_rows``, the few left over held out too."""
        n_chunks = -(-(n_rows - n_held) // most_rows)
        chunk_rows = (n_rows - n_held) // n_chunks
        return cls(n_chunks, chunk_rows, n_rows - n_chunks * chunk_rows, d_in)

    @property
    def n_rows(self) -> int:
        """All rows."""
        return self.n_chunks * self.chunk_rows + self.n_held

    @property
    def n_bytes(self) -> int:
        """Of both files."""
        return self.n_rows * (4 * self.d_in + 8)

    def start(self, chunk: int) -> int:
        """Return the first row of a chunk; that of the rows held out for ``n_chunks``."""
        return chunk * self.chunk_rows

    def size(self, chunk: int) -> int:
        """Return how many rows a chunk has; ``n_chunks`` names those held out."""
        return self.chunk_rows if chunk < self.n_chunks else self.n_held

    def to_json(self) -> dict[str, int]:
        """Return the numbers by name."""
        return asdict(self)


class Chunks:
    """The files of a layout in a folder.

    x is float32 and y float64, as the machine has them, without a header: they live no longer than
    the fit.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout

    @property
    def is_whole(self) -> bool:
        """Whether both files have the layout's size."""
        sizes = ((X_NAME, 4 * self.layout.d_in), (Y_NAME, 8))
        paths = [(self.folder / name, width * self.layout.n_rows) for name, width in sizes]
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)

    @contextmanager
    def writer(self, rng: np.random.Generator) -> Iterator[Writer]:
        """Give what writes all rows, once, each to a place drawn at random.

        Raises
        ------
        DataError
            The disk is full.
        """
        layout = self.layout
        free = shutil.disk_usage(self.folder).free
        if free < layout.n_bytes:
            raise self._full(f"{free / 2**20:,.0f} MiB free")
        try:
            with (
                (self.folder / X_NAME).open("wb", buffering=0) as x_file,
                (self.folder / Y_NAME).open("wb", buffering=0) as y_file,
            ):
                yield Writer(layout, x_file, y_file, rng)
                for file in (x_file, y_file):
                    os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, getattr(errno, "EDQUOT", None), errno.EFBIG):
                raise
            raise self._full(str(error.strerror)) from error

    def _full(self, got: str) -> DataError:
        return DataError(
            f"fit: expected {self.layout.n_bytes / 2**20:,.0f} MiB of disk for encoded rows in "
            f"{str(self.folder)!r}, got: {got}. Make room, or choose another place for the work "
            "folder."
        )

    def load(self, chunk: int, x: Matrix, y: Floats) -> None:
        """Read a chunk, or with ``n_chunks`` the rows held out, into x (rows, d_in), y (rows,)."""
        start = self.layout.start(chunk)
        for name, out, width in ((X_NAME, x, 4 * self.layout.d_in), (Y_NAME, y, 8)):
            with (self.folder / name).open("rb", buffering=0) as file:
                file.seek(start * width)
                _read_into(file, _bytes_of(out), str(self.folder / name))


class Writer:
    """Writes rows to the chunks in which they were drawn: uniform, without replacement."""

    def __init__(
        self, layout: Layout, x_file: BinaryIO, y_file: BinaryIO, rng: np.random.Generator
    ) -> None:
        self.layout, self.rng = layout, rng
        self.files = ((x_file, 4 * layout.d_in), (y_file, 8))
        chunks = range(layout.n_chunks + 1)
        self.left = np.array([layout.size(chunk) for chunk in chunks])
        self.next = np.array([layout.start(chunk) for chunk in chunks])

    def write(self, x: Matrix, y: Floats) -> None:
        """Write x (n, d_in) float32 and y (n,) float64."""
        if len(x) > self.left.sum():
            raise self._changed()
        counts = self.rng.multivariate_hypergeometric(self.left, len(x), method="marginals")
        order = self.rng.permutation(len(x))
        self.left -= counts
        stops = np.cumsum(counts)
        for chunk in np.flatnonzero(counts):
            rows = order[stops[chunk] - counts[chunk] : stops[chunk]]
            parts = (_bytes_of(x[rows]), _bytes_of(y[rows]))
            for (file, width), part in zip(self.files, parts, strict=True):
                file.seek(int(self.next[chunk]) * width)
                _write_all(file, part)
            self.next[chunk] += counts[chunk]

    def finish(self) -> None:
        """Refuse to go on where rows are missing."""
        if self.left.any():
            raise self._changed()

    def _changed(self) -> DataError:
        return DataError(
            f"fit: expected the {self.layout.n_rows:,} rows that were counted first, got "
            "more or fewer: the table changed in between. Begin again."
        )


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """Return a contiguous array's memory."""
    return array.reshape(-1).view(np.uint8).data


def _write_all(file: BinaryIO, data: memoryview) -> None:
    while len(data):  # an unbuffered file may take a part only
        data = data[file.write(data) :]


def _read_into(file: Any, data: memoryview, name: str) -> None:
    while len(data):
        n = file.readinto(data)
        if not n:
            raise DataError(f"{name}: expected more bytes, got the end of the file. Begin again.")
        data = data[n:]

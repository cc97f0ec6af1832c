"""What accelerating a model came to, block by block."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class BlockReport:
    """What became of one block, or of the output head.

    Attributes
    ----------
    path : str
    layer : int
        -1 of the head.
    kind : {"plain", "gated", "experts", "head"}
    n_params : int
    swapped : bool
        Whether the engine runs it now.
    reason : str
        Why not, where it does not.
    error : float
        ``|y - y_original| / |y_original|``, lengths over all sample rows; NaN where it was not
        tried.
    prefill, decode : tuple of two floats
        Seconds of the original and of the engine, on the sample rows and on one row; NaN where
        they were not measured.
    """

    path: str
    layer: int
    kind: str
    n_params: int
    swapped: bool
    reason: str
    error: float
    prefill: tuple[float, float]
    decode: tuple[float, float]


@dataclass(frozen=True)
class Acceleration:
    """What `accelerate` did to a model; it prints as a table.

    Attributes
    ----------
    dtype : {"float32", "bfloat16", "int8"}
    tolerance : float
        The largest error at which a block was swapped.
    n_rows : int
        Sample rows that each block was tried on.
    blocks : tuple of BlockReport
    head : BlockReport or None
        Of the output head, where there is one and it was asked for. The sums below are of the
        blocks alone.
    """

    dtype: str
    tolerance: float
    n_rows: int
    blocks: tuple[BlockReport, ...]
    head: BlockReport | None = None

    @property
    def n_swapped(self) -> int:
        """How many blocks the engine runs now."""
        return sum(block.swapped for block in self.blocks)

    @property
    def left(self) -> tuple[BlockReport, ...]:
        """The blocks that are as they were."""
        return tuple(block for block in self.blocks if not block.swapped)

    @property
    def error(self) -> float:
        """The largest error of a swapped block; 0 where there is none."""
        return max((block.error for block in self.blocks if block.swapped), default=0.0)

    @property
    def prefill_speedup(self) -> float:
        """Seconds of the originals over those of the engine, all swapped blocks together."""
        return _ratio([block.prefill for block in self.blocks if block.swapped])

    @property
    def decode_speedup(self) -> float:
        """The same for one row."""
        return _ratio([block.decode for block in self.blocks if block.swapped])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers and text, for JSON."""
        return {
            "dtype": self.dtype,
            "tolerance": self.tolerance,
            "n_rows": self.n_rows,
            "n_swapped": self.n_swapped,
            "error": self.error,
            "prefill_speedup": self.prefill_speedup,
            "decode_speedup": self.decode_speedup,
            "blocks": [asdict(block) for block in self.blocks],
            "head": None if self.head is None else asdict(self.head),
        }

    def __str__(self) -> str:
        lines = [("block", "kind", "error", f"{self.n_rows} rows", "", "1 row", "")]
        lines += [
            (
                block.path,
                block.kind,
                "–" if block.error != block.error else f"{block.error:.1e}",
                *_times(block.prefill),
                *_times(block.decode),
            )
            for block in (*self.blocks, *([] if self.head is None else [self.head]))
        ]
        widths = [max(len(line[i]) for line in lines) for i in range(7)]
        table = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*table, "", *self.statements()])

    def statements(self) -> list[str]:
        """Return the sum of it in sentences."""
        n, all_of_them = self.n_swapped, len(self.blocks)
        said = [f"The engine runs {n} of {all_of_them} blocks in {self.dtype}"]
        if n:
            said[0] += f", within {self.error:.1e} of the originals"
            if self.prefill_speedup == self.prefill_speedup:
                said[0] += (
                    f": {self.prefill_speedup:.2f} times as fast on {self.n_rows} rows, "
                    f"{self.decode_speedup:.2f} times on one"
                )
        said[0] += "."
        left = list(self.left)
        if self.head is not None and self.head.swapped:
            said.append(f"It runs the output head, {self.head.path}, too.")
        elif self.head is not None:
            left.append(self.head)
        return [*said, *(f"Left as it was: {b.path}: {b.reason}." for b in left)]


def _times(seconds: tuple[float, float]) -> tuple[str, str]:
    before, after = seconds
    if after != after:
        return "", ""
    return f"{1e6 * before:,.0f} -> {1e6 * after:,.0f} us", f"x{before / after:.2f}"


def _ratio(pairs: list[tuple[float, float]]) -> float:
    before, after = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
    return before / after if after else float("nan")

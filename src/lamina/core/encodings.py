"""Encodings: what a network's first layer reads in place of raw coordinates.

An encoding is a frozen configuration; `encode` (core/encode.py) is what it computes, and the engine
computes the same. Only grids and column embeddings have parameters, a table, which ends theta;
entry e of feature f is ``table[e, f]``, level after level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final

import numpy as np

from lamina.core.checks import check_choice, check_count, check_number, resolve_rng
from lamina.core.column_embeddings import MOST_COLUMNS, TABLE_GROUP, ColumnEmbeddings
from lamina.core.errors import SpecError

Native = tuple[str, list[int], list[float]]
"""An encoding as the engine takes it: kind, whole numbers, real numbers."""

MOST_LEVELS: Final = 64
MOST_ENTRIES: Final = 2**28  # of one level
MOST_CELLS: Final = 2**22  # along an axis: float32 then still has 2 bits inside a cell
MOST_MATRIX: Final = 2**16  # numbers: a model file holds the matrix in its header
TABLE_INIT: Final = 1e-4  # Müller et al. 2022, section 3: entries start on U(-1e-4, 1e-4)


@dataclass(frozen=True)
class Level:
    """One grid of a multiresolution grid.

    Attributes
    ----------
    resolution : int
        Cells along an axis; there are resolution + 1 corners.
    entries : int
        Rows of the table that belong to it.
    hashed, wraps : bool
        Whether a corner's index is the spatial hash, and whether it is taken modulo `entries`.
    """

    resolution: int
    entries: int
    hashed: bool
    wraps: bool


@dataclass(frozen=True)
class HashGrid:
    """Multiresolution grid of trainable features, looked up and interpolated (instant-ngp).

    Level l = 0 … n_levels - 1 divides the box ``bounds`` into N_l cells an axis,
    N_l = floor(N_0 b^l), b = (N_{n_levels-1} / N_0)^(1/(n_levels-1)). A row's features on a level
    are those of the 2^d_in corners around it, interpolated; h_0 is all levels one after the other.

    Parameters
    ----------
    n_levels : int in [1, 64], default 16
        Grids, from coarse to fine.
    n_features : int in [1, 4], default 2
        Features an entry. 2 is the paper's best trade of quality for time.
    log2_table_size : int in [4, 28], default 15
        At most 2**log2_table_size entries a level: 15 keeps a level in a CPU's second cache, 19
        suits large scenes in three dimensions.
    base_resolution : int ≥ 1, default 16
        N_0.
    finest_resolution : int ≥ base_resolution, default 512
        N of the last level: about the number of samples along an axis, at most 2**22.
    kind : {"hash", "dense", "tiled"}, default "hash"
        What happens to a level with more corners than the table has entries: indices are hashed;
        nothing, the table grows; indices wrap around. Smaller levels are always dense.
    interpolation : {"linear", "smoothstep"}, default "linear"
        smoothstep makes the first derivative by x continuous; needed where it is trained on.
    bounds : (low, high), default (-1.0, 1.0)
        The box, the same for every coordinate. Beyond it h_0 is that of the nearest point of the
        box, and the derivative by x is zero.

    Raises
    ------
    SpecError
        A number is not as described; as a network's encoding also if d_in is not 1, 2 or 3.

    Notes
    -----
    Cost a row: n_levels 2^d_in look-ups of n_features numbers, forward and backward.
    Weight decay and l2 do not act on the table; Adam leaves entries whose gradient is exactly zero
    as they are, value and moments (section 4 of the paper), with the run's common step count.
    In float32 a position inside a cell is exact to about 2^-24 N_l.

    References
    ----------
    Müller et al. (2022), "Instant neural graphics primitives with a multiresolution hash encoding",
    arXiv:2201.05989, sections 3 and 4; the hash is equation 4.

    Examples
    --------
    >>> import lamina
    >>> grid = lamina.HashGrid(n_levels=4, log2_table_size=8, finest_resolution=64)
    >>> net = lamina.Network(2, (32,), 3, encoding=grid, rng=0)
    >>> net.table.shape, net.spec.fan_in(1)
    ((1024, 2), 8)
    """

    # DIFF(Müller 2022, section 3): N_l counts cells; tiny-cuda-nn shifts every level by half one.
    n_levels: int = 16
    n_features: int = 2
    log2_table_size: int = 15
    base_resolution: int = 16
    finest_resolution: int = 512
    kind: str = "hash"
    interpolation: str = "linear"
    bounds: tuple[float, float] = (-1.0, 1.0)

    NAME: ClassVar[str] = "hash_grid"

    def __post_init__(self) -> None:
        where = "HashGrid"
        _check_range(self, "n_levels", where, 1, MOST_LEVELS)
        _check_range(self, "n_features", where, 1, 4)
        _check_range(self, "log2_table_size", where, 4, 28)
        _check_range(self, "base_resolution", where, 1, MOST_CELLS)
        _check_range(self, "finest_resolution", where, self.base_resolution, MOST_CELLS)
        check_choice(self.kind, ("hash", "dense", "tiled"), "kind", where)
        check_choice(self.interpolation, ("linear", "smoothstep"), "interpolation", where)
        object.__setattr__(self, "bounds", _as_bounds(self.bounds, where))

    def bind(self, d_in: int) -> HashGrid:
        """Return the encoding for d_in coordinates: itself; SpecError if it has no such form."""
        if d_in > 3:
            raise SpecError(
                f"HashGrid: expected a network with d_in of 1, 2 or 3, got {d_in}. "
                "Use RandomFourier for more coordinates."
            )
        for level in self.levels(d_in):
            if level.entries > MOST_ENTRIES:
                raise SpecError(
                    f"HashGrid: expected at most {MOST_ENTRIES:,} entries a level, got "
                    f"{level.entries:,} at resolution {level.resolution}. "
                    "Lower finest_resolution, or use kind='hash'."
                )
        return self

    def d_out(self, d_in: int) -> int:  # noqa: ARG002 (the same for every d_in)
        """Columns of h_0."""
        return self.n_levels * self.n_features

    def resolutions(self) -> list[int]:
        """N_l of every level."""
        coarse, fine = self.base_resolution, self.finest_resolution
        steps = max(self.n_levels - 1, 1)
        growth = math.exp(math.log(fine / coarse) / steps)
        # The product comes out a rounding error below a whole number where it should be one.
        return [math.floor(coarse * growth**k * (1 + 1e-9)) for k in range(self.n_levels)]

    def levels(self, d_in: int) -> list[Level]:
        """Every level's size and indexing for d_in coordinates."""
        table = 2**self.log2_table_size
        result = []
        for resolution in self.resolutions():
            corners = (resolution + 1) ** d_in
            if self.kind == "dense" or corners <= table:
                entries = -(-corners // TABLE_GROUP) * TABLE_GROUP
                result.append(Level(resolution, entries, False, False))
            else:
                result.append(Level(resolution, table, self.kind == "hash", True))
        return result

    def table_shape(self, d_in: int) -> tuple[int, int]:
        """(entries of all levels, n_features)."""
        return sum(level.entries for level in self.levels(d_in)), self.n_features

    def native(self, d_in: int) -> Native:
        """The engine's form."""
        whole = [self.n_features, int(self.interpolation == "smoothstep")]
        for level in self.levels(d_in):
            whole += [level.resolution, level.entries, int(level.hashed), int(level.wraps)]
        return "grid", whole, list(self.bounds)


class _WithoutTable:
    """An encoding that is a fixed function: nothing in theta belongs to it."""

    def table_shape(self, d_in: int) -> tuple[int, int]:  # noqa: ARG002
        """No table."""
        return 0, 1


@dataclass(frozen=True)
class Fourier(_WithoutTable):
    """Sines and cosines of every coordinate at doubling frequencies (NeRF).

    ``h_0 = [x,] then for each coordinate sin(2^k pi x_j), cos(2^k pi x_j), k = 0 … n-1``.

    Parameters
    ----------
    n_frequencies : int in [1, 30], default 8
        n. The finest wave has length 2^(2 - n) in a box of length 2: about twice the distance
        between samples is right.
    include_input : bool, default True
        Put x itself first.

    Raises
    ------
    SpecError
        A number is not as described.

    References
    ----------
    Mildenhall et al. (2020), arXiv:2003.08934, equation 4.

    Examples
    --------
    >>> import lamina
    >>> lamina.Network(2, (16,), 1, encoding=lamina.Fourier(4), rng=0).spec.fan_in(1)
    18
    """

    n_frequencies: int = 8
    include_input: bool = True

    NAME: ClassVar[str] = "fourier"

    def __post_init__(self) -> None:
        _check_range(self, "n_frequencies", "Fourier", 1, 30)
        if not isinstance(self.include_input, bool):
            raise SpecError(
                "Fourier: expected include_input to be True or False, "
                f"got {self.include_input!r}. Pass a bool."
            )

    def bind(self, d_in: int) -> Fourier:
        """Return the encoding for d_in coordinates: itself."""
        _check_columns(self.d_out(d_in), "Fourier")
        return self

    def d_out(self, d_in: int) -> int:
        """Columns of h_0."""
        return d_in * (2 * self.n_frequencies + int(self.include_input))

    def native(self, d_in: int) -> Native:
        """The engine's form: sin(pi (factor x + offset)), a cosine being a quarter turn ahead."""
        copied = d_in if self.include_input else 0
        pair = 2 * self.n_frequencies
        axis = [*range(copied), *(j for j in range(d_in) for _ in range(pair))]
        powers = [2.0**k for k in range(self.n_frequencies) for _ in range(2)]
        factor = [0.0] * copied + powers * d_in
        offset = [0.0] * copied + [0.0, 0.5] * (self.n_frequencies * d_in)
        return "sinusoid", [self.d_out(d_in), copied, *axis], factor + offset


@dataclass(frozen=True)
class RandomFourier(_WithoutTable):
    """Cosines and sines of random projections, for coordinates of any number.

    ``h_0 = [cos(2 pi B x), sin(2 pi B x)]``, the entries of B drawn from N(0, scale^2).

    Parameters
    ----------
    n_features : int ≥ 1, default 64
        Rows of B; h_0 has twice as many columns.
    scale : float > 0, default 1.0
        The bandwidth, in periods a unit of x. Too small blurs, too large is noise: try 1 to 10 for
        coordinates in [-1, 1].
    rng : int or numpy.random.Generator, optional
        The seed of B; None draws one.
    matrix : array-like (n_features, d_in), optional
        B itself, instead of a draw. It is stored in model files, so that a network does not depend
        on NumPy's generator.

    Raises
    ------
    SpecError
        A number is not as described, or B has not d_in columns.

    References
    ----------
    Tancik et al. (2020), arXiv:2006.10739, section 5 ("Gaussian").

    Examples
    --------
    >>> import lamina
    >>> waves = lamina.RandomFourier(32, scale=4.0, rng=0)
    >>> lamina.Network(5, (16,), 1, encoding=waves, rng=0).spec.fan_in(1)
    64
    """

    n_features: int = 64
    scale: float = 1.0
    rng: Any = field(default=None, compare=False, repr=False)
    matrix: Any = field(default=None, repr=False)

    NAME: ClassVar[str] = "random_fourier"

    def __post_init__(self) -> None:
        where = "RandomFourier"
        check_count(self.n_features, "n_features", where)
        _check_columns(2 * self.n_features, where)
        scale = check_number(self.scale, "scale", where, 0.0, math.inf, "neither")
        object.__setattr__(self, "scale", scale)
        # The seed is settled now, so that one encoding given to two networks means one matrix.
        seed = None
        if self.matrix is None:
            seed = int(resolve_rng(self.rng).integers(2**63))
        else:
            object.__setattr__(self, "matrix", _as_matrix(self.matrix, self.n_features))
        object.__setattr__(self, "rng", seed)

    def bind(self, d_in: int) -> RandomFourier:
        """Return the encoding with a matrix for d_in coordinates."""
        if self.n_features * d_in > MOST_MATRIX:
            raise SpecError(
                f"RandomFourier: expected a matrix of at most {MOST_MATRIX:,} numbers, got "
                f"{self.n_features} x {d_in}. Lower n_features."
            )
        if self.matrix is None:
            draw = np.random.default_rng(self.rng).normal(0.0, self.scale, (self.n_features, d_in))
            return RandomFourier(self.n_features, self.scale, matrix=draw)
        if len(self.matrix[0]) != d_in:
            raise SpecError(
                f"RandomFourier: expected a matrix with a column for each of the {d_in} "
                f"coordinates, got {len(self.matrix[0])}. Make the encoding without one."
            )
        return self

    def d_out(self, d_in: int) -> int:  # noqa: ARG002
        """Columns of h_0."""
        return 2 * self.n_features

    def native(self, d_in: int) -> Native:
        """The engine's form: sin(pi (factor . x + offset))."""
        columns = 2.0 * np.array(self.matrix).T  # (d_in, n_features)
        factor = np.concatenate([columns, columns], axis=1)  # (d_in, 2 n_features)
        offset = [0.5] * self.n_features + [0.0] * self.n_features
        return "sinusoid", [self.d_out(d_in), 0], [*factor.ravel().tolist(), *offset]


@dataclass(frozen=True)
class OneBlob(_WithoutTable):
    """Every coordinate as a soft histogram: a normal density's share of each of n_bins bins.

    With u = (x_j - low) / (high - low) and sigma = 1 / n_bins, bin i gets
    ``Phi((i + 1) - u n_bins) - Phi(i - u n_bins)``, Phi the standard normal's distribution
    function: the Gaussian kernel of the paper, integrated over the bin.

    Parameters
    ----------
    n_bins : int ≥ 1, default 16
        Bins a coordinate.
    bounds : (low, high), default (-1.0, 1.0)
        What the bins divide. Far beyond, all bins go to zero.

    Raises
    ------
    SpecError
        A number is not as described.

    References
    ----------
    Müller et al. (2019), "Neural importance sampling", arXiv:1808.03856, section 4.3.

    Examples
    --------
    >>> import lamina
    >>> lamina.Network(3, (16,), 1, encoding=lamina.OneBlob(8), rng=0).spec.fan_in(1)
    24
    """

    n_bins: int = 16
    bounds: tuple[float, float] = (-1.0, 1.0)

    NAME: ClassVar[str] = "one_blob"

    def __post_init__(self) -> None:
        check_count(self.n_bins, "n_bins", "OneBlob")
        object.__setattr__(self, "bounds", _as_bounds(self.bounds, "OneBlob"))

    def bind(self, d_in: int) -> OneBlob:
        """Return the encoding for d_in coordinates: itself."""
        _check_columns(self.d_out(d_in), "OneBlob")
        return self

    def d_out(self, d_in: int) -> int:
        """Columns of h_0."""
        return d_in * self.n_bins

    def native(self, d_in: int) -> Native:
        """The engine's form: Phi(t + 1) - Phi(t), t = factor x + offset."""
        low, high = self.bounds
        step = self.n_bins / (high - low)
        axis = [j for j in range(d_in) for _ in range(self.n_bins)]
        offset = [i + low * step for _ in range(d_in) for i in range(self.n_bins)]
        return "blob", [self.d_out(d_in), 0, *axis], [-step] * self.d_out(d_in) + offset


Encoding = HashGrid | Fourier | RandomFourier | OneBlob | ColumnEmbeddings

ENCODINGS: Final[dict[str, type[Encoding]]] = {
    kind.NAME: kind for kind in (HashGrid, Fourier, RandomFourier, OneBlob, ColumnEmbeddings)
}


def to_json(encoding: Encoding | None) -> dict[str, Any] | None:
    """A dictionary of JSON types that `from_json` turns back into an equal encoding."""
    if encoding is None:
        return None
    items = {name: getattr(encoding, name) for name in _stored(type(encoding))}
    plain = {
        name: [list(row) for row in value]
        if name == "matrix"
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in items.items()
    }
    return {"name": encoding.NAME, **plain}


def from_json(data: object) -> Encoding | None:
    """Read what `to_json` wrote; strict: every key, and no other.

    Raises
    ------
    SpecError
        If `data` is anything else.
    """
    if data is None:
        return None
    name = data.get("name") if isinstance(data, dict) else None
    kind = ENCODINGS.get(name) if isinstance(name, str) else None
    if kind is None or not isinstance(data, dict) or set(data) != {"name", *_stored(kind)}:
        raise SpecError(
            "Network: expected an encoding of the specification to be null or an encoding with "
            f"all its fields, got {str(data)[:80]}. "
            "Save the network again with this version of lamina."
        )
    if kind is RandomFourier and data["matrix"] is None:
        raise SpecError(
            "Network: expected a matrix of RandomFourier in the specification, got null. "
            "Save the network again."
        )
    values: dict[str, Any] = {key: value for key, value in data.items() if key != "name"}
    for key in ("bounds", "cells"):
        if isinstance(values.get(key), list):
            values[key] = tuple(values[key])
    return kind(**values)


def check_encoding(encoding: object, d_in: int) -> Encoding | None:
    """Return the encoding made ready for d_in coordinates; SpecError if it is none."""
    if encoding is None:
        return None
    if not isinstance(encoding, Encoding):
        raise SpecError(
            "Network: expected encoding to be None or a HashGrid, Fourier, RandomFourier, "
            f"OneBlob or ColumnEmbeddings, got {encoding!r}. "
            "Pass an object such as lamina.HashGrid()."
        )
    return encoding.bind(d_in)


def _stored(kind: type[Encoding]) -> list[str]:
    return [item.name for item in fields(kind) if item.name != "rng"]


def _check_range(owner: object, name: str, where: str, low: int, high: int) -> None:
    value = check_count(getattr(owner, name), name, where, low)
    if value > high:
        raise SpecError(
            f"{where}: expected {name} to be a whole number from {low} to {high}, got {value}. "
            "Choose one in that range."
        )
    object.__setattr__(owner, name, value)


def _check_columns(columns: int, where: str) -> None:
    if columns > MOST_COLUMNS:
        raise SpecError(
            f"{where}: expected at most {MOST_COLUMNS:,} encoded columns, got {columns:,}. "
            "Encode fewer coordinates, or each with fewer columns."
        )


def _as_bounds(bounds: object, where: str) -> tuple[float, float]:
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise SpecError(
            f"{where}: expected bounds to be a pair (low, high), got {bounds!r}. "
            "Pass one such as (-1.0, 1.0)."
        )
    low = check_number(bounds[0], "the lower bound", where)
    high = check_number(bounds[1], "the upper bound", where)
    # In float32 the box must have an inside, and 1 / (high - low) must be a normal number.
    if not np.float32(low) < np.float32(high) or not 1e-30 < high - low < 1e30:
        raise SpecError(
            f"{where}: expected bounds (low, high) with low < high, got {bounds!r}. "
            "Pass a pair such as (-1.0, 1.0)."
        )
    return low, high


def _as_matrix(matrix: object, n_features: int) -> tuple[tuple[float, ...], ...]:
    try:
        array = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 2 or len(array) != n_features or array.shape[1] < 1:
        raise SpecError(
            f"RandomFourier: expected a matrix of shape ({n_features}, d_in), "
            f"got {array.shape if array.size else type(matrix).__name__}. Pass rows of numbers."
        )
    if not np.isfinite(array).all() or np.abs(array).max() > 1e30:
        raise SpecError(
            "RandomFourier: expected a matrix of finite numbers below 1e30, got others. "
            "Replace them."
        )
    return tuple(tuple(row) for row in array.tolist())

"""Which network, and which training, for a signal and a budget of parameters.

The numbers are what `benchmarks/fields.py` found best on photographs and sounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from lamina.core.checks import check_choice, check_count, check_number
from lamina.core.encodings import Encoding, HashGrid, RandomFourier
from lamina.core.errors import SpecError
from lamina.core.network import Network
from lamina.core.optim import Adam
from lamina.core.spec import NetworkSpec
from lamina.fields.signal import Signal

PRESETS: Final = ("hash", "fourier", "siren", "relu")
DEFAULT_PARAMS_PER_VALUE: Final = 0.5
LEAST_PARAMS: Final = 64
LEAST_BY_DEFAULT: Final = 1024

# Cells of the finest grid, of the samples along the shortest axis; the second where the first
# leaves a fifth of the budget
FINEST_SHARES: Final = (0.6, 0.8)
BASE_RESOLUTION: Final = 64
# Features and levels: few levels of four features learn more in a second than many of two, which
# pay where they come so much closer to the budget. 16 columns of h_0 at most, as each costs time.
WIDE_GAIN: Final = 1.15
GRIDS: Final = ((4, 4), (4, 3), *((2, n_levels) for n_levels in range(3, 9)))
WIDTHS: Final = ((32, 32), (16, 16), (8,), (4,))
LOG2_TABLES: Final = range(4, 25)
# In space a level has eight corners to look up: two features and up to eight levels, from few cells
SPACE_GRIDS: Final = tuple((2, n_levels) for n_levels in (8, 7, 6, 5, 4))
SPACE_BASE: Final = 8
# Parameters for each of the N^2 cells that a surface crosses, over all levels of a grid whose
# finest has N: with fewer, cells share entries so often that distances waver far from the surface
SURFACE_PARAMS: Final = 15
# smoothstep is level at the corners of cells; at -1 and 1 those of all levels would coincide, and
# no slope could be learned
BOX: Final = (-1.0, 1.0)
SMOOTH_BOUNDS: Final = (-1.1, 1.1)
# Cells of a picture's finest grid, a parameter: where the budget is small, more of them would share
# entries so often that a coarser grid learns more (5 dB at 1/16 parameter a value)
PLANE_CELLS: Final = 0.75
# Along a line many levels are better: loud and busy moments take the entries of quiet ones
LINE_GRIDS: Final = tuple((2, n_levels) for n_levels in range(6, 13))
LARGE_BATCH, SMALL_BATCH, LEAST_BATCH = 1 << 13, 1 << 12, 1 << 7  # rows
STEPS_A_PASS: Final = 16  # at least, so that small signals get steps enough
GRID_ROW_WORK: Final = 8  # a look-up waits for memory as long as so many multiplications take
# Samples along an axis that omega_0 = 30 suits: Sitzmann et al. 2020 take it for pictures of 256 to
# 512 pixels, and a hundred times as much for seconds of sound
SIREN_SAMPLES: Final = (256, 4096)


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained.

    Attributes
    ----------
    spec : NetworkSpec
    optimizer : Adam
        Its `lr` is the highest learning rate.
    last_lr : float
        What the learning rate falls to, along half a cosine.
    batch_size : int
    precision : str
    first_factor : float
        The first layer's weights are drawn so many times as large.
    """

    spec: NetworkSpec
    optimizer: Adam
    last_lr: float
    batch_size: int
    precision: str = "float32"
    first_factor: float = 1.0

    @property
    def work(self) -> int:
        """Multiplications of a row, forward, with the time of look-ups counted as such."""
        spec = self.spec
        table = math.prod(spec.table_shape)
        work = spec.n_params - table
        if isinstance(spec.encoding, HashGrid):
            work += GRID_ROW_WORK * spec.encoding.d_out(spec.d_in) * 2**spec.d_in
        return work

    def learning_rate(self, share: float) -> float:
        """Return the learning rate when this share of the run is over."""
        high = float(self.optimizer.lr)  # type: ignore[arg-type]  # a number, no schedule
        return self.last_lr + (high - self.last_lr) * 0.5 * (1.0 + math.cos(math.pi * share))

    def network(self, seed: int) -> Network:
        """Return a network with first parameters drawn from `seed`."""
        rng = np.random.default_rng([seed, 0])
        spec = self.spec
        net = Network(
            spec.d_in,
            spec.widths,
            spec.d_out,
            activation=spec.activations,
            encoding=spec.encoding,
            rng=rng,
        )
        if self.first_factor != 1.0:
            net.weights[0] = net.weights[0] * self.first_factor
        return net


def budget(n_params: int | None, params_per_value: float | None, n_values: int, where: str) -> int:
    """Return the most parameters that a network may have, from one of the two arguments."""
    if n_params is not None and params_per_value is not None:
        raise SpecError(
            f"{where}: expected n_params or params_per_value, got both. Pass one of them."
        )
    if n_params is not None:
        return check_count(n_params, "n_params", where, LEAST_PARAMS)
    if params_per_value is None:
        return max(int(DEFAULT_PARAMS_PER_VALUE * n_values), LEAST_BY_DEFAULT)
    share = check_number(params_per_value, "params_per_value", where, 0.0, closed="right")
    return int(share * n_values)


def recipe(preset: str, signal: Signal, most: int, seed: int) -> Recipe:
    """Return what suits a signal.

    Parameters
    ----------
    preset : {"hash", "fourier", "siren", "relu"}
    signal : Signal
    most : int
        Parameters at most, of all that the network has.
    seed : int
        Of a Fourier encoding's matrix.

    Raises
    ------
    SpecError
        There is no such preset, or `most` is too few for the smallest network of it.
    """
    check_choice(preset, PRESETS, "preset", "recipe")
    d_in, d_out, resolution = signal.d_in, signal.d_out, signal.resolution
    large, small = (_batch_size(signal.n_rows, size) for size in (LARGE_BATCH, SMALL_BATCH))
    if preset == "hash":
        spec = _hash_spec(signal, most)
        return Recipe(spec, Adam(1e-2, beta_2=0.99, epsilon=1e-15), 1e-4, large)
    if preset == "fourier":
        n_features = max(4, min(128, most // 64))
        # A distance bends at its creases only
        scale = max(resolution) / (200.0 if signal.is_smooth else 100.0)
        waves = RandomFourier(n_features, scale=scale, rng=seed)
        spec = _plain_spec(d_in, d_out, most, "relu", waves)
        return Recipe(spec, Adam(2e-3, beta_2=0.99), 1e-5, small)
    if preset == "siren":
        spec = _plain_spec(d_in, d_out, most, "sine", None)
        low, high = (max(resolution) / samples for samples in SIREN_SAMPLES)
        factor = min(low, max(high, 1.0))
        return Recipe(spec, Adam(1e-3, beta_2=0.99), 1e-5, small, first_factor=factor)
    spec = _plain_spec(d_in, d_out, most, "relu", None)
    return Recipe(spec, Adam(2e-3, beta_2=0.99), 1e-5, small)


def _batch_size(n_rows: int, at_most: int) -> int:
    """Return a power of two that gives a pass over the rows `STEPS_A_PASS` steps."""
    size = at_most
    while size > LEAST_BATCH and size * STEPS_A_PASS > n_rows:
        size //= 2
    return size


def _hash_spec(signal: Signal, most: int) -> NetworkSpec:
    """Return a hash grid and small network of at most `most` parameters, nearly all of them.

    The widest network that takes no more than a quarter, so that most of the budget is table.
    """
    best: NetworkSpec | None = None
    for widths in WIDTHS:
        for share in FINEST_SHARES:
            finest = max(2, min(int(share * min(signal.resolution)), 1 << 20))
            if signal.d_in == 2:
                finest = max(2, min(finest, int(math.sqrt(PLANE_CELLS * most))))
            if signal.is_smooth:
                finest = max(2, min(finest, int(math.sqrt(most / SURFACE_PARAMS))))
            best = _fill(signal, widths, finest, most)
            if best is None or best.n_params > 0.8 * most:
                break
        if best is not None and 4 * (best.n_params - math.prod(best.table_shape)) <= best.n_params:
            return best
    if best is None:
        raise _too_few(most)
    return best


def _too_few(most: int) -> SpecError:
    return SpecError(
        f"recipe: expected a budget that holds a hash grid and a network, got {most} "
        "parameters. Raise n_params or params_per_value, or use preset='siren'."
    )


def _fill(signal: Signal, widths: tuple[int, ...], finest: int, most: int) -> NetworkSpec | None:
    """Return the network of these widths with the largest table that `most` allows, if any."""
    d_in = signal.d_in
    base, grids = max(2, min(BASE_RESOLUTION, finest // 4)), GRIDS
    interpolation, bounds = ("smoothstep", SMOOTH_BOUNDS) if signal.is_smooth else ("linear", BOX)
    if d_in == 3:
        base, grids = max(2, min(SPACE_BASE, finest // 4)), SPACE_GRIDS
    if d_in == 1:
        base, grids = max(2, finest >> 8), LINE_GRIDS
    best, best_worth = None, 0.0
    for n_features, n_levels in grids:
        for log2_table in LOG2_TABLES:
            grid = HashGrid(
                n_levels,
                n_features,
                log2_table,
                base,
                finest,
                interpolation=interpolation,
                bounds=bounds,
            )
            if math.prod(grid.table_shape(d_in)) > most:
                break
            spec = NetworkSpec.create(d_in, widths, signal.d_out, encoding=grid)
            worth = spec.n_params * (WIDE_GAIN if n_features == 4 else 1.0)
            if spec.n_params <= most and worth > best_worth:
                best, best_worth = spec, worth
    return best


def _plain_spec(
    d_in: int, d_out: int, most: int, activation: str, encoding: Encoding | None
) -> NetworkSpec:
    """Return three hidden layers as wide as `most` allows."""

    def of(width: int) -> NetworkSpec:
        widths = (width,) * 3
        return NetworkSpec.create(d_in, widths, d_out, activation=activation, encoding=encoding)

    low, high = 1, 2048
    if of(low).n_params > most:
        raise SpecError(
            f"recipe: expected at least {of(low).n_params} parameters for this preset, got {most}. "
            "Raise n_params or params_per_value."
        )
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if of(middle).n_params <= most else (low, middle - 1)
    return of(low)

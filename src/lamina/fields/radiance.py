"""Two networks for a scene: density and features of a place, colour of these and a direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.encodings import Fourier, HashGrid
from lamina.core.engine import Engine, Run, make_engine
from lamina.core.losses import SquaredError
from lamina.core.network import Network
from lamina.core.optim import Adam, native_hyper

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

PRESETS: Final = ("hash", "classic")
FEATURES: Final = 15
MOST_LOG_DENSITY: Final = 12.0
HARMONICS: Final = 16
CLASSIC_WIDTH: Final = 256


def networks(preset: str, n_params: int, seed: int) -> tuple[Network, Network]:
    """Return the networks of a preset, their first parameters drawn from `seed`.

    Parameters
    ----------
    preset : {"hash", "classic"}
        "hash": a hash grid, one layer of 64 to a log density and 15 features; colours by two
        layers of 64. "classic": Mildenhall et al. (2020), appendix A: frequencies 2^0 … 2^9, eight
        layers of 256 with the encoded place fed in again at the sixth, one of 128 for colours.
    n_params : int
        Of the hash preset, at most.
    seed : int
    """
    rng = np.random.default_rng([seed, 0])
    if preset == "classic":
        # DIFF(Mildenhall 2020, appendix A): the layer after the fifth reads h_0 again, which is the
        # paper's fifth when its first is counted as the zeroth.
        trunk = Network(
            3,
            (CLASSIC_WIDTH,) * 8,
            1 + CLASSIC_WIDTH,
            encoding=Fourier(10),
            skips={6: (0,)},
            rng=rng,
        )
        colour = Network(CLASSIC_WIDTH + 27, (CLASSIC_WIDTH // 2,), 3, output="sigmoid", rng=rng)
        return trunk, colour
    colour = Network(FEATURES + HARMONICS, (64, 64), 3, output="sigmoid", rng=rng)
    best: Network | None = None
    for log2_size in range(8, 23):
        grid = HashGrid(10, 2, log2_size, 16, _finest(n_params))
        trunk = Network(3, (64,), 1 + FEATURES, encoding=grid, rng=np.random.default_rng([seed, 1]))
        if best is not None and trunk.n_params + colour.n_params > n_params:
            break
        best = trunk
    assert best is not None  # noqa: S101
    return best, colour


def _finest(n_params: int) -> int:
    """Cells of the finest level: a surface crosses about so many squared."""
    return int(np.clip(np.sqrt(n_params / 4), 32, 512))


def encode_directions(preset: str, directions: Array) -> Float32:
    """Return directions (n, 3) of length 1 as the colour network reads them.

    Spherical harmonics up to degree 3, 16 columns (Müller et al. 2022, section 5.4), or with
    "classic" the direction and sines and cosines of 2^0 … 2^3 pi times it, 27 columns.
    """
    if preset == "classic":
        angles = [np.pi * 2**k * directions for k in range(4)]
        parts = [directions, *(f(a) for a in angles for f in (np.sin, np.cos))]
        return np.concatenate(parts, axis=1).astype(np.float32)
    x, y, z = directions.astype(np.float32).T
    xx, yy, zz, xy, yz, xz = x * x, y * y, z * z, x * y, y * z, x * z
    columns = [
        np.full_like(x, 0.28209479),
        -0.48860251 * y,
        0.48860251 * z,
        -0.48860251 * x,
        1.0925484 * xy,
        -1.0925484 * yz,
        0.94617470 * zz - 0.31539157,
        -1.0925484 * xz,
        0.54627422 * (xx - yy),
        0.59004359 * y * (yy - 3 * xx),
        2.8906114 * xy * z,
        0.45704579 * y * (1 - 5 * zz),
        0.37317633 * z * (5 * zz - 3),
        0.45704579 * x * (1 - 5 * zz),
        1.4453057 * z * (xx - yy),
        0.59004359 * x * (3 * yy - xx),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def density_of(log_density: Array) -> Array:
    """Return exp of log densities, cut where it would not be finite in float32 sums."""
    return np.exp(np.minimum(log_density, MOST_LOG_DENSITY))


@dataclass(frozen=True)
class Answer:
    """What the networks say of some samples, and what their gradient needs."""

    trunk: Float32  # (n, 1 + features)
    colour_input: Float32
    density: Float32  # (n,)
    colours: Float32  # (n, 3)


class RadianceRun:
    """Both networks in the engine, and their optimisers.

    Parameters
    ----------
    preset : str
    trunk, colour : Network
    most_rows : int
        Samples of a step.
    seed, n_threads : int
    precision : str
    """

    def __init__(
        self,
        preset: str,
        trunk: Network,
        colour: Network,
        most_rows: int,
        seed: int,
        n_threads: int,
        precision: str = "float32",
    ) -> None:
        self.preset, self.n_threads = preset, n_threads
        self.trunk, self.colour = trunk, colour
        self.engines: tuple[Engine, Engine] = (
            make_engine(trunk.spec, trunk.theta),
            make_engine(colour.spec, colour.theta),
        )
        self.bfloat16 = precision == "bfloat16"
        kind, hyper = native_hyper(Adam(1e-2, beta_2=0.99, epsilon=1e-15))
        self.runs = tuple(
            Run(
                engine,
                SquaredError(),
                kind,
                {**hyper, "bfloat16": self.bfloat16 and engine is self.engines[0]},
                batch_size=most_rows,
                seed=seed,
                n_threads=n_threads,
            )
            for engine in self.engines
        )

    def density(self, places: Array) -> Float32:
        """Return densities (n,) at places (n, 3)."""
        out = self.engines[0].forward(places, self.n_threads, bfloat16=self.bfloat16)
        return np.asarray(density_of(out[:, 0]), np.float32)

    def forward(self, places: Float32, directions: Float32) -> Answer:
        """Return what the networks say at places (n, 3) seen along encoded directions."""
        trunk = self.engines[0].forward(places, self.n_threads, bfloat16=self.bfloat16)
        colour_input = np.concatenate([trunk[:, 1:], directions], axis=1)
        colours = self.engines[1].forward(colour_input, self.n_threads)
        return Answer(trunk, colour_input, density_of(trunk[:, 0]), colours)

    def step(
        self, places: Float32, said: Answer, grad_density: Array, grad_colours: Array, lr: float
    ) -> None:
        """Take one step of Adam, from d loss / d density (n,) and d loss / d colours (n, 3)."""
        of_colour, inner = self._back(said, grad_density, grad_colours)
        self.runs[1].apply(of_colour, lr)
        self.runs[0].epochs(
            places,
            _target(said.trunk, inner),
            np.array([lr]),
            first_epoch=0,
            n_epochs=1,
            shuffle=False,
        )

    def gradients(
        self, places: Float32, said: Answer, grad_density: Array, grad_colours: Array
    ) -> tuple[Float32, Float32]:
        """Return d loss / d theta of both networks, from the same."""
        of_colour, inner = self._back(said, grad_density, grad_colours)
        of_trunk = np.zeros(self.trunk.n_params, np.float32)
        self.engines[0].evaluate(
            places,
            _target(said.trunk, inner),
            SquaredError(),
            grad=of_trunk,
            n_threads=self.n_threads,
        )
        return of_trunk, of_colour

    def _back(
        self, said: Answer, grad_density: Array, grad_colours: Array
    ) -> tuple[Float32, Float32]:
        """Return d loss / d theta of the colours' network, and by the trunk's outputs."""
        colour = self.engines[1]
        grad, grad_input = np.empty(colour.n_params, np.float32), np.empty_like(said.colour_input)
        colour.evaluate(
            said.colour_input,
            _target(said.colours, grad_colours),
            SquaredError(),
            grad=grad,
            grad_x=grad_input,
            n_threads=self.n_threads,
        )
        inner = np.empty_like(said.trunk)
        inner[:, 0] = grad_density * said.density * (said.trunk[:, 0] < MOST_LOG_DENSITY)
        inner[:, 1:] = grad_input[:, : inner.shape[1] - 1]
        return grad, inner

    def hand_over(self) -> None:
        """Give the networks the parameters as they are now."""
        for net, engine in zip((self.trunk, self.colour), self.engines, strict=True):
            net.theta = engine.get_parameters()


def _target(said: Float32, gradient: Array) -> Float32:
    """Return y for which d (mean squared error) / d y_pred is the gradient that is wanted.

    The engine's loss is sum_rj (f_rj - y_rj)^2 / (n d), whose gradient is 2 (f - y) / (n d).
    """
    return (said - gradient * (0.5 * said.size)).astype(np.float32)

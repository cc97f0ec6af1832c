"""Field: what all kinds have in common. F(x) is a network; x lies in [-1, 1]^d_in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from lamina.core import modelfile
from lamina.core.checks import as_matrix, check_choice, check_count, resolve_rng
from lamina.core.errors import SpecError
from lamina.core.network import Network
from lamina.fields import field_file
from lamina.fields.fit import DEFAULT_SECONDS, FieldReport, FitProgress, Fitting, Limits
from lamina.fields.quantised import Quantised, tensors
from lamina.fields.recipe import PRESETS, budget, recipe
from lamina.fields.signal import Signal

Array = npt.NDArray[Any]
Values = Callable[[Array], Array]


class Field:
    """A signal stored in the weights of a network, as a function of coordinates.

    A kind of field is a subclass: it has a ROLE, says how a signal is read (`_signal`), what of it
    is stored beside the network (`_meta`, `_set_meta`), how PSNR is measured (`_score`), and how
    it is rendered.

    Parameters
    ----------
    preset : {"hash", "fourier", "siren", "relu"}, default "hash"
        The network: a multiresolution hash grid and a small MLP, which learns fastest; random
        Fourier features and an MLP; sines throughout, whose derivatives of any order are smooth;
        plain ReLU, which shows why coordinates need one of the others.
    rng : int or numpy.random.Generator, optional
        The seed of first weights and of the order of rows; None draws one.
    n_threads : int ≥ 1, optional
        None: LAMINA_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs this process may use.

    Raises
    ------
    SpecError
        An argument is not as described.
    """

    ROLE: ClassVar[str]
    SECONDS: ClassVar[float] = DEFAULT_SECONDS  # of a fit, where no limit is given

    def __init__(
        self,
        preset: str = "hash",
        *,
        rng: int | np.random.Generator | None = None,
        n_threads: int | None = None,
    ) -> None:
        where = type(self).__name__
        self.preset = check_choice(preset, PRESETS, "preset", where)
        self.seed = int(resolve_rng(rng).integers(0, 2**63))
        if isinstance(rng, int | np.integer):
            self.seed = int(rng)
        self.n_threads = None if n_threads is None else check_count(n_threads, "n_threads", where)
        self._network: Network | None = None
        self._report: FieldReport | None = None
        self._coding: Quantised | None = None

    # --- what a kind of field says ---------------------------------------------------------------

    def _signal(self, signal: Any, where: str) -> Signal:
        """Return what the user passed as a signal, checked."""
        raise NotImplementedError

    def _score(self, values: Values, signal: Signal) -> float:
        """Return the PSNR of a function of coordinates on a signal, in dB."""
        raise NotImplementedError

    def _meta(self) -> dict[str, Any]:
        """Return what a file holds beside the network: anything JSON can hold."""
        raise NotImplementedError

    def _set_meta(self, meta: Mapping[str, Any]) -> None:
        """Take what `_meta` returned; it comes from a file, so that nothing in it is trusted."""
        raise NotImplementedError

    def _check_network(self, d_in: int, d_out: int) -> None:
        """Raise `SpecError` unless a file's network has the coordinates and values of `_meta`."""
        raise NotImplementedError

    def _describe(self, signal: Signal) -> None:
        """Keep what `_meta` returns, of a signal that is about to be fitted."""
        raise NotImplementedError

    # --- fit -------------------------------------------------------------------------------------

    def _fit(
        self,
        signal: Any,
        *,
        max_seconds: float | None,
        max_steps: int | None,
        target_psnr: float | None,
        repeat: FieldReport | None,
        n_params: int | None,
        params_per_value: float | None,
        progress: Callable[[FitProgress], object] | None,
        **options: Any,
    ) -> Self:
        """Fit: the body of every kind's `fit`, which documents these arguments."""
        began = time.perf_counter()
        where = f"{type(self).__name__}.fit"
        limits = Limits.check(where, max_seconds, max_steps, target_psnr, repeat)
        if progress is not None and not callable(progress):
            raise SpecError(
                f"{where}: expected progress to be a function of a FitProgress, got {progress!r}."
            )
        seed = self.seed if limits.repeat is None else limits.repeat.seed
        checked = self._signal(signal, where, **options)
        most = budget(n_params, params_per_value, checked.n_values, where)
        chosen = recipe(self.preset, checked, most, seed)
        net = chosen.network(seed)
        if limits.repeat is not None and net.n_params != limits.repeat.n_params:
            raise SpecError(
                f"{where}: expected a network of {limits.repeat.n_params:,} parameters, as in the "
                f"fit to repeat, got {net.n_params:,}. Pass the same signal, preset and budget."
            )
        fitting = Fitting(
            net,
            checked,
            chosen,
            limits,
            seed,
            self.n_threads,
            lambda values: self._score(values, checked),
            progress,
            began,
        )
        report = fitting.go()
        # Only now: a fit that fails leaves the field as it was
        self._describe(checked)
        self._network, self._report, self._coding = net, report, None
        return self

    # --- what it is ------------------------------------------------------------------------------

    @property
    def network(self) -> Network:
        """The network, from coordinates to the signal's own units."""
        if self._network is None:
            name = type(self).__name__
            raise SpecError(
                f"{name}: expected a field that is fitted, got one that is not. Call fit first."
            )
        return self._network

    @property
    def report(self) -> FieldReport:
        """How the fit went, and what repeats it."""
        self.network  # noqa: B018  # raises where there is none
        assert self._report is not None  # noqa: S101
        return self._report

    @property
    def n_params(self) -> int:
        """Numbers that the field consists of."""
        return self.network.n_params

    @property
    def coding(self) -> Quantised | None:
        """The weights as whole numbers and steps, of a field that `compress` made."""
        self.network  # noqa: B018  # raises where there is none
        return self._coding

    @property
    def n_coded_bytes(self) -> int:
        """Bytes that the weights take in a file."""
        if self._coding is None:
            return self._weights().nbytes
        return self._coding.n_bytes(self._tensors())

    @property
    def bits_per_weight(self) -> float:
        """Bits that a weight takes in a file, on average: 32 where `compress` was not called."""
        return 8 * self.n_coded_bytes / self.n_params

    def _networks(self) -> dict[str, Network]:
        """Return what the weights belong to, by their arrays' names in the file."""
        return {"theta": self.network}

    def _tensors(self) -> list[slice]:
        """Return where each tensor lies in `_weights`."""
        return tensors(*(network.spec for network in self._networks().values()))

    def _weights(self) -> Array:
        """Return all weights."""
        return np.concatenate([network.theta for network in self._networks().values()])

    def _set_weights(self, theta: Array) -> None:
        """Take other weights, in new networks."""
        self._network = Network.from_spec(self.network.spec, theta)

    def __call__(self, coordinates: npt.ArrayLike) -> Array:
        """Return the field's values, in the signal's own units and neither rounded nor clipped.

        Parameters
        ----------
        coordinates : array-like (..., d_in), finite
            In [-1, 1]; beyond, a hash grid holds its border's values and waves go on.

        Returns
        -------
        values : float32 array (..., d_out)

        Raises
        ------
        ShapeError, DataError
            `coordinates` is not as described.
        """
        rows, leading = self._rows(coordinates, "")
        return self.network(rows).reshape(*leading, -1)

    def gradient(self, coordinates: npt.ArrayLike) -> Array:
        """Return d value / d coordinate, exactly.

        Parameters
        ----------
        coordinates : array-like (..., d_in), finite

        Returns
        -------
        gradient : float32 array (..., d_out, d_in)
            In the signal's units per unit of coordinate: multiply by 2 / n for a change per
            sample, where n samples lie along the axis. A hash grid's jumps at the walls of cells.

        Raises
        ------
        ShapeError, DataError
            `coordinates` is not as described.
        """
        rows, leading = self._rows(coordinates, ".gradient")
        jacobian = self.network.jacobian(rows)
        return jacobian.reshape(*leading, *jacobian.shape[1:])

    def _rows(self, coordinates: npt.ArrayLike, method: str) -> tuple[Array, tuple[int, ...]]:
        """Return coordinates as a matrix, and the shape of what they were arranged in."""
        where, d_in = f"{type(self).__name__}{method}", self.network.spec.d_in
        shape = np.shape(coordinates)
        flat = np.asarray(coordinates)
        if len(shape) != 2 and shape and shape[-1] == d_in:
            flat = flat.reshape(-1, d_in)
            return as_matrix(flat, "coordinates", where, d_in, np.float32), shape[:-1]
        return as_matrix(flat, "coordinates", where, d_in, np.float32), shape[:1]

    def __repr__(self) -> str:
        name = type(self).__name__
        if self._network is None:
            return f"{name}({self.preset!r})  # not fitted"
        return f"{name}({self.preset!r})  # {self.n_params:,} parameters, {self.report.psnr:.2f} dB"

    # --- files -----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the field to a model file, all or nothing; `lamina.load` reads it.

        Raises
        ------
        ModelFileError
            `path` cannot be written.
        """
        modelfile.write(path, self.ROLE, *self._parts())

    @property
    def n_file_bytes(self) -> int:
        """Bytes of the file that `save` writes."""
        return modelfile.size_of(self.ROLE, *self._parts())

    def _parts(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return the specification and arrays of the file."""
        spec, arrays = field_file.parts(self.network, self.report, self.preset, self._meta())
        return field_file.with_coding(spec, arrays, self._networks(), self._coding)

    @classmethod
    def from_file_parts(cls, spec: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Make a field of what `modelfile.read` returned.

        Raises
        ------
        SpecError, ShapeError, DataError
            The parts are not those of such a field, or do not belong together.
        """
        spec, arrays, coding = field_file.without_coding(spec, arrays, cls.__name__)
        preset, network, report, meta = field_file.from_parts(spec, arrays, cls.__name__)
        field = cls(preset, rng=report.seed)
        field._set_meta(meta)
        field._check_network(network.spec.d_in, network.spec.d_out)
        field._network, field._report, field._coding = network, report, coding
        return field

"""Ensemble: several networks of one shape, whose mean is the prediction."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core import modelfile
from lamina.core.checks import check_count, is_whole_number, resolve_rng
from lamina.core.errors import SpecError
from lamina.core.network import Network
from lamina.core.spec import NetworkSpec

Array = npt.NDArray[Any]


class Ensemble:
    """Networks of one shape; calling it returns the mean of their outputs.

    ::

        y_pred = (1 / k) sum_i net_i(x)

    Parameters
    ----------
    networks : iterable of Network, at least one
        Of one `spec`, and no network twice. They are held, not copied: training one of them
        changes the ensemble.

    Raises
    ------
    SpecError
        There is none, one is no `Network`, comes twice, or has another shape.

    Notes
    -----
    `lamina.train_many` trains an ensemble's networks together. With output "softmax" or "sigmoid"
    the mean is one of probabilities.

    References
    ----------
    Lakshminarayanan, Pritzel and Blundell 2017, "Simple and scalable predictive uncertainty
    estimation using deep ensembles", arXiv:1612.01474, eq. 2.

    Examples
    --------
    >>> import lamina, numpy as np
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> ensemble = lamina.Ensemble.create(4, 1, (16,), 1, rng=0)
    >>> histories = lamina.train_many(ensemble, x, x**2, max_epochs=5, rng=0)
    >>> ensemble(x).shape, ensemble.predict_members(x).shape
    ((64, 1), (4, 64, 1))
    """

    __slots__ = ("__weakref__", "_networks")

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = check_networks(networks, "Ensemble")

    @classmethod
    def create(
        cls,
        n_members: int,
        d_in: int,
        widths: Iterable[int],
        d_out: int,
        *,
        rng: int | np.random.Generator | None = None,
        **arguments: Any,
    ) -> Ensemble:
        """Make `n_members` networks that differ in their first weights.

        Parameters
        ----------
        n_members : int ≥ 1
        d_in, widths, d_out, **arguments
            As for `Network`.
        rng : int or numpy.random.Generator, optional
            The seed of all first weights, drawn one network after the other.
        """
        count = check_count(n_members, "n_members", "Ensemble.create")
        generator = resolve_rng(rng)
        first = Network(d_in, widths, d_out, rng=generator, **arguments)
        others = (
            Network(d_in, widths, d_out, rng=generator, **arguments) for _ in range(count - 1)
        )
        return cls([first, *others])

    @property
    def networks(self) -> tuple[Network, ...]:
        """The members."""
        return self._networks

    @property
    def spec(self) -> NetworkSpec:
        """The architecture of each member."""
        return self._networks[0].spec

    @property
    def n_params(self) -> int:
        """Weights and biases of all members together."""
        return sum(net.n_params for net in self._networks)

    def __len__(self) -> int:
        return len(self._networks)

    def __iter__(self) -> Iterator[Network]:
        return iter(self._networks)

    def __getitem__(self, index: int) -> Network:
        if not is_whole_number(index):
            raise TypeError(f"Ensemble: expected a whole number as index, got {index!r}.")
        return self._networks[int(index)]

    def __repr__(self) -> str:
        return f"Ensemble of {len(self)} × {self._networks[0]!r}"

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return the mean of the members' outputs for the rows of `x`.

        Parameters
        ----------
        x : array-like (n, d_in)
            As for calling a `Network`.

        Returns
        -------
        y_pred : array (n, d_out)
            Of the networks' dtype.
        """
        rows = np.asarray(x)
        total = np.asarray(self._networks[0](rows), np.float64)
        for net in self._networks[1:]:
            total += net(rows)
        return (total / len(self)).astype(self._networks[0].dtype)

    def predict_members(self, x: npt.ArrayLike) -> Array:
        """Return every member's output for the rows of `x`.

        Parameters
        ----------
        x : array-like (n, d_in)
            As for calling a `Network`.

        Returns
        -------
        y_pred : array (n_members, n, d_out)
        """
        rows = np.asarray(x)
        return np.stack([net(rows) for net in self._networks])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all members to one model file, all or nothing; `lamina.load` reads it.

        Raises
        ------
        ModelFileError
            `path` cannot be written.
        """
        theta = np.stack([net.theta for net in self._networks])
        spec = {"network": self.spec.to_json(), "n_members": len(self)}
        modelfile.write(path, "ensemble", spec, {"theta": theta})

    @classmethod
    def from_file_parts(cls, spec: Mapping[str, Any], arrays: Mapping[str, Array]) -> Ensemble:
        """Make an ensemble of what `modelfile.read` returned for the role "ensemble".

        Raises
        ------
        SpecError, ShapeError, DataError
            The parts are not those of an ensemble, or do not belong together.
        """
        if sorted(map(str, spec)) != ["n_members", "network"]:
            raise SpecError(
                "Ensemble: expected a specification with the keys ['n_members', 'network'], got "
                f"{sorted(map(str, spec))}. Save the ensemble again."
            )
        count = check_count(spec["n_members"], "n_members", "Ensemble")
        checked = NetworkSpec.from_json(spec["network"])
        got = {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
        expected = {"theta": (checked.dtype, (count, checked.n_params))}
        if got != expected:
            raise SpecError(
                f"Ensemble: expected the arrays {expected}, got {got}. Save the ensemble again."
            )
        return cls(Network.from_spec(checked, theta) for theta in arrays["theta"])

    def __getstate__(self) -> tuple[Network, ...]:
        return self._networks

    def __setstate__(self, state: tuple[Network, ...]) -> None:
        self._networks = state


def check_networks(networks: object, where: str) -> tuple[Network, ...]:
    """Return networks of one shape as a tuple, or say what is wrong with them."""
    several = tuple(networks) if isinstance(networks, Iterable) else (networks,)
    advice = "Pass a list of networks, or lamina.Ensemble.create(n_members, d_in, widths, d_out)."
    if isinstance(networks, Network) or not several:
        got = "none" if not several else "one that is not in a list"
        raise SpecError(f"{where}: expected several networks, got {got}. {advice}")
    for i, net in enumerate(several):
        if not isinstance(net, Network):
            raise SpecError(
                f"{where}: expected every one to be a Network, got {type(net).__name__} "
                f"as number {i}. {advice}"
            )
        if net.spec != several[0].spec:
            raise SpecError(
                f"{where}: expected networks of one shape, got {several[0]!r} as number 0 and "
                f"{net!r} as number {i}. Train or hold other shapes apart."
            )
    if len({id(net) for net in several}) != len(several):
        raise SpecError(
            f"{where}: expected each network once, got one several times. "
            "Use copy.deepcopy(net) for a second of the same weights."
        )
    return several

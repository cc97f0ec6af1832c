"""Views on theta, the flat parameter vector: one array a layer, read-only until assigned to."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError, ShapeError
from lamina.core.spec import NetworkSpec

Array = npt.NDArray[Any]


class HasParameters(Protocol):
    """A network, as far as its parameters go."""

    theta: Array

    @property
    def spec(self) -> NetworkSpec:
        """The architecture, which says where in theta each array lies."""


class Parameters(Sequence[Array]):
    """The weights or the biases of a network, one array a layer.

    Reading gives a read-only array that keeps its values when the network is trained on; assigning
    copies the values in.
    """

    __slots__ = ("_kind", "_net")

    def __init__(self, net: HasParameters, kind: str) -> None:
        self._net = net
        self._kind = kind

    def __len__(self) -> int:
        return self._net.spec.n_layers

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> list[Array]: ...
    def __getitem__(self, index: int | slice) -> Array | list[Array]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        where, shape = self._place(index)
        return self._net.theta[where].reshape(shape)

    def __iter__(self) -> Iterator[Array]:
        return (self[i] for i in range(len(self)))

    def __setitem__(self, index: int, value: npt.ArrayLike) -> None:
        where, shape = self._place(index)
        name = f"net.{self._kind}[{index}]"
        theta = self._net.theta.copy()
        theta[where] = finite_copy(value, shape, name, self._net.theta.dtype).ravel()
        self._net.theta = theta

    def __repr__(self) -> str:
        shapes = ", ".join(str(array.shape) for array in self)
        return f"<{self._kind} of {len(self)} layers: {shapes}>"

    def _place(self, index: int) -> tuple[slice, tuple[int, ...]]:
        """Return where in theta the array of 0-based `index` lies, and its shape."""
        layer = operator.index(index)
        if not -len(self) <= layer < len(self):
            raise IndexError(
                f"net.{self._kind}: expected an index below {len(self)} (one a layer), got {index}."
            )
        spec, which = self._net.spec, 0 if self._kind == "weights" else 1
        return spec.slices()[layer][which], spec.parameter_shapes()[layer][which]


def unpack(spec: NetworkSpec, theta: Array) -> tuple[list[Array], list[Array]]:
    """Return views on a vector in theta's layout: weights (d_l, fan_in_l) and biases (d_l,)."""
    places = list(zip(spec.slices(), spec.parameter_shapes(), strict=True))
    weights = [theta[where].reshape(shape) for (where, _), (shape, _) in places]
    return weights, [theta[where] for (_, where), _ in places]


def finite_copy(
    value: npt.ArrayLike, shape: tuple[int, ...], name: str, dtype: np.dtype[Any]
) -> Array:
    """Return a C-contiguous copy of `dtype`, checked to be of this shape and finite.

    Raises
    ------
    ShapeError, DataError
        It is not.
    """
    try:
        if value is None:  # NumPy would make it NaN
            raise TypeError
        with np.errstate(over="ignore"):
            array = np.array(value, dtype=dtype, order="C")
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name}: expected an array of numbers, got {type(value).__name__}. "
            f"Pass one of shape {shape}."
        ) from error
    if array.shape != shape:
        advice = "Pass one number for each of them."
        if len(shape) == 2:
            advice = "Weights are (d_out, d_in) a layer"
            advice += "; transpose them." if array.shape == shape[::-1] else "."
        elif name.endswith("theta"):
            advice = "Pass all parameters in one vector: W_1 row by row, b_1, W_2 and so on."
        raise ShapeError(f"{name}: expected shape {shape}, got {array.shape}. {advice}")
    if not np.isfinite(array).all():
        raise DataError(
            f"{name}: expected finite {dtype} numbers, got NaN or infinity. "
            "Replace them, or scale large values down."
        )
    return array

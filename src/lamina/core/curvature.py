"""Second derivatives by the inputs: which networks have them, and the weight of each axis."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import as_matrix, shape_of
from lamina.core.column_embeddings import ColumnEmbeddings
from lamina.core.encodings import HashGrid
from lamina.core.errors import ShapeError, SpecError
from lamina.core.spec import NetworkSpec

STRAIGHT: Final = ("step", "relu", "leaky_relu")
"""Activations of straight pieces: phi'' is 0 wherever it exists, and infinite at the kink."""


def check_smooth(spec: NetworkSpec, where: str) -> None:
    """Refuse second derivatives of a network that has none worth the name.

    Raises
    ------
    SpecError
        A hidden activation is made of straight pieces, the output unit is a step, or the
        encoding is a linear grid.
    """
    kinked = [name for name in spec.activations if name in STRAIGHT]
    if spec.output == "step":
        kinked.append("step")
    if kinked:
        raise SpecError(
            f"{where}: expected smooth activations, got {kinked[0]!r}, whose second derivative is "
            "0 everywhere but at its kink. Use sine, tanh, softplus, silu or gelu."
        )
    if isinstance(spec.encoding, ColumnEmbeddings):
        raise SpecError(
            f"{where}: expected an encoding with second derivatives, got ColumnEmbeddings, which "
            "are piecewise linear. Use OneBlob, Fourier or no encoding."
        )
    if isinstance(spec.encoding, HashGrid) and spec.encoding.interpolation == "linear":
        raise SpecError(
            f"{where}: expected a HashGrid of interpolation 'smoothstep', got 'linear', whose "
            "gradient jumps at the walls of its cells. Use HashGrid(interpolation='smoothstep')."
        )


def axis_weights(weights: object, d_in: int, where: str) -> NDArray[Any]:
    """Return the weight of each d^2/dx_j^2 as a float64 vector (d_in,); None is 1 for each."""
    if weights is None:
        return np.ones(d_in)
    if shape_of(weights) != (d_in,):
        raise ShapeError(
            f"{where}: expected weights of shape ({d_in},), got {shape_of(weights)}. "
            "Pass one number for each column of x, or None for the Laplacian."
        )
    row: NDArray[Any] = as_matrix(np.asarray(weights)[np.newaxis], "weights", where, d_in)[0]
    return row

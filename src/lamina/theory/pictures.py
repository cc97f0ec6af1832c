"""A network as a diagram, and its first weights as images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from lamina.bridges.sklearn import as_network
from lamina.core.checks import as_matrix, check_count, is_whole_number
from lamina.core.errors import ShapeError, SpecError
from lamina.theory.layer_signals import input_signal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DIAGRAM: Final = "network_diagram"
_IMAGES: Final = "weights_as_images"


def network_diagram(
    net: Any,
    x: npt.ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    most: int = 12,
) -> Figure:
    """Return a drawing of a network: edges carry sign and size of weights, units their bias.

    Parameters
    ----------
    net : Network, or a fitted MLPClassifier or MLPRegressor
    x : array-like (d_in,), optional
        One row: each unit then shows its activation instead of its bias.
    names, outputs : sequences of d_in and of d_out str, optional
        Of the inputs and of the outputs.
    most : int ≥ 2, default 12
        Units drawn of a layer, those with the largest weights in and out; a wider one says how
        many there are.

    Returns
    -------
    Figure
        Needs matplotlib. Blue is positive, orange negative; an edge's width is its weight over the
        layer's largest.

    Raises
    ------
    SpecError, ShapeError, DataError
        `net` is something else, or `x` or names do not fit.

    Examples
    --------
    >>> import lamina
    >>> from lamina import theory
    >>> figure = theory.network_diagram(lamina.Network(2, (3,), 1, rng=0), [1.0, -1.0])
    """
    from lamina.plots.diagram import plot_network

    network = as_network(net, _DIAGRAM)
    spec = network.spec
    check_count(most, "most", _DIAGRAM, 2)
    dims = spec.layer_dims
    activations = None
    if x is not None:
        row = np.asarray(x)
        row = row[np.newaxis] if row.ndim == 1 else row
        rows = as_matrix(row, "x", _DIAGRAM, spec.d_in)
        if len(rows) != 1:
            raise ShapeError(
                f"{_DIAGRAM}: expected x as one row, got {len(rows)}. Pass for example x[0]."
            )
        h = network.trace(rows).h
        activations = [input_signal(network, rows)[0], *(h_l[0].astype(np.float64) for h_l in h)]
    encoded = spec.encoding is not None
    first = _names(names, dims[0], "names", "h" if encoded else "x")
    last = _names(outputs, dims[-1], "outputs", "y")
    return plot_network(
        dims,
        [np.asarray(w, np.float64) for w in network.weights],
        [np.asarray(b, np.float64) for b in network.biases],
        sources=[spec.sources(layer) for layer in range(1, spec.n_layers + 1)],
        functions=["input", *spec.activations, spec.output],
        names=(first, last),
        activations=activations,
        most=most,
    )


def weights_as_images(
    net: Any,
    layer: int = 1,
    shape: tuple[int, ...] | None = None,
    *,
    units: Sequence[int] | None = None,
    most: int = 48,
) -> Figure:
    """Return a picture of the weights of each unit, laid out as what it reads.

    Parameters
    ----------
    net : Network, or a fitted MLPClassifier or MLPRegressor
    layer : int, default 1
        1 … L; of the first, weights are images where inputs are.
    shape : (height, width) or (channels, height, width), optional
        Of the layer's inputs. None: square, where their number is one.
    units : sequence of int, optional
        Which, in this order; None: those with the largest weights, largest first.
    most : int ≥ 1, default 48
        Units drawn where `units` is None.

    Returns
    -------
    Figure
        Needs matplotlib. White is 0, red positive, blue negative, one scale for all; three
        channels are colours.

    Raises
    ------
    SpecError, ShapeError
        There is no such layer or unit, or `shape` does not fit.

    Examples
    --------
    >>> import lamina
    >>> from lamina import theory
    >>> figure = theory.weights_as_images(lamina.Network(64, (10,), 1, rng=0), shape=(8, 8))
    """
    from lamina.plots.images import plot_images

    network = as_network(net, _IMAGES)
    n_layers = network.spec.n_layers
    if not is_whole_number(layer) or not 1 <= int(layer) <= n_layers:
        raise SpecError(
            f"{_IMAGES}: expected a layer from 1 to {n_layers}, got {layer!r}. "
            f"Layer {n_layers} is the output."
        )
    weight = np.asarray(network.weights[int(layer) - 1], np.float64)  # (d_l, fan_in)
    size = _image_shape(shape, weight.shape[1])
    check_count(most, "most", _IMAGES)
    if units is None:
        order = np.argsort(-np.linalg.norm(weight, axis=1), kind="stable")[:most]
    else:
        order = _units(units, len(weight))
    title = f"Weights of layer {layer}"
    if len(order) < len(weight):
        title += f": {len(order)} of {len(weight)} units"
    images = weight[order].reshape(len(order), *size)
    return plot_images(images, [f"unit {k}" for k in order], title=title, value="weight")


def _units(units: Sequence[int], width: int) -> npt.NDArray[np.intp]:
    given = list(np.atleast_1d(np.asarray(units, object)))
    if not given or not all(is_whole_number(k) and 0 <= int(k) < width for k in given):
        raise SpecError(
            f"{_IMAGES}: expected units from 0 to {width - 1}, got {units!r}. Pass their indices."
        )
    return np.array([int(k) for k in given])


def _image_shape(shape: tuple[int, ...] | None, fan_in: int) -> tuple[int, ...]:
    if shape is None:
        side = int(np.sqrt(fan_in) + 0.5)
        if side * side != fan_in:
            raise ShapeError(
                f"{_IMAGES}: expected the shape of the layer's inputs, as {fan_in} is no square, "
                "got none. Pass for example shape=(height, width)."
            )
        return side, side
    size = tuple(check_count(s, "each number in shape", _IMAGES) for s in np.atleast_1d(shape))
    if len(size) not in (2, 3) or int(np.prod(size)) != fan_in:
        raise ShapeError(
            f"{_IMAGES}: expected shape as (height, width) or (channels, height, width) of "
            f"{fan_in} numbers, as the layer has inputs, got {shape!r}. Pass another."
        )
    return size


def _names(given: Sequence[str] | None, d: int, what: str, letter: str) -> list[str]:
    if given is None:
        return [f"{letter}{j}" for j in range(d)] if d > 1 else [letter]
    if isinstance(given, str) or len(given) != d:
        got = repr(given) if isinstance(given, str) else f"{len(given)}"
        raise ShapeError(f"{_DIAGRAM}: expected {d} {what}, got {got}. Pass a list of them.")
    return [str(name) for name in given]

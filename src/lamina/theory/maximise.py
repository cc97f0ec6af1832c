"""What does a unit look for? The input that excites it most, by regularised gradient ascent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lamina.bridges.sklearn import as_network
from lamina.core.checks import as_matrix, check_count, check_number, resolve_rng, shape_of
from lamina.core.errors import ShapeError, SpecError
from lamina.core.functions import Float64
from lamina.core.network import Network
from lamina.theory.ascent import Ascent, climb_octaves
from lamina.theory.responses import of_module, of_network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHERE = "maximise_activation"
Unit = int | tuple[int, ...] | None


@dataclass(frozen=True, eq=False)
class Maximised:
    """An input that excites a unit.

    Attributes
    ----------
    x : array of float64
        Of shape (d_in,), or of the image's shape.
    value : float
        The unit's pre-activation there, or what the module's layer gives.
    start_value : float
        The same before the first step.
    history : array (n_steps,)
        The value before each step, moved by jitter.
    unit : int, tuple of int or None
        None: the whole layer.
    layer : int, str or None
    """

    x: Float64
    value: float
    start_value: float
    history: Float64
    unit: Unit
    layer: int | str | None

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON types."""
        lists = {"x": self.x.tolist(), "history": self.history.tolist()}
        unit = list(self.unit) if isinstance(self.unit, tuple) else self.unit
        return {**vars(self), **lists, "unit": unit}

    def __repr__(self) -> str:
        unit = "a whole layer" if self.unit is None else f"unit {self.unit}"
        where = "" if self.layer is None else f" of layer {self.layer}"
        return (
            f"Maximised({unit}{where}: {self.start_value:.4g} -> {self.value:.4g}, "
            f"x of shape {self.x.shape})"
        )

    def plot(self) -> Figure:
        """Return a figure of x: an image where it is one, else bars (needs matplotlib)."""
        from lamina.plots.images import plot_components, plot_images

        unit = "a layer" if self.unit is None else f"unit {self.unit}"
        where = "" if self.layer is None else f" of layer {self.layer}"
        title = f"What excites {unit}{where}: {self.value:.3g}"
        if self.x.ndim >= 2:
            return plot_images(self.x[np.newaxis], [""], title=title)
        return plot_components(self.x, title=title)


def maximise_activation(
    model: Any,
    unit: Unit = None,
    layer: int | str | None = None,
    *,
    shape: int | tuple[int, ...] | None = None,
    start: npt.ArrayLike | None = None,
    radius: float | None = None,
    bounds: tuple[float, float] | None = None,
    l2: float = 0.0,
    total_variation: float = 0.0,
    jitter: int = 0,
    blur: float = 0.0,
    n_octaves: int = 1,
    n_steps: int = 200,
    lr: float | None = None,
    n_starts: int | None = None,
    rng: int | np.random.Generator | None = 0,
) -> Maximised:
    """Find the input that a unit responds to most, near enough to an input that could occur.

    ::

        maximise  a(x) - l2 / 2 |x|^2 - total_variation TV(x)   over |x| ≤ radius, x in bounds

    Parameters
    ----------
    model : Network, torch.nn.Module, or a fitted MLPClassifier or MLPRegressor
        A module is set to eval mode meanwhile, and left as it was.
    unit : int or tuple of int, optional
        Of a network: the unit of a layer, from 0; a is its pre-activation z, whose slope does not
        vanish where a probability saturates. Of a module: index 1 of the layer's output, a channel
        (a is its mean over places) or an output; a tuple is one place, such as (channel, row,
        column). None: the whole layer, a half its mean square, which raises whatever is there
        already: with `start` an image, the "DeepDream".
    layer : int or str, optional
        Of a network: 1 to L. Of a module: the name of a submodule, as in ``named_modules()``. None
        is the last.
    shape : tuple of int, optional
        Of x, where it is an image: (height, width) or (channels, height, width). A module needs it,
        or `start`, and (d_in,) will do.
    start : array-like of that shape, optional
        Where to begin; None: small normal noise.
    radius : float > 0, optional
        The length of x at most. None: sqrt(d_in), that of a standardised row, unless `bounds` or
        `l2` is given.
    bounds : (float, float), optional
        Of every number in x; for images what their pixels are scaled to.
    l2 : float ≥ 0, default 0
        Decay: a linear unit w ends at w / l2.
    total_variation : float ≥ 0, default 0
        Against noise in images; try 1e-4 to 1e-2 of a / number of pixels.
    jitter : int ≥ 0, default 0
        Move the image by up to so many pixels before each step: against patterns of the
        network's own grid. About the stride of the layer.
    blur : float ≥ 0, default 0
        Gaussian blur by so many pixels every fourth step but at the end.
    n_octaves : int ≥ 1, default 1
        Of a module that takes images of any size: begin at a smaller one, each 1.4 times the last.
    n_steps : int ≥ 1, default 200
        For each octave.
    lr : float > 0, optional
        Root mean square of the first step, in units of x; later ones shrink to 0. None: 0.2 for
        rows, 0.05 for images.
    n_starts : int ≥ 1, optional
        Climb from so many at once, and keep the best. None: 8 for rows, 1 for images and `start`.
    rng : int or numpy.random.Generator, default 0
        Of starts and jitter.

    Returns
    -------
    Maximised
        ``.x``, ``.value``; ``plot()``.

    Raises
    ------
    SpecError
        A unit or layer that is not there, or an option out of range.
    ShapeError, DataError
        `shape` or `start` does not fit, or is not finite.
    MissingExtraError
        A module, and torch is not installed.

    Notes
    -----
    A local maximum. Networks of relu are dead in places: if all starts are, x stays where it was.

    References
    ----------
    Erhan et al. (2009), "Visualizing higher-layer features of a deep network"; Simonyan et al.
    (2013), arXiv:1312.6034; Yosinski et al. (2015), arXiv:1506.06579; Mahendran and Vedaldi
    (2015), arXiv:1412.0035; Mordvintsev et al. (2015), "Inceptionism"; Olah et al. (2017),
    "Feature visualization", Distill.

    Examples
    --------
    >>> import lamina, numpy as np
    >>> from lamina import theory
    >>> net = lamina.Network(3, (), 1, rng=0)
    >>> w = net.weights[0][0]
    >>> best = theory.maximise_activation(net, 0, radius=1.0)
    >>> bool(np.allclose(best.x, w / np.linalg.norm(w), atol=1e-4))
    True
    """
    if hasattr(model, "hidden_layer_sizes"):
        model = as_network(model, _WHERE)
    begun = None if start is None else _as_start(start)
    size = _resolve_shape(model, shape, begun)
    generator = resolve_rng(rng)
    ascent = _check(size, radius, bounds, l2, total_variation, jitter, blur, n_steps, lr)
    octaves = check_count(n_octaves, "n_octaves", _WHERE)
    if isinstance(model, Network):
        if octaves > 1:
            raise SpecError(
                f"{_WHERE}: expected n_octaves=1 with a Network, whose d_in is fixed, got "
                f"{octaves}. Leave it out."
            )
        respond, layer = of_network(model, unit, layer)
    else:
        respond, layer = of_module(model, unit, layer)
    n = n_starts if n_starts is not None else 8 if begun is None and len(size) == 1 else 1
    check_count(n, "n_starts", _WHERE)
    if begun is None:
        x = 0.1 * generator.normal(size=(n, *size))
    else:
        x = np.broadcast_to(begun, (n, *size)).copy()
        x[1:] += 0.1 * generator.normal(size=(n - 1, *size))
    first, _ = respond(x)
    if len(size) == 1:
        x, values = ascent.climb(respond, x, generator)
    else:
        x, values = climb_octaves(ascent, respond, x, octaves, generator)
    last, _ = respond(x)
    best = int(np.argmax(last))
    return Maximised(x[best], float(last[best]), float(first[best]), values[best], unit, layer)


def _as_start(start: npt.ArrayLike) -> Float64:
    """Return the start in float64; an array of any shape, finite."""
    size = shape_of(start)  # () of ragged lists, which as_matrix then refuses
    flat: Any = start if not size else np.asarray(start).reshape(1, -1)
    return as_matrix(flat, "start", _WHERE).astype(np.float64).reshape(size)


def _resolve_shape(
    model: Any, shape: int | tuple[int, ...] | None, start: Float64 | None
) -> tuple[int, ...]:
    """Return the shape of one input."""
    if shape is not None:
        given = np.atleast_1d(np.asarray(shape, object))
        size = tuple(check_count(s, "each number in shape", _WHERE) for s in given)
    elif start is not None:
        size = start.shape
    elif isinstance(model, Network):
        size = (model.spec.d_in,)
    else:
        raise SpecError(
            f"{_WHERE}: expected the shape of an input of the module, got none. "
            "Pass shape=(3, 224, 224), or an image as start."
        )
    if start is not None and start.shape != size:
        raise ShapeError(
            f"{_WHERE}: expected start of shape {size}, got {start.shape}. Reshape one of them."
        )
    if isinstance(model, Network) and math.prod(size) != model.spec.d_in:
        raise ShapeError(
            f"{_WHERE}: expected a shape of {model.spec.d_in} numbers, as the network has inputs, "
            f"got {size}. Pass for example shape=(height, width)."
        )
    if not 1 <= len(size) <= 3:
        raise ShapeError(
            f"{_WHERE}: expected a shape such as (d_in,), (height, width) or (channels, height, "
            f"width), got {size}. Leave the batch out."
        )
    return size


def _check(
    size: tuple[int, ...],
    radius: float | None,
    bounds: tuple[float, float] | None,
    l2: float,
    total_variation: float,
    jitter: int,
    blur: float,
    n_steps: int,
    lr: float | None,
) -> Ascent:
    """Return the ascent of the user's numbers, checked."""
    images = {"total_variation": total_variation, "jitter": jitter, "blur": blur}
    for name, value in images.items():
        if check_number(value, name, _WHERE, 0.0) and len(size) == 1:
            raise SpecError(
                f"{_WHERE}: expected an image with {name}={value!r}, got inputs of shape {size}. "
                "Pass shape=(height, width), or leave it out."
            )
    if bounds is not None:
        low, high = (
            (check_number(b, "each bound", _WHERE) for b in bounds)
            if np.size(bounds) == 2
            else (0.0, 0.0)
        )
        if low >= high:
            raise SpecError(
                f"{_WHERE}: expected bounds as (lowest, highest), got {bounds!r}. "
                "Pass for example (0, 1)."
            )
        bounds = (low, high)
    check_number(l2, "l2", _WHERE, 0.0)
    if lr is None:
        lr = 0.2 if len(size) == 1 else 0.05
    if radius is not None:
        check_number(radius, "radius", _WHERE, 0.0, closed="right")
    elif bounds is None and not l2:
        radius = math.sqrt(math.prod(size))
    return Ascent(
        n_steps=check_count(n_steps, "n_steps", _WHERE),
        lr=check_number(lr, "lr", _WHERE, 0.0, closed="right"),
        radius=radius,
        bounds=bounds,
        l2=float(l2),
        total_variation=float(total_variation),
        jitter=check_count(jitter, "jitter", _WHERE, 0),
        blur=float(blur),
    )

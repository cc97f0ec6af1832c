"""Random first parameters: weights whose scale keeps signals and gradients of equal size.

Each scheme draws one weight matrix from its shape (d_out, fan_in); ``initialize`` draws the whole
theta of a network, each layer by the scheme that its activation asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import check_choice, resolve_rng
from lamina.core.column_embeddings import ColumnEmbeddings
from lamina.core.encodings import TABLE_INIT
from lamina.core.functions import Float64
from lamina.core.spec import NetworkSpec

KNOT_NOISE: Final = 0.01  # of column embeddings' knots
CATEGORY_INIT: Final = 0.3
OMEGA_0: Final = 30.0  # Sitzmann 2020, arXiv:2006.09661, section 3.2


def he(rng: np.random.Generator, d_out: int, fan_in: int) -> Float64:
    """Normal with variance 2 / fan_in, for relu and its kin.

    Parameters
    ----------
    rng : numpy.random.Generator
    d_out, fan_in : int
        The shape of the weight.

    Returns
    -------
    ndarray, shape (d_out, fan_in)

    References
    ----------
    He et al. (2015), arXiv:1502.01852, eq. 10.
    """
    return rng.normal(0.0, math.sqrt(2.0 / fan_in), (d_out, fan_in))


def glorot(rng: np.random.Generator, d_out: int, fan_in: int) -> Float64:
    """Uniform with variance 2 / (fan_in + d_out), for tanh, sigmoid and output layers.

    Parameters and result as for ``he``.

    References
    ----------
    Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward neural
    networks", eq. 16.
    """
    bound = math.sqrt(6.0 / (fan_in + d_out))
    return rng.uniform(-bound, bound, (d_out, fan_in))


def lecun(rng: np.random.Generator, d_out: int, fan_in: int) -> Float64:
    """Normal with variance 1 / fan_in, for selu.

    Parameters and result as for ``he``.

    References
    ----------
    LeCun et al. (1998), "Efficient BackProp", eq. 16; Klambauer et al. (2017), arXiv:1706.02515.
    """
    return rng.normal(0.0, math.sqrt(1.0 / fan_in), (d_out, fan_in))


def orthogonal(rng: np.random.Generator, d_out: int, fan_in: int) -> Float64:
    """Orthonormal rows, or columns if there are more rows: uniform over such matrices.

    Parameters and result as for ``he``.

    References
    ----------
    Saxe et al. (2014), arXiv:1312.6120; Mezzadri (2007), arXiv:math-ph/0609050, section 5, for
    the signs that make the draw uniform.
    """
    tall = rng.normal(size=(max(d_out, fan_in), min(d_out, fan_in)))
    q, r = np.linalg.qr(tall)
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return np.asarray(q if d_out >= fan_in else q.T)


def siren(rng: np.random.Generator, d_out: int, fan_in: int) -> Float64:
    """Uniform with variance 2 / fan_in, for layers between sines.

    Parameters and result as for ``he``.

    Notes
    -----
    Sitzmann's unit is sin(omega_0 (W x + b)); ours is sin(z), so omega_0 is part of the weight:
    the hidden weights U(±sqrt(6 / fan_in) / omega_0) become U(±sqrt(6 / fan_in)).

    References
    ----------
    Sitzmann et al. (2020), arXiv:2006.09661, section 3.2 and appendix 1.5.
    """
    bound = math.sqrt(6.0 / fan_in)
    return rng.uniform(-bound, bound, (d_out, fan_in))


def siren_first(rng: np.random.Generator, d_out: int, fan_in: int) -> Float64:
    """Uniform on ±OMEGA_0 / fan_in, for a first layer of sines that reads coordinates in [-1, 1].

    Parameters, result, notes and references as for ``siren``.
    """
    bound = OMEGA_0 / fan_in
    return rng.uniform(-bound, bound, (d_out, fan_in))


def siren_last(rng: np.random.Generator, d_out: int, fan_in: int) -> Float64:
    """Uniform on ±sqrt(6 / fan_in) / OMEGA_0, for an output layer that reads sines.

    Parameters, result, notes and references as for ``siren``.
    """
    return siren(rng, d_out, fan_in) / OMEGA_0


def columns(rng: np.random.Generator, encoding: ColumnEmbeddings) -> Float64:
    """Draw the first table of column embeddings.

    A numeric column starts as ramps, ``a sqrt(12) (u - 1/2)`` with a from N(0, 1) for each feature,
    plus N(0, KNOT_NOISE^2) at each knot: variance 1 where u is uniform. Categories are
    N(0, CATEGORY_INIT^2), so that those with few rows are near the mean.

    Parameters
    ----------
    rng : numpy.random.Generator
    encoding : ColumnEmbeddings

    Returns
    -------
    ndarray, of the table's shape
    """
    embeddings = []
    for j, cells in enumerate(encoding.cells):
        shape = encoding.n_vectors(j), encoding.n_features
        if cells < 0:
            embeddings.append(rng.normal(0.0, CATEGORY_INIT, shape))
        else:
            ramp = math.sqrt(12.0) * (np.linspace(0.0, 1.0, shape[0]) - 0.5)
            slope = rng.normal(size=shape[1])
            embeddings.append(np.outer(ramp, slope) + rng.normal(0.0, KNOT_NOISE, shape))
    return encoding.pack(embeddings)


Scheme = Callable[[np.random.Generator, int, int], Float64]

SCHEMES: Final[dict[str, Scheme]] = {
    "he": he,
    "glorot": glorot,
    "lecun": lecun,
    "orthogonal": orthogonal,
    "siren": siren,
}
DEFAULT_SCHEME: Final[dict[str, str]] = {
    "identity": "glorot",
    "step": "glorot",
    "sigmoid": "glorot",
    "tanh": "glorot",
    "relu": "he",
    "leaky_relu": "he",
    "softplus": "he",
    "gelu": "he",
    "gelu_tanh": "he",
    "silu": "he",
    "selu": "lecun",
    "mish": "he",
    "sine": "siren",
    "squared_relu": "he",
}


def initialize(spec: NetworkSpec, rng: object = None, scheme: str | None = None) -> NDArray[Any]:
    """Draw the parameters of a network.

    Parameters
    ----------
    spec : NetworkSpec
    rng : None, int or numpy.random.Generator
        A seed or a generator; the same seed gives the same parameters.
    scheme : {"he", "glorot", "lecun", "orthogonal", "siren"}, optional
        For all layers. By default each hidden layer follows its activation (relu and its kin he;
        tanh, sigmoid, identity and step glorot; selu lecun; sine siren) and the output layer is
        glorot, or siren's if it reads sines.

    Returns
    -------
    theta : ndarray, shape (n_params,), of the dtype of ``spec``

    Raises
    ------
    SpecError
        If ``scheme`` is unknown or ``rng`` is not as described.

    Notes
    -----
    Biases are zero, except in siren layers: there ±OMEGA_0 / sqrt(fan_in) uniform in hidden
    layers and ±1 / sqrt(fan_in) in the output layer, as in the paper's program, so that the
    phases of the sines differ. A hash grid's entries are U(±1e-4), a table's columns as `columns`
    draws them.

    Examples
    --------
    >>> spec = NetworkSpec.create(2, (3,), 1)
    >>> initialize(spec, rng=0).shape
    (13,)
    """
    generator = resolve_rng(rng)
    if scheme is not None:
        check_choice(scheme, SCHEMES, "scheme", "initialize")
    theta = np.zeros(spec.n_params)
    places = zip(spec.slices(), spec.parameter_shapes(), strict=True)
    for layer, ((weight, bias), ((d_l, fan_in), _)) in enumerate(places, start=1):
        name = scheme or _scheme_at(spec, layer)
        is_last = layer == spec.n_layers
        draw = SCHEMES[name]
        if name == "siren":
            # A linear model is all output layer, and has no sines before it.
            draw = siren_last if is_last else siren_first if layer == 1 else siren
            bound = (1.0 if is_last else OMEGA_0) / math.sqrt(fan_in)
            theta[bias] = generator.uniform(-bound, bound, d_l)
        theta[weight] = draw(generator, d_l, fan_in).ravel()
    table = theta[spec.table_slice]
    if isinstance(spec.encoding, ColumnEmbeddings):
        table[:] = columns(generator, spec.encoding).ravel()
    else:
        table[:] = generator.uniform(-TABLE_INIT, TABLE_INIT, table.size)
    return theta.astype(spec.dtype)


def _scheme_at(spec: NetworkSpec, layer: int) -> str:
    """The scheme that the activation of layer l asks for."""
    if layer < spec.n_layers:
        return DEFAULT_SCHEME[spec.activation_at(layer)]
    reads_sines = layer > 1 and spec.activation_at(layer - 1) == "sine"
    return "siren" if reads_sines else "glorot"

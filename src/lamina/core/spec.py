"""The blueprint of a network: sizes, functions and connections, and the layout of theta."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np

from lamina.core import encodings
from lamina.core.checks import check_choice, check_count, check_number
from lamina.core.encodings import Encoding
from lamina.core.errors import SpecError
from lamina.core.functions import ACTIVATIONS, OUTPUTS

MOST_PARAMETERS: Final = 2**33
"""32 GiB of float32: past any CPU's use, and far below what would overflow the engine's sizes."""
DTYPES: Final = ("float32", "float64")
_WHERE: Final = "Network"


@dataclass(frozen=True)
class NetworkSpec:
    """A multilayer perceptron's architecture; checked when made, immutable after.

    Layers are numbered 1 … L, L = len(widths) + 1; h_0 = encoding(x) or x. Layer l computes
    ``u_l = concat(h_{l-1}, h_j for j in skips)``, ``z_l = u_l W_l^T + b_l``; a hidden layer gives
    ``h_l = phi_l(z_l)``, dropped out, plus ``h_{l-1}`` if residual and the widths match; the last
    gives ``y_pred = output(z_L)``. theta is W_1 row-major, b_1, W_2, b_2, … and last the encoding's
    table row-major, in one vector.

    Parameters
    ----------
    d_in, d_out : int, at least 1
        Inputs and outputs of the network.
    widths : tuple of int
        Units of each hidden layer; () is a linear model.
    activations : tuple of str
        One name of ACTIVATIONS for each hidden layer.
    output : str
        One name of OUTPUTS.
    skips : tuple of (l, (j, ...))
        Layer l is also fed h_j for these j, 0 <= j <= l - 2, in this order.
    residual : bool
        Add h_{l-1} to the activation of every hidden layer of equal width.
    dropout : float in [0, 1)
        The share of each hidden layer's units dropped in a training step.
    encoding : HashGrid, Fourier, RandomFourier, OneBlob, ColumnEmbeddings or None
        What h_0 is; None: x itself.
    dtype : {"float32", "float64"}
        The type of theta and of the arithmetic.

    Raises
    ------
    SpecError
        If any of these is not as described.
    """

    d_in: int
    widths: tuple[int, ...]
    d_out: int
    activations: tuple[str, ...] = ()
    output: str = "identity"
    skips: tuple[tuple[int, tuple[int, ...]], ...] = ()
    residual: bool = False
    dropout: float = 0.0
    encoding: Encoding | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_count(self.d_in, "d_in", _WHERE)
        check_count(self.d_out, "d_out", _WHERE)
        for width in self.widths:
            check_count(width, "each width", _WHERE)
        if len(self.activations) != len(self.widths):
            raise SpecError(
                f"{_WHERE}: expected one activation for each of the {len(self.widths)} hidden "
                f"layers, got {len(self.activations)}. Pass one name, or one a hidden layer."
            )
        for name in self.activations:
            check_choice(name, ACTIVATIONS, "activation", _WHERE)
        check_choice(self.output, OUTPUTS, "output", _WHERE)
        check_choice(self.dtype, DTYPES, "dtype", _WHERE)
        check_number(self.dropout, "dropout", _WHERE, 0.0, 1.0, "left")
        _check_flag(self.residual, "residual")
        encoding = encodings.check_encoding(self.encoding, self.d_in)
        object.__setattr__(self, "encoding", encoding)
        _check_skips(self.skips, self.n_layers)
        if self.n_params > MOST_PARAMETERS:
            raise SpecError(
                f"{_WHERE}: expected at most {MOST_PARAMETERS:,} parameters, got "
                f"{self.n_params:,}. Make d_in, the widths or d_out smaller."
            )

    @classmethod
    def create(
        cls,
        d_in: int,
        widths: Iterable[int],
        d_out: int,
        *,
        activation: str | Iterable[str] = "relu",
        output: str = "identity",
        skips: Mapping[int, Iterable[int]] | None = None,
        residual: bool = False,
        dropout: float = 0.0,
        encoding: Encoding | None = None,
        dtype: Any = "float32",
    ) -> NetworkSpec:
        """Make a specification from what users type: the arguments of ``lamina.Network``.

        Parameters
        ----------
        d_in, d_out, output, residual, dropout, encoding
            As in the class.
        widths : iterable of int
            Also one int for one hidden layer.
        activation : str or iterable of str, default "relu"
            One name for all hidden layers, or one for each.
        skips : mapping l -> iterable of j, optional
            As in the class.
        dtype : str or NumPy dtype, default "float32"
            float32 or float64.

        Returns
        -------
        NetworkSpec

        Raises
        ------
        SpecError
            If any argument is not as described.
        """
        dims = _as_tuple(
            widths, "widths", "an iterable of whole numbers", "a tuple such as (64, 64)"
        )
        dims = tuple(check_count(width, "each width", _WHERE) for width in dims)
        names = (activation,) * len(dims) if isinstance(activation, str) else activation
        if isinstance(activation, str):
            check_choice(activation, ACTIVATIONS, "activation", _WHERE)
        return cls(
            d_in=check_count(d_in, "d_in", _WHERE),
            widths=dims,
            d_out=check_count(d_out, "d_out", _WHERE),
            activations=_as_tuple(
                names, "activation", "a name or one a hidden layer", 'a name such as "relu"'
            ),
            output=output,
            skips=_as_skips(skips),
            residual=_check_flag(residual, "residual"),
            dropout=check_number(dropout, "dropout", _WHERE, 0.0, 1.0, "left"),
            encoding=encoding,
            dtype=_as_dtype_name(dtype),
        )

    # --- the graph: l runs over 1 … L ---------------------------------------------------------

    @property
    def n_members(self) -> int:
        """How many share the weights; 0 for a plain network."""
        return 0

    @property
    def n_layers(self) -> int:
        """L: the hidden layers and the output layer."""
        return len(self.widths) + 1

    @cached_property
    def layer_dims(self) -> tuple[int, ...]:
        """(d_0, d_1, …, d_L) = (columns of h_0, *widths, d_out): layer_dims[l] is d_l."""
        encoded = self.d_in if self.encoding is None else self.encoding.d_out(self.d_in)
        return (encoded, *self.widths, self.d_out)

    def activation_at(self, layer: int) -> str:
        """The activation of layer l; identity for the last, whose output unit follows."""
        return self.activations[layer - 1] if layer < self.n_layers else "identity"

    @cached_property
    def _skip_sources(self) -> dict[int, tuple[int, ...]]:
        return dict(self.skips)

    def sources(self, layer: int) -> tuple[int, ...]:
        """The layers whose h make up u_l, in order: l - 1, then the skips."""
        return (layer - 1, *self._skip_sources.get(layer, ()))

    def fan_in(self, layer: int) -> int:
        """Columns of W_l."""
        dims = self.layer_dims
        return sum(dims[j] for j in self.sources(layer))

    def residual_at(self, layer: int) -> bool:
        """Whether h_{l-1} is added to the activation of layer l."""
        dims = self.layer_dims
        return self.residual and layer < self.n_layers and dims[layer] == dims[layer - 1]

    # --- the layout of theta ------------------------------------------------------------------

    def parameter_shapes(self) -> tuple[tuple[tuple[int, int], tuple[int]], ...]:
        """((d_l, fan_in_l), (d_l,)) for each layer."""
        dims = self.layer_dims
        return tuple(
            ((dims[layer], self.fan_in(layer)), (dims[layer],))
            for layer in range(1, self.n_layers + 1)
        )

    @property
    def n_params(self) -> int:
        """The length of theta."""
        layers = sum(math.prod(weight) + bias[0] for weight, bias in self.parameter_shapes())
        return layers + math.prod(self.table_shape)

    @cached_property
    def table_shape(self) -> tuple[int, int]:
        """(entries, features) of the encoding's table, which ends theta; (0, 1) without."""
        return (0, 1) if self.encoding is None else self.encoding.table_shape(self.d_in)

    @property
    def table_slice(self) -> slice:
        """Where the encoding's table lies in theta."""
        return slice(self.n_params - math.prod(self.table_shape), self.n_params)

    def slices(self) -> tuple[tuple[slice, slice], ...]:
        """Where the weight and the bias of each layer lie in theta."""
        result = []
        start = 0
        for weight, bias in self.parameter_shapes():
            middle = start + math.prod(weight)
            stop = middle + bias[0]
            result.append((slice(start, middle), slice(middle, stop)))
            start = stop
        return tuple(result)

    # --- model files --------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON types that ``from_json`` turns back into an equal specification."""
        return {
            "d_in": self.d_in,
            "widths": list(self.widths),
            "d_out": self.d_out,
            "activations": list(self.activations),
            "output": self.output,
            "skips": [[layer, list(sources)] for layer, sources in self.skips],
            "residual": self.residual,
            "dropout": self.dropout,
            "encoding": encodings.to_json(self.encoding),
            "dtype": self.dtype,
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read what ``to_json`` wrote; strict: every key, of the right type, and no other.

        Raises
        ------
        SpecError
            If ``data`` is anything else.
        """
        keys = list(cls.__dataclass_fields__)
        if not isinstance(data, dict) or sorted(map(str, data)) != sorted(keys):
            got = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
            raise SpecError(
                f"{_WHERE}: expected a specification with the keys {keys}, got {got}. "
                f"Save the network again with this version of lamina."
            )
        for key in ("widths", "activations", "skips"):
            if not isinstance(data[key], list):
                raise SpecError(
                    f"{_WHERE}: expected a list as {key} of the specification, got {data[key]!r}. "
                    f"Save the network again with this version of lamina."
                )
        skips = tuple(
            (item[0], tuple(item[1]))
            if isinstance(item, list) and len(item) == 2 and isinstance(item[1], list)
            else item
            for item in data["skips"]
        )
        dropout = check_number(data["dropout"], "dropout", _WHERE, 0.0, 1.0, "left")
        return cls(
            **{
                **data,
                "widths": tuple(data["widths"]),
                "activations": tuple(data["activations"]),
                "skips": skips,
                "dropout": dropout,
                "encoding": encodings.from_json(data["encoding"]),
            }
        )


def _as_tuple(value: object, name: str, expected: str, example: str) -> tuple[Any, ...]:
    """A tuple of an iterable, or of one whole number."""
    if isinstance(value, (int, np.integer)):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        return tuple(value)
    raise SpecError(f"{_WHERE}: expected {name} to be {expected}, got {value!r}. Pass {example}.")


def _as_skips(skips: object) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """{l: (j, ...)} in the order of l, without layers that have none."""
    if skips is None:
        return ()
    if not isinstance(skips, Mapping):
        raise SpecError(
            f"{_WHERE}: expected skips to be a mapping from a layer to layers, got {skips!r}. "
            f"Pass a dictionary such as {{3: (0, 1)}}."
        )
    items = (
        (
            check_count(layer, "each layer in skips", _WHERE),
            tuple(
                check_count(j, "each source in skips", _WHERE, 0)
                for j in _as_tuple(
                    sources, f"skips[{layer}]", "an iterable of layers", "a tuple such as (0,)"
                )
            ),
        )
        for layer, sources in skips.items()
    )
    return tuple(sorted(item for item in items if item[1]))


def _check_skips(skips: tuple[Any, ...], n_layers: int) -> None:
    """Every skip goes forward, over at least one layer, once."""
    layers = [item[0] if isinstance(item, tuple) and len(item) == 2 else None for item in skips]
    whole = all(isinstance(layer, int) and not isinstance(layer, bool) for layer in layers)
    if not whole or layers != sorted(set(layers)):  # type: ignore[type-var]
        raise SpecError(
            f"{_WHERE}: expected skips as pairs (l, (j, ...)) with l rising, got {skips!r}. "
            f"Pass skips as a dictionary such as {{3: (0, 1)}}."
        )
    for layer, sources in skips:
        if not 2 <= layer <= n_layers:
            raise SpecError(
                f"{_WHERE}: expected skips into layers 2 to {n_layers}, got layer {layer}. "
                f"Layer 1 sees the input already; layer {n_layers} is the output layer."
            )
        for j in sources if isinstance(sources, tuple) else ():
            if check_count(j, f"each source in skips[{layer}]", _WHERE, 0) > layer - 2:
                raise SpecError(
                    f"{_WHERE}: expected skips[{layer}] from layers 0 to {layer - 2}, got {j}. "
                    f"A layer already sees the one before it, and none after it."
                )
        if not isinstance(sources, tuple) or len(set(sources)) != len(sources) or not sources:
            raise SpecError(
                f"{_WHERE}: expected distinct layers as skips[{layer}], got {sources!r}. "
                f"Name each source layer once."
            )


def _check_flag(value: object, name: str) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise SpecError(f"{_WHERE}: expected {name} to be True or False, got {value!r}. Pass a bool.")


def _as_dtype_name(dtype: Any) -> str:
    """Return "float32" or "float64" from a name or a NumPy type."""
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = dtype
    return check_choice(name, DTYPES, "dtype", _WHERE)

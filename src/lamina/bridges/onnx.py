"""Networks as ONNX files, which run wherever ONNX does, without Python and without lamina."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lamina.bridges.sklearn import as_network, refuse_encoding
from lamina.core.errors import SpecError, require_extra
from lamina.core.functions import GELU_TANH_CUBIC, LEAKY_SLOPE, SELU_ALPHA, SELU_SCALE
from lamina.core.modelfile import write_atomically

if TYPE_CHECKING:
    from onnx import ModelProto

IR_VERSION: Final = 10
OPSET: Final = 20  # the first with Gelu
MAX_BYTES: Final = 2**31 - 2**20  # protobuf's limit for one message, less room for the graph

# Activations that are one ONNX operator. onnxruntime has those of _FLOAT32_ONLY in float32 only
# (and computes gelu_tanh to float32's accuracy); for float64 we spell them out.
_OPERATORS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "relu": ("Relu", {}),
    "sine": ("Sin", {}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "softmax": ("Softmax", {"axis": 1}),
    "exp": ("Exp", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": LEAKY_SLOPE}),
    "softplus": ("Softplus", {}),
    "gelu": ("Gelu", {}),
    "selu": ("Selu", {"alpha": SELU_ALPHA, "gamma": SELU_SCALE}),
    "mish": ("Mish", {}),
}
_FLOAT32_ONLY: Final = frozenset({"leaky_relu", "softplus", "gelu", "gelu_tanh", "selu", "mish"})
# gelu(z) = relu(z) - |z|/2 exp(-z^2/2) erfcx(|z|/sqrt 2), and this many Chebyshev coefficients
# hold erfcx to 30 eps relative (tests/bridges/test_onnx.py).
_ERFCX_DEGREE: Final = 24


def to_onnx(model: Any, path: str | os.PathLike[str] | None = None) -> ModelProto:
    """Turn a network into an ONNX model: x (n, d_in) -> y_pred (n, d_out), any number of rows.

    Parameters
    ----------
    model : lamina.Network, MLPClassifier or MLPRegressor
        A network, or a fitted estimator of lamina or scikit-learn, whose network is taken: one
        probability a class or label (only that of the second class if there are two), or the
        predicted values.
    path : str or path-like, optional
        Where to write the model, all of it or nothing. The usual ending is ``.onnx``.

    Returns
    -------
    onnx.ModelProto
        The model, checked by ``onnx.checker`` with full shape inference. Its input is ``"x"``,
        its output ``"y_pred"``, both of the network's dtype. Dropout is off.

    Raises
    ------
    MissingExtraError
        If onnx is not installed.
    SpecError
        If `model` is not a network, has an encoding, or is larger than the 2 GiB an ONNX file
        can hold.
    ModelFileError
        If `path` cannot be written.

    Notes
    -----
    Operators of opset 20, IR version 10. In onnxruntime the outputs equal ``net(x)`` up to
    rounding, in float32 and float64.

    Examples
    --------
    >>> import lamina
    >>> net = lamina.Network(4, (16,), 3, output="softmax", rng=0)
    >>> lamina.to_onnx(net).graph.output[0].name
    'y_pred'
    """
    net = as_network(model, "to_onnx")
    refuse_encoding(net, "to_onnx")
    onnx = require_extra("onnx", "onnx")
    if net.n_params * np.dtype(net.spec.dtype).itemsize > MAX_BYTES:
        raise SpecError(
            f"to_onnx: expected a network of at most {MAX_BYTES} bytes, got {net.n_params} "
            f"parameters of {net.spec.dtype}. ONNX files end at 2 GiB; use lamina's own file."
        )
    onnx_model = _Graph(onnx, net).model()
    onnx.checker.check_model(onnx_model, full_check=True)
    if path is not None:
        write_atomically(path, [onnx_model.SerializeToString()], f"to_onnx {str(path)!r}")
    return onnx_model  # type: ignore[no-any-return]


class _Graph:
    """Collects the nodes and constants of one network."""

    def __init__(self, onnx: Any, net: Any) -> None:
        self.onnx = onnx
        self.net = net
        self.spec = net.spec
        self.dtype = np.dtype(net.spec.dtype)
        self.element_type = onnx.helper.np_dtype_to_tensor_dtype(self.dtype)
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def model(self) -> Any:
        """Return the whole network as an ONNX model."""
        from lamina import __version__

        helper = self.onnx.helper
        spec = self.spec
        h = ["x"]  # the names of h_0 … h_L
        for layer in range(1, spec.n_layers + 1):
            h.append(self.layer(layer, h))
        self.nodes.append(helper.make_node("Identity", [h[-1]], ["y_pred"]))
        graph = helper.make_graph(
            self.nodes,
            "lamina",
            [helper.make_tensor_value_info("x", self.element_type, ["n", spec.d_in])],
            [helper.make_tensor_value_info("y_pred", self.element_type, ["n", spec.d_out])],
            list(self.constants.values()),
        )
        return helper.make_model(
            graph,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="lamina",
            producer_version=__version__,
        )

    def layer(self, layer: int, h: list[str]) -> str:
        """Add layer l, given the names of h_0 … h_{l-1}; return the name of h_l."""
        spec = self.spec
        sources = [h[j] for j in spec.sources(layer)]
        u = sources[0] if len(sources) == 1 else self.node("Concat", *sources, axis=1)
        weight = self.constant(f"weight_{layer}", self.net.weights[layer - 1])
        bias = self.constant(f"bias_{layer}", self.net.biases[layer - 1])
        z = self.node("Gemm", u, weight, bias, transB=1)
        if layer == spec.n_layers:
            return self.function(spec.output, z)
        activation = self.function(spec.activation_at(layer), z)
        return self.node("Add", activation, h[-1]) if spec.residual_at(layer) else activation

    def function(self, name: str, z: str) -> str:
        """Add an activation or output unit."""
        if name == "identity":
            return z
        if name in _OPERATORS and not (name in _FLOAT32_ONLY and self.dtype == np.float64):
            operator, attributes = _OPERATORS[name]
            return self.node(operator, z, **attributes)
        return self.spelled_out(name, z)

    def spelled_out(self, name: str, z: str) -> str:
        """Add an activation made of several operators."""
        if name == "step":
            on = self.node("GreaterOrEqual", z, self.number(0.0))
            return self.node("Cast", on, to=self.element_type)
        if name == "silu":
            return self.node("Mul", z, self.node("Sigmoid", z))
        if name == "squared_relu":
            relu = self.node("Relu", z)
            return self.node("Mul", relu, relu)
        if name == "leaky_relu":
            return self.node("Max", z, self.node("Mul", z, self.number(LEAKY_SLOPE)))
        if name == "softplus":  # max(z, 0) + log(1 + exp(-|z|))
            small = self.node("Exp", self.node("Neg", self.node("Abs", z)))
            log = self.node("Log", self.node("Add", self.number(1.0), small))
            return self.node("Add", self.node("Relu", z), log)
        if name == "mish":
            return self.node("Mul", z, self.node("Tanh", self.spelled_out("softplus", z)))
        if name == "gelu_tanh":  # 0.5 (1 + tanh a) = sigmoid(2a)
            cubic = self.node("Mul", self.node("Mul", z, z), self.number(GELU_TANH_CUBIC))
            inner = self.node("Mul", z, self.node("Add", self.number(1.0), cubic))
            twice = self.node("Mul", inner, self.number(2.0 * math.sqrt(2.0 / math.pi)))
            return self.node("Mul", z, self.node("Sigmoid", twice))
        if name == "selu":  # expm1(z) = 2 t / (1 - t), t = tanh(z/2), exact near 0 too
            half = self.node("Mul", self.node("Min", z, self.number(0.0)), self.number(0.5))
            t = self.node("Tanh", half)
            expm1 = self.node("Div", self.node("Add", t, t), self.node("Sub", self.number(1.0), t))
            negative = self.node("Mul", expm1, self.number(SELU_ALPHA))
            both = self.node("Add", self.node("Relu", z), negative)
            return self.node("Mul", both, self.number(SELU_SCALE))
        if name == "gelu":
            return self.gelu(z)
        raise SpecError(
            f"to_onnx: expected an activation or output unit known to ONNX, got {name!r}. "
            "Use another one."
        )

    def gelu(self, z: str) -> str:
        """Add relu(z) - |z|/2 exp(-z^2/2) erfcx(|z|/sqrt 2), where no Erf is to be had."""
        size = self.node("Abs", z)
        two = self.number(2.0)
        # t = 2 / (2 + |z|/sqrt 2) maps [0, inf) to (0, 1], and s = 2t - 1 to (-1, 1]
        scaled = self.node("Mul", size, self.number(math.sqrt(0.5)))
        t = self.node("Div", two, self.node("Add", two, scaled))
        s2 = self.node("Sub", self.node("Mul", t, self.number(4.0)), two)  # 2s
        *upper, first = (self.number(c) for c in reversed(_erfcx_coefficients()))
        b1 = b2 = self.number(0.0)
        for coefficient in upper:  # Clenshaw's recurrence: b_k = c_k + 2s b_{k+1} - b_{k+2}
            step = self.node("Sub", self.node("Mul", s2, b1), b2)
            b1, b2 = self.node("Add", coefficient, step), b1
        half_s = self.node("Mul", s2, self.number(0.5))
        series = self.node("Add", first, self.node("Sub", self.node("Mul", half_s, b1), b2))
        bell = self.node("Exp", self.node("Mul", self.node("Mul", z, z), self.number(-0.5)))
        tail = self.node("Mul", self.node("Mul", bell, t), series)  # erfc(|z|/sqrt 2)
        half = self.node("Mul", size, self.number(0.5))
        return self.node("Sub", self.node("Relu", z), self.node("Mul", half, tail))

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(
            self.onnx.helper.make_node(operator, list(inputs), [output], **attributes)
        )
        return output

    def constant(self, name: str, value: Any) -> str:
        """Add an array of the network's dtype; return its name."""
        array = np.ascontiguousarray(value, dtype=self.dtype)
        self.constants[name] = self.onnx.numpy_helper.from_array(array, name)
        return name

    def number(self, value: float) -> str:
        """Add a constant that broadcasts, once; return its name."""
        name = f"number_{value!r}"
        return name if name in self.constants else self.constant(name, [value])


def _erfcx_coefficients() -> list[float]:
    """Chebyshev coefficients of erfcx(v)/t in s = 2t - 1, where t = 2 / (2 + v)."""
    from scipy.special import erfcx

    def ratio(s: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
        t = (s + 1.0) / 2.0
        return erfcx(2.0 / t - 2.0) / t

    coefficients = np.polynomial.chebyshev.chebinterpolate(ratio, _ERFCX_DEGREE)
    return [float(c) for c in coefficients]

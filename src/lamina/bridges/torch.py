"""Networks as PyTorch modules, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from lamina.bridges.sklearn import as_network, refuse_encoding
from lamina.core.errors import SpecError, require_extra
from lamina.core.functions import ACTIVATIONS, LEAKY_SLOPE, OUTPUTS
from lamina.core.network import Network
from lamina.core.spec import NetworkSpec

if TYPE_CHECKING:
    from torch import nn

# From here on softplus(z) - z is below half an ulp in float64; PyTorch's own 20 is for float32.
SOFTPLUS_THRESHOLD: Final = 40.0


def to_torch(model: Any) -> nn.Module:
    """Turn a network into a PyTorch module with the same outputs and gradients.

    Parameters
    ----------
    model : lamina.Network, MLPClassifier or MLPRegressor
        A network, or a fitted estimator, whose network is taken (see `from_sklearn`).

    Returns
    -------
    torch.nn.Module
        On the CPU, of the network's dtype, with a copy of its parameters: an ``nn.Sequential`` of
        PyTorch's own layers where the network is a plain chain, otherwise a small module with
        the skips and residuals. It is in evaluation mode; call ``.train()`` to switch dropout on.

    Raises
    ------
    MissingExtraError
        If torch is not installed.
    SpecError
        If `model` is not a network, or has an encoding.

    Examples
    --------
    >>> import lamina
    >>> lamina.to_torch(lamina.Network(2, (3,), 1, activation="tanh", rng=0))
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): Tanh()
      (2): Linear(in_features=3, out_features=1, bias=True)
    )
    """
    net = as_network(model, "to_torch")
    refuse_encoding(net, "to_torch")
    torch = require_extra("torch", "torch")
    from lamina.bridges.torch_modules import LayeredGraph

    spec = net.spec
    make = _makers()
    linears = [
        _linear(torch, weight, bias) for weight, bias in zip(net.weights, net.biases, strict=True)
    ]
    functions = [make[name]() for name in (*spec.activations, spec.output)]
    if spec.skips or any(spec.residual_at(layer) for layer in range(1, spec.n_layers)):
        return LayeredGraph(spec, linears, functions).eval()
    chain: list[nn.Module] = []
    for layer, (linear, function) in enumerate(zip(linears, functions, strict=True), start=1):
        chain.append(linear)
        if not isinstance(function, torch.nn.Identity):
            chain.append(function)
        if spec.dropout and layer < spec.n_layers:
            chain.append(torch.nn.Dropout(spec.dropout))
    return torch.nn.Sequential(*chain).eval()  # type: ignore[no-any-return]


def _makers() -> dict[str, Any]:
    """Return the maker of the module of each activation and output unit."""
    from torch import nn

    from lamina.bridges.torch_modules import Exp, Sine, SquaredReLU, Step

    return {
        "identity": nn.Identity,
        "step": Step,
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE),
        "softplus": lambda: nn.Softplus(threshold=SOFTPLUS_THRESHOLD),
        "gelu": nn.GELU,
        "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
        "silu": nn.SiLU,
        "selu": nn.SELU,
        "mish": nn.Mish,
        "sine": Sine,
        "squared_relu": SquaredReLU,
        "softmax": lambda: nn.Softmax(dim=-1),
        "exp": Exp,
    }


def _linear(torch: Any, weight: Any, bias: Any) -> Any:
    """Return an nn.Linear with a copy of these parameters, without drawing random ones."""
    d_out, d_in = weight.shape
    # On "meta" nothing is allocated or drawn, so PyTorch's global generator is left alone
    linear = torch.nn.Linear(d_in, d_out, device="meta")
    linear.weight = torch.nn.Parameter(torch.tensor(weight))
    linear.bias = torch.nn.Parameter(torch.tensor(bias))
    return linear


# ------------------------------------------------------------------------------------ from_torch


def from_torch(module: Any) -> Network:
    """Turn an ``nn.Sequential`` into a network with the same outputs.

    Parameters
    ----------
    module : torch.nn.Sequential
        Alternating ``nn.Linear`` and at most one activation: ReLU, LeakyReLU (slope 0.01), Tanh,
        Sigmoid, GELU (both forms), SiLU, Mish, SELU, Softplus (beta 1), after which ``Dropout``
        may come (after every hidden layer or none, with one p). Sigmoid or Softmax may come last,
        Flatten first, Identity and nested Sequentials anywhere. What `to_torch` returns is fine.
        Parameters are copied, from any device; float32 or float64.

    Returns
    -------
    Network
        Dropout acts only while training it, whatever mode `module` is in. A ``Flatten`` in front
        is left out: pass rows of d_in numbers.

    Raises
    ------
    SpecError
        If a layer has no counterpart; the sentence names it and its position.
    MissingExtraError
        If torch is not installed.

    Examples
    --------
    >>> import lamina
    >>> from torch import nn
    >>> net = lamina.from_torch(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)))
    >>> net([[0.0, 1.0]]).shape
    (1, 1)
    """
    require_extra("torch", "torch")
    from torch import nn

    from lamina.bridges.torch_modules import LayeredGraph

    if type(module) is LayeredGraph:
        linears = [_checked_linear(f"linears.{i}", layer) for i, layer in _children(module.linears)]
        spec = replace(module.spec, dropout=module.dropout.p, dtype=_common_dtype(linears))
        return Network.from_spec(spec, _theta(linears))
    if type(module) is not nn.Sequential:
        raise SpecError(
            f"from_torch: expected an nn.Sequential, got {type(module).__name__}. "
            "Put the layers of a plain chain into an nn.Sequential."
        )
    _refuse_hooks("top", module)
    chain = _Chain(_names())
    for position, layer in _flat(module, ""):
        chain.add(position, layer)
    return chain.network()


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the direct children; one that comes twice (a shared Dropout) is yielded twice."""
    for name, layer in module._modules.items():
        if layer is not None:
            yield name, layer


def _flat(sequential: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers with their positions, those of nested Sequentials one by one."""
    from torch import nn

    for name, layer in _children(sequential):
        _refuse_hooks(f"{prefix}{name}", layer)
        if type(layer) is nn.Sequential:
            yield from _flat(layer, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", layer


def _refuse_hooks(position: str, layer: nn.Module) -> None:
    """Refuse a layer whose output a hook may change, as those of weight_norm do."""
    if layer._forward_hooks or layer._forward_pre_hooks:
        raise SpecError(
            f"from_torch: expected layers without hooks, got {type(layer).__name__} at position "
            f"{position} with one. Remove it first, for example by remove_weight_norm."
        )


def _refuse_layer(position: str, layer: nn.Module, why: str = "is not supported") -> NoReturn:
    raise SpecError(
        "from_torch: expected Linear layers, each with at most one activation, got "
        f"{layer} at position {position}, which {why}. Replace it, or keep the network in PyTorch."
    )


def _names() -> dict[type, Callable[[Any], str | None]]:
    """Return, for each type of activation module, the function from a module to lamina's name.

    The name is None where the module's setting has no counterpart.
    """
    from torch import nn

    from lamina.bridges.torch_modules import Exp, Sine, SquaredReLU, Step

    return {
        nn.ReLU: lambda _: "relu",
        nn.LeakyReLU: lambda m: "leaky_relu" if m.negative_slope == LEAKY_SLOPE else None,
        nn.Tanh: lambda _: "tanh",
        nn.Sigmoid: lambda _: "sigmoid",
        nn.GELU: lambda m: "gelu_tanh" if m.approximate == "tanh" else "gelu",
        nn.SiLU: lambda _: "silu",
        nn.Mish: lambda _: "mish",
        nn.SELU: lambda _: "selu",
        nn.Softplus: lambda m: "softplus" if m.beta == 1 and m.threshold >= 20 else None,
        nn.Softmax: lambda m: "softmax" if m.dim in (None, 1, -1) else None,
        Sine: lambda _: "sine",
        SquaredReLU: lambda _: "squared_relu",
        Exp: lambda _: "exp",
        Step: lambda _: "step",
    }


class _Chain:
    """Reads the layers of a Sequential one after the other."""

    def __init__(self, names: dict[type, Callable[[Any], str | None]]) -> None:
        self.names = names
        self.linears: list[nn.Linear] = []
        # Of each Linear: the activation after it, with its position and module, and dropout's p
        self.functions: list[tuple[str, str, nn.Module] | None] = []
        self.dropouts: list[float] = []

    def add(self, position: str, layer: nn.Module) -> None:
        """Take the next layer, or refuse it."""
        from torch import nn

        if type(layer) is nn.Linear:
            self.add_linear(position, layer)
        elif type(layer) is nn.Dropout:
            self.add_dropout(position, layer)
        elif type(layer) is nn.Flatten:
            if self.linears:
                _refuse_layer(position, layer, "may only come first")
            if (layer.start_dim, layer.end_dim) != (1, -1):
                _refuse_layer(position, layer, "does not give rows; use start_dim=1, end_dim=-1")
        elif type(layer) in self.names:
            self.add_function(position, layer)
        elif type(layer) is not nn.Identity:
            _refuse_layer(position, layer)

    def add_linear(self, position: str, layer: nn.Module) -> None:
        linear = _checked_linear(position, layer)
        if self.linears and linear.in_features != self.linears[-1].out_features:
            _refuse_layer(position, linear, f"follows {self.linears[-1].out_features} outputs")
        self.linears.append(linear)
        self.functions.append(None)
        self.dropouts.append(0.0)

    def add_dropout(self, position: str, layer: nn.Dropout) -> None:
        if not self.linears:
            _refuse_layer(position, layer, "drops inputs; lamina drops hidden units only")
        if self.dropouts[-1]:
            _refuse_layer(position, layer, "follows another Dropout")
        self.dropouts[-1] = layer.p

    def add_function(self, position: str, layer: nn.Module) -> None:
        name = self.names[type(layer)](layer)
        if name is None:
            _refuse_layer(position, layer, "has a setting that lamina has not")
        if not self.linears:
            _refuse_layer(position, layer, "comes before any Linear")
        if self.functions[-1] is not None:
            _refuse_layer(position, layer, "is a second activation after one Linear")
        if self.dropouts[-1]:
            _refuse_layer(position, layer, "follows a Dropout; lamina drops after the activation")
        self.functions[-1] = (name, position, layer)

    def network(self) -> Network:
        """Return the network of the layers taken."""
        if not self.linears:
            raise SpecError(
                "from_torch: expected at least one Linear layer, got none. Add an nn.Linear."
            )
        *hidden, last = self.functions
        for function in hidden:
            if function is not None and function[0] not in ACTIVATIONS:
                _refuse_layer(function[1], function[2], "may only come last")
        if last is not None and last[0] not in OUTPUTS:
            _refuse_layer(last[1], last[2], f"is no output unit ({', '.join(OUTPUTS)})")
        *hidden_dropouts, last_dropout = self.dropouts
        if last_dropout or len(set(hidden_dropouts)) > 1:
            raise SpecError(
                "from_torch: expected Dropout after every hidden layer or none, with one p, got "
                f"p={', '.join(map(str, self.dropouts))} after the Linear layers. "
                "Make them equal, and drop nothing after the last."
            )
        spec = NetworkSpec.create(
            self.linears[0].in_features,
            [linear.out_features for linear in self.linears[:-1]],
            self.linears[-1].out_features,
            activation=["identity" if f is None else f[0] for f in hidden],
            output="identity" if last is None else last[0],
            dropout=hidden_dropouts[0] if hidden_dropouts else 0.0,
            dtype=_common_dtype(self.linears),
        )
        return Network.from_spec(spec, _theta(self.linears))


def _checked_linear(position: str, layer: nn.Module) -> nn.Linear:
    """Return a Linear whose parameters can be read; refuse others."""
    import torch

    if type(layer) is not torch.nn.Linear:
        _refuse_layer(position, layer)
    _refuse_hooks(position, layer)
    if layer.weight.dtype not in (torch.float32, torch.float64):
        _refuse_layer(position, layer, f"is of {layer.weight.dtype}; call .float() first")
    if layer.weight.device.type == "meta":
        _refuse_layer(position, layer, "is on the meta device and has no values")
    return layer


def _common_dtype(linears: list[nn.Linear]) -> str:
    """Return the dtype of all layers, or refuse a mixture."""
    dtypes = {
        str(parameter.dtype).removeprefix("torch.")
        for linear in linears
        for parameter in linear.parameters()
    }
    if len(dtypes) != 1:
        raise SpecError(
            f"from_torch: expected layers of one dtype, got {' and '.join(sorted(dtypes))}. "
            "Call .float() or .double() on the module first."
        )
    return dtypes.pop()


def _theta(linears: list[nn.Linear]) -> npt.NDArray[Any]:
    """Return all parameters in the network's order: W_1 row by row, b_1, W_2, ..."""
    import torch

    parts = []
    for linear in linears:
        weight = linear.weight.detach().cpu().numpy()
        parts.append(weight.ravel())
        bias = linear.bias
        has_bias = isinstance(bias, torch.Tensor)  # None with bias=False
        parts.append(bias.detach().cpu().numpy() if has_bias else np.zeros_like(weight[:, 0]))
    return np.concatenate(parts)

"""Finds the feed-forward and expert blocks of a Hugging Face model, and reads their weights.

It goes by structure: which layers a module has, of which widths, rather than by names of families.
The shapes that transformers' families take, and one family of each:

====================  ============================================================  ===============
form                  where the weights lie                                         for example
====================  ============================================================  ===============
module                two or three linear layers in a module of their own           Llama, Gemma
module, transposed    the same, stored (d_in, d_out)                                GPT-2
inline                fc1 and fc2 among the layer's other modules                   Whisper, OPT
spread                ``intermediate.dense`` and ``output.dense`` of a layer        BERT
experts               gate_up_proj (n_experts, 2 d_ff, d_model) and down_proj       Mixtral, OLMoE
====================  ============================================================  ===============

This file imports no torch: it reads modules by their attributes, so that it costs nothing until a
model is there, and then torch is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lamina.core.errors import DataError, SpecError

Kind = Literal["plain", "gated", "experts"]
Form = Literal["module", "inline", "spread", "experts"]

# The names of (w_in, w_out), and of (w_gate, w_up, w_down), in transformers' families.
PLAIN: Final = (
    ("c_fc", "c_proj"),
    ("fc1", "fc2"),
    ("fc_in", "fc_out"),
    ("dense_h_to_4h", "dense_4h_to_h"),
    ("lin1", "lin2"),
    ("wi", "wo"),
    ("up_proj", "down_proj"),
)
GATED: Final = (("gate_proj", "up_proj", "down_proj"), ("wi_0", "wi_1", "wo"), ("w1", "w3", "w2"))
FUSED: Final = (("gate_up_proj", "down_proj"), ("Wi", "Wo"))  # the gate's half first
ACTIVATION_AT: Final = ("act_fn", "act", "activation_fn", "activation", "intermediate_act_fn")

# The classes and functions that compute lamina's activations, by name.
ACTIVATION_OF: Final = {
    "GELUActivation": "gelu",
    "GELU": "gelu",
    "gelu": "gelu",
    "NewGELUActivation": "gelu_tanh",
    "FastGELUActivation": "gelu_tanh",
    "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
    "SiLUActivation": "silu",
    "SiLU": "silu",
    "silu": "silu",
    "ReLU": "relu",
    "relu": "relu",
    "ReLUSquaredActivation": "squared_relu",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "Mish": "mish",
}


@dataclass(frozen=True)
class Matrix:
    """Where one matrix or bias lies in a model, read anew at every use.

    Attributes
    ----------
    name : str
        Of the parameter, as in ``state_dict``.
    owner : torch.nn.Module
    attribute : str
        The parameter's name in `owner`.
    transposed : bool
        Whether it is stored (..., d_in, d_out).
    half : None, 0 or 1
        Which half of the outputs is meant, where a gate and its up-projection lie in one.
    """

    name: str
    owner: Any = field(repr=False)
    attribute: str
    transposed: bool = False
    half: int | None = None
    is_bias: bool = False

    @property
    def tensor(self) -> Any:
        """Return a view of the parameter, (..., d_out, d_in) or (..., d_out)."""
        tensor = getattr(self.owner, self.attribute)
        if self.transposed:
            tensor = tensor.transpose(-2, -1)
        if self.half is not None:
            axis = -1 if self.is_bias else -2
            width = tensor.shape[axis] // 2
            tensor = tensor.narrow(axis, self.half * width, width)
        return tensor


@dataclass(frozen=True)
class Block:
    """One feed-forward or expert block of a model.

    Attributes
    ----------
    path : str
        The dotted path of `module`.
    module : torch.nn.Module
        It holds the weights; in the form "module" or "experts" its forward is the block, in the
        forms "inline" and "spread" it is the whole Transformer layer.
    layer : int
        The layer's number in its stack, from 0.
    stack : str
        The path of the stack of layers: an encoder and a decoder have one each.
    kind : {"plain", "gated", "experts"}
    form : {"module", "inline", "spread", "experts"}
        See the head of this file.
    activation : str or None
        The name in lamina; None where lamina has not got it, or the gate is the family's own.
    activation_name : str
        The class or function in the model.
    d_model, d_ff : int
    n_experts, top_k : int
        1 and 1 unless the kind is "experts".
    router : str or None
        The path of the module that chooses the experts.
    shared : bool
        Whether it is the expert that sees every token, beside those that a router chooses.
    weights : dict of name to Matrix
        w_in, b_in, w_out, b_out of a plain block, else w_gate, b_gate, w_up, b_up, w_down, b_down;
        a bias only where there is one.
    """

    path: str
    module: Any = field(repr=False)
    layer: int
    stack: str
    kind: Kind
    form: Form
    activation: str | None
    activation_name: str
    d_model: int
    d_ff: int
    weights: dict[str, Matrix] = field(repr=False)
    n_experts: int = 1
    top_k: int = 1
    router: str | None = None
    shared: bool = False

    @property
    def gated(self) -> bool:
        """Whether the hidden units are the product of an activation and an up-projection."""
        return "w_gate" in self.weights

    @property
    def n_params(self) -> int:
        """The number of weights and biases; the router's are not among them."""
        return sum(int(matrix.tensor.numel()) for matrix in self.weights.values())

    def array(self, name: str) -> NDArray[np.float32]:
        """Return a copy of a matrix or bias in float32.

        Parameters
        ----------
        name : str
            One of ``weights``: w_in, w_gate and w_up are (d_ff, d_model), w_out and w_down
            (d_model, d_ff), b_in, b_gate and b_up (d_ff,), b_out and b_down (d_model,), whatever
            way the model stores them; of experts with n_experts in front.

        Raises
        ------
        SpecError
            If the block has no such matrix.
        DataError
            If the model is on the meta device.
        """
        if name not in self.weights:
            raise SpecError(
                f"Block.array: expected one of {', '.join(self.weights)} of the {self.kind} block "
                f"{self.path}, got {name!r}. A plain block has w_in and w_out, others w_gate, "
                "w_up and w_down."
            )
        tensor = self.weights[name].tensor
        if tensor.device.type == "meta":
            raise DataError(
                f"Block.array: expected a model with weights, got {self.path} on the meta device. "
                "Load the weights first."
            )
        array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
        return np.ascontiguousarray(array)

    @property
    def w_in(self) -> NDArray[np.float32]:
        """The first matrix of a plain block, (d_ff, d_model)."""
        return self.array("w_in")

    @property
    def w_out(self) -> NDArray[np.float32]:
        """The second matrix of a plain block, (d_model, d_ff)."""
        return self.array("w_out")

    @property
    def w_gate(self) -> NDArray[np.float32]:
        """The gate's matrix, (d_ff, d_model); of experts (n_experts, d_ff, d_model)."""
        return self.array("w_gate")

    @property
    def w_up(self) -> NDArray[np.float32]:
        """The up-projection of a gated block, (d_ff, d_model); of experts with n_experts."""
        return self.array("w_up")

    @property
    def w_down(self) -> NDArray[np.float32]:
        """The down-projection of a gated block, (d_model, d_ff); of experts with n_experts."""
        return self.array("w_down")


def find_blocks(model: Any, where: str = "find_blocks") -> list[Block]:
    """Find every feed-forward and expert block of a model, in the order of its layers.

    Parameters
    ----------
    model : torch.nn.Module
        A transformers model, or a part of one; the meta device will do.
    where : str
        What an error names.

    Returns
    -------
    list of Block
        At least one. A shared expert is a block of its own.

    Raises
    ------
    SpecError
        If there is none, or one has quantised or LoRA-wrapped layers.
    """
    if not callable(getattr(model, "named_modules", None)):
        raise SpecError(
            f"{where}: expected a model of PyTorch modules, got {type(model).__name__}. "
            "Pass what from_pretrained returns."
        )
    modules = dict(model.named_modules())
    found: list[Block] = []
    for path, module in modules.items():
        block = _experts(path, module, modules, where) or _dense(path, module, where)
        if block is not None:
            found.append(block)
    if not found:
        raise SpecError(
            f"{where}: expected a model with feed-forward or expert blocks, got "
            f"{type(model).__name__} with none that is recognised. Pass a Transformer whose blocks "
            "have two or three linear layers, such as GPT-2, Llama, BERT, Whisper or Mixtral."
        )
    return found


def find_head(model: Any) -> tuple[str, Any] | None:
    """Return path and module of a model's output head, None where it is not a plain linear layer.

    Parameters
    ----------
    model : torch.nn.Module
        A transformers model; of a part of one, or a model that predicts no tokens, there is none.
    """
    get = getattr(model, "get_output_embeddings", None)
    head = get() if callable(get) else None
    kind = type(head)
    if (kind.__module__.partition(".")[0], kind.__name__) != ("torch", "Linear"):
        return None
    return next(((path, module) for path, module in model.named_modules() if module is head), None)


# ---------------------------------------------------------------------------- two or three layers


def _dense(path: str, module: Any, where: str) -> Block | None:
    """Return the block of linear layers in a module, or None."""
    children = module._modules
    for names, roles in _patterns():
        if not all(children.get(name) is not None for name in names):
            continue
        layers = [children[name] for name in names]
        if not _fits([_widths(layer) for layer in layers], fused=roles[0] == "gate_up"):
            continue
        names_of = {
            role: (name, layer) for role, name, layer in zip(roles, names, layers, strict=True)
        }
        form: Form = "inline" if _has_attention(children) else "module"
        return _block(path, module, form, names_of, _activation(module), where)
    inner, outer = children.get("intermediate"), children.get("output")
    if inner is not None and outer is not None:
        layers = [inner._modules.get("dense"), outer._modules.get("dense")]
        if all(layer is not None for layer in layers) and _fits([_widths(x) for x in layers]):
            named = {"in": ("intermediate.dense", layers[0]), "out": ("output.dense", layers[1])}
            return _block(path, module, "spread", named, _activation(inner), where)
    return None


def _patterns() -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    for gated in GATED:
        yield gated, ("gate", "up", "down")
    for fused in FUSED:
        yield fused, ("gate_up", "down")
    for plain in PLAIN:
        yield plain, ("in", "out")


def _block(
    path: str,
    module: Any,
    form: Form,
    layers: dict[str, tuple[str, Any]],
    activation: tuple[str | None, str],
    where: str,
) -> Block:
    """Return the block of these linear layers; refuse layers whose weights are not plain."""
    weights: dict[str, Matrix] = {}
    for role, (name, layer) in layers.items():
        full = f"{path}.{name}" if path else name
        _check_layer(full, layer, where)
        transposed = type(layer).__name__ == "Conv1D"
        for half, part in enumerate(role.split("_")):
            which = half if "_" in role else None
            weights[f"w_{part}"] = Matrix(f"{full}.weight", layer, "weight", transposed, which)
            if getattr(layer, "bias", None) is not None:
                bias = Matrix(f"{full}.bias", layer, "bias", False, which, is_bias=True)
                weights[f"b_{part}"] = bias
    first = weights.get("w_in") or weights["w_gate"]
    d_ff, d_model = (int(n) for n in first.tensor.shape)
    stack, number = _place(path)
    shared = re.search(r"(^|\.)shared_(experts?|mlp)$", path) is not None
    kind: Kind = "plain" if "w_in" in weights else "gated"
    return Block(
        path, module, number, stack, kind, form, *activation, d_model, d_ff, weights, shared=shared
    )


def _widths(layer: Any) -> tuple[int, int] | None:
    """Return (d_in, d_out) of anything that looks like a linear layer, wrapped or quantised too."""
    if hasattr(layer, "in_features") and hasattr(layer, "out_features"):
        return int(layer.in_features), int(layer.out_features)
    if type(layer).__name__ == "Conv1D" and hasattr(layer, "nx"):
        return int(layer.nx), int(layer.nf)
    return None


def _fits(widths: list[tuple[int, int] | None], fused: bool = False) -> bool:
    """Whether these widths lead from d_model to d_ff and back; fused: gate and up come in one."""
    known = [width for width in widths if width is not None]
    if len(known) != len(widths):
        return False
    d_model, d_ff = known[0]
    last = (d_ff // 2, d_model) if fused else (d_ff, d_model)
    return known[-1] == last and all(width == known[0] for width in known[:-1])


def _check_layer(path: str, layer: Any, where: str) -> None:
    """Refuse a layer that is not a plain linear one with weights in floating point."""
    if hasattr(layer, "lora_A") or hasattr(layer, "base_layer"):
        raise SpecError(
            f"{where}: expected plain linear layers, got {path} wrapped by an adapter such as "
            "LoRA. Merge it first, for example with model.merge_and_unload()."
        )
    # A family may have a class of its own (Falcon); what it computes is not told by its name
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(layer).__mro__}
    linear = ("torch", "Linear") in kinds or type(layer).__name__ == "Conv1D"
    _check_weight(path, layer, "weight" if linear else "", where)


def _check_weight(path: str, layer: Any, name: str, where: str) -> None:
    """Refuse a parameter that is not plain numbers of at least 16 bits, or none of its own."""
    weight: Any = getattr(layer, "_parameters", {}).get(name)
    plain = weight is not None and type(weight).__name__ in ("Parameter", "Tensor")
    if plain and weight.is_floating_point() and weight.element_size() > 1:
        return
    raise SpecError(
        f"{where}: expected plain linear layers in floating point, got {path} of "
        f"{type(layer).__module__}.{type(layer).__name__}, which is quantised or changed. Load the "
        "model without quantisation, or dequantise it first."
    )


def _has_attention(children: dict[str, Any]) -> bool:
    return any("attn" in name or "attention" in name for name in children)


def _activation(module: Any) -> tuple[str | None, str]:
    """Return a block's activation as lamina calls it, and its class or function."""
    for attribute in ACTIVATION_AT:
        function = getattr(module, attribute, None)
        if callable(function):
            name = getattr(function, "__name__", type(function).__name__)
            known = ACTIVATION_OF.get(name)
            if name == "GELU" and getattr(function, "approximate", "none") == "tanh":
                known = "gelu_tanh"
            return known, name
    return None, "unknown"


def _place(path: str) -> tuple[str, int]:
    """Return the stack of layers that a path leads through, and the layer's number in it."""
    match = re.match(r"^(.*?)\.?(\d+)(?:\.|$)", path)
    return (match[1], int(match[2])) if match else ("", 0)


# ----------------------------------------------------------------------------------------- experts


def _experts(path: str, module: Any, modules: dict[str, Any], where: str) -> Block | None:
    """Return the block of experts whose weights lie fused in a module, or None."""
    own = module._parameters
    first_name = next((name for name in ("gate_up_proj", "up_proj") if _cube(own.get(name))), None)
    if first_name is None or not _cube(own.get("down_proj")):
        return None
    parts = ("gate", "up") if first_name == "gate_up_proj" else ("in",)
    # transformers' decorator use_experts_implementation leaves these on the module
    transposed = bool(getattr(module, "is_transposed", False))
    weights: dict[str, Matrix] = {}
    last = "down" if len(parts) == 2 else "out"
    for name, roles in ((first_name, parts), ("down_proj", (last,))):
        full = f"{path}.{name}" if path else name
        _check_weight(full, module, name, where)
        for half, part in enumerate(roles):
            which = half if len(roles) == 2 else None
            weights[f"w_{part}"] = Matrix(full, module, name, transposed, which)
            if own.get(f"{name}_bias") is not None:
                bias = Matrix(f"{full}_bias", module, f"{name}_bias", False, which, is_bias=True)
                weights[f"b_{part}"] = bias
    n_experts, d_ff, d_model = (int(n) for n in weights[f"w_{parts[0]}"].tensor.shape)
    activation, activation_name = _activation(module)
    if _own_gate(module):
        activation = None
    stack, number = _place(path)
    router, top_k = _router(path, modules, n_experts)
    return Block(
        path, module, number, stack, "experts", "experts", activation, activation_name,
        d_model, d_ff, weights, n_experts, top_k, router,
    )  # fmt: skip


def _own_gate(module: Any) -> bool:
    """Whether experts do more than activation(gate) * up: gates interleaved, clamped, normed."""
    gate = getattr(type(module), "_apply_gate", None)
    return (
        not getattr(module, "is_concatenated", True)
        or bool(getattr(module, "has_post_expert_norm", False))
        or (gate is not None and gate.__name__ != "_default_apply_gate")
    )


def experts_block(module: Any) -> Block | None:
    """Return the block of a module of experts that stands alone, or None if it is none."""
    return _experts("", module, {"": module}, "lamina experts")


def _cube(parameter: Any) -> bool:
    return parameter is not None and parameter.dim() == 3


def _router(path: str, modules: dict[str, Any], n_experts: int) -> tuple[str | None, int]:
    """Return the path of the router of the experts at `path`, and how many it chooses."""
    parent_path = path.rpartition(".")[0]
    parent = modules[parent_path]
    config = getattr(parent, "config", None) or getattr(modules[path], "config", None)
    for name in ("gate", "router"):
        child = parent._modules.get(name)
        if child is None:
            continue
        for place in (child, parent, config):
            for attribute in ("top_k", "num_experts_per_tok"):
                top_k = getattr(place, attribute, None)
                if isinstance(top_k, int):
                    return f"{parent_path}.{name}" if parent_path else name, top_k
    return None, n_experts

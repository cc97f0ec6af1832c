"""A unit's response and its gradient by the input, for our networks and for torch's modules."""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina.core.checks import is_whole_number
from lamina.core.errors import ShapeError, SpecError, require_extra
from lamina.core.functions import Float64
from lamina.core.network import Network
from lamina.core.spec import NetworkSpec
from lamina.theory.ascent import Respond

_WHERE = "maximise_activation"


def pre_activations(net: Network, layer: int, unit: int | None = None) -> Network:
    """Return the network of layers 1 … l alone, whose output is z_l, or one unit of it.

    Parameters
    ----------
    net : Network
    layer : int
        1 … L.
    unit : int, optional
    """
    spec = net.spec
    weight, bias = spec.slices()[layer - 1]
    rows = slice(None) if unit is None else slice(unit, unit + 1)
    shape = spec.parameter_shapes()[layer - 1][0]
    cut = NetworkSpec(
        d_in=spec.d_in,
        widths=spec.widths[: layer - 1],
        d_out=shape[0] if unit is None else 1,
        activations=spec.activations[: layer - 1],
        skips=tuple(item for item in spec.skips if item[0] <= layer),
        residual=spec.residual,
        encoding=spec.encoding,
        dtype=spec.dtype,
    )
    parts = [
        net.theta[: weight.start],
        net.theta[weight].reshape(shape)[rows].ravel(),
        net.theta[bias][rows],
        net.theta[spec.table_slice],
    ]
    return Network.from_spec(cut, np.concatenate(parts))


def of_network(net: Network, unit: Any, layer: Any) -> tuple[Respond, int]:
    """Return how a unit of a layer responds, or the layer as a whole, and the layer's number."""
    n_layers = net.spec.n_layers
    layer = n_layers if layer is None else layer
    if not is_whole_number(layer) or not 1 <= int(layer) <= n_layers:
        raise SpecError(
            f"{_WHERE}: expected a layer from 1 to {n_layers}, got {layer!r}. "
            f"Layer {n_layers} is the output."
        )
    layer = int(layer)
    width = net.spec.layer_dims[layer]
    if unit is not None and (not is_whole_number(unit) or not 0 <= int(unit) < width):
        raise SpecError(
            f"{_WHERE}: expected a unit from 0 to {width - 1} of layer {layer}, got {unit!r}. "
            "Pass an int, or None for the whole layer."
        )
    cut = pre_activations(net, layer, None if unit is None else int(unit))

    def respond(x: Float64) -> tuple[Float64, Float64]:
        rows = x.reshape(len(x), -1)  # (n, d_in)
        z = cut(rows).astype(np.float64)
        if unit is not None:
            return z[:, 0], cut.jacobian(rows)[:, 0].astype(np.float64).reshape(x.shape)
        # The mean over rows and units of (z - 0)^2 has half the gradient we want, over the rows.
        gradient = cut.gradients(rows, np.zeros_like(z)).x.astype(np.float64)
        return 0.5 * (z**2).mean(axis=1), 0.5 * len(x) * gradient.reshape(x.shape)

    return respond, layer


def of_module(module: Any, unit: Any, layer: Any) -> tuple[Respond, str | None]:
    """Return how a channel, place or layer of a torch module responds, and the layer's name."""
    torch: Any = require_extra("torch", "torch")
    if not isinstance(module, torch.nn.Module):
        raise SpecError(
            f"{_WHERE}: expected a lamina.Network or a torch.nn.Module, got "
            f"{type(module).__name__}. Pass the network itself."
        )
    named = dict(module.named_modules())
    if layer is not None and layer not in named:
        names = [name for name in named if name]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise SpecError(
            f"{_WHERE}: expected a layer among {shown}, got {layer!r}. "
            "Pass one of the names in module.named_modules(), or None for the output."
        )
    target = module if layer is None else named[layer]
    first = next(iter(module.parameters()), None)
    dtype = torch.float32 if first is None else first.dtype
    device = "cpu" if first is None else first.device

    def respond(x: Float64) -> tuple[Float64, Float64]:
        seen: list[Any] = []
        rows = torch.as_tensor(x).to(device=device, dtype=dtype).requires_grad_()
        modes = {part: part.training for part in module.modules()}
        handle = target.register_forward_hook(lambda _module, _input, out: seen.append(out))
        module.eval()
        try:
            with torch.enable_grad():
                module(rows)
                values = _response(torch, seen[-1] if seen else None, unit, layer)
                (gradient,) = torch.autograd.grad(values.sum(), rows, allow_unused=True)
        except RuntimeError as error:
            raise ShapeError(
                f"{_WHERE}: expected a module that takes inputs of shape {tuple(rows.shape)}, "
                f"got: {str(error).splitlines()[0]} Pass the shape of one input, without the batch."
            ) from error
        finally:
            handle.remove()
            for part, mode in modes.items():
                part.training = mode
        if gradient is None:
            raise SpecError(
                f"{_WHERE}: expected a layer that depends on the input, got {layer!r}, which does "
                "not. Choose another."
            )
        return (
            values.detach().cpu().numpy().astype(np.float64),
            gradient.detach().cpu().numpy().astype(np.float64),
        )

    return respond, layer


def _response(torch: Any, out: Any, unit: Any, layer: Any) -> Any:
    """Return the values (n,) of what a layer put out."""
    if not isinstance(out, torch.Tensor) or out.ndim < 2:
        raise SpecError(
            f"{_WHERE}: expected a layer that gives one tensor (n, …), got "
            f"{'nothing' if out is None else type(out).__name__} from {layer!r}. Choose another."
        )
    if unit is None:
        return 0.5 * (out**2).flatten(1).mean(1)
    index = unit if isinstance(unit, tuple) else (unit,)
    room = tuple(out.shape[1 : 1 + len(index)])
    whole = all(is_whole_number(i) for i in index)
    fits = whole and len(index) < out.ndim
    if not fits or not all(0 <= int(i) < r for i, r in zip(index, room, strict=True)):
        raise SpecError(
            f"{_WHERE}: expected a unit within {tuple(out.shape[1:])}, the output of "
            f"{'the module' if layer is None else repr(layer)}, got {unit!r}. "
            "Pass an int for a channel, a tuple for one place."
        )
    chosen = out[(slice(None), *(int(i) for i in index))]  # (n, …)
    return chosen.flatten(1).mean(1) if chosen.ndim > 1 else chosen

"""What hinders a network from learning, and what to change: rules over measured signals.

Each rule returns verdicts or nothing. Its bounds are the constants at the top: wide enough that a
network drawn by ``lamina.Network``, or one that trained well, meets none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.functions import Float64
from lamina.core.network import Network
from lamina.theory.layer_signals import LayerSignals, spread

MANY: Final = 0.25  # of a layer's units dead or saturated; 1 in 10 dies in any deep relu network
MOST: Final = 0.5  # of a layer's units on one side of their kink
FADED: Final = 1e-2  # from one end of the hidden layers to the other
GROWN: Final = 1e2
TINY: Final = 0.1  # weights over their usual size, below which that is what is wrong
WORST_CONDITION: Final = 1e6  # a square matrix of 256 normal weights exceeds it once in 2,000
WIDE: Final = 100.0  # widest column of x over the narrowest
OFF_CENTRE: Final = 10.0  # |mean| of a column in its standard deviations


@dataclass(frozen=True)
class Verdict:
    """A finding.

    Attributes
    ----------
    kind : str
        dead, saturated, linear, copies, ill_conditioned, vanishing_gradient, exploding_gradient,
        vanishing_signal, exploding_signal, overflow, no_gradient, constant_input, input_scale or
        target_scale.
    layer : int or None
        Where; None where it is about all of them, or about the data.
    finding, advice : str
        Sentences: what was found, and what to change.
    """

    kind: str
    layer: int | None
    finding: str
    advice: str

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')}: {self.finding} {self.advice}"


def judge(
    net: Network,
    x: NDArray[Any],
    h_0: Float64,
    y: NDArray[Any] | None,
    layers: Sequence[LayerSignals],
) -> tuple[Verdict, ...]:
    """Return all verdicts: first on the data, then layer by layer, then on the whole."""
    found = [*_of_input(net, x), *_of_target(net, y), *_of_steps(layers[:-1])]
    passes = True
    for layer in layers:
        if passes:  # behind a layer that is dead, all units are idle, and none is to blame
            found += _of_units(layer, len(x))
        passes &= len(layer.dead) < layer.width
        found += _of_weights(net, layer)
    return (*found, *_of_flow(net, h_0, layers))


# --- the data ----------------------------------------------------------------------------------


def _of_input(net: Network, x: NDArray[Any]) -> Iterator[Verdict]:
    """Columns that never change, or whose scales are far apart; encodings scale for themselves."""
    if net.encoding is not None:
        return
    rows = np.asarray(x, np.float64)
    std, mean = rows.std(axis=0), np.abs(rows.mean(axis=0))
    still = std <= 1e-7 * mean
    constant = np.flatnonzero(still)
    if len(constant):
        yield Verdict(
            "constant_input",
            0,
            f"{_units(constant, 'column')} of x {_have(constant)} one value in all rows.",
            "Leave such columns out: a bias does what they can do.",
        )
    moving = np.flatnonzero(~still)
    if not len(moving):
        return
    wide, narrow = moving[std[moving].argmax()], moving[std[moving].argmin()]
    ratio = std[wide] / std[narrow]
    if ratio > WIDE:
        yield Verdict(
            "input_scale",
            0,
            f"column {wide} of x varies {ratio:,.3g} times as much as column {narrow} "
            f"(standard deviations {std[wide]:.3g} and {std[narrow]:.3g}).",
            "Standardise each column; the first layer sees little but the widest.",
        )
    elif std[wide] > WIDE or std[wide] < 1 / WIDE:
        yield Verdict(
            "input_scale",
            0,
            f"the columns of x have standard deviations of {std[narrow]:.3g} to {std[wide]:.3g}.",
            "Standardise them: first weights are drawn for columns of about 1.",
        )
    off = moving[mean[moving] > OFF_CENTRE * std[moving]]
    if len(off):
        worst = off[(mean[off] / std[off]).argmax()]
        yield Verdict(
            "input_scale",
            0,
            f"{_units(off, 'column')} of x lie{'s' if len(off) == 1 else ''} up to "
            f"{mean[worst] / std[worst]:,.3g} standard deviations from 0.",
            "Subtract each column's mean.",
        )


def _of_target(net: Network, y: NDArray[Any] | None) -> Iterator[Verdict]:
    """Numbers to be learnt that an output near 0 has a long way to."""
    if y is None or net.spec.output != "identity" or y.dtype.kind != "f":
        return
    size = float(np.sqrt(np.mean(np.asarray(y, np.float64) ** 2)))
    if size > WIDE or 0 < size < 1 / WIDE:
        yield Verdict(
            "target_scale",
            None,
            f"the targets have a root mean square of {size:.3g}.",
            "Standardise y, and scale the predictions back.",
        )


# --- one layer ---------------------------------------------------------------------------------


def _of_steps(hidden: Sequence[LayerSignals]) -> Iterator[Verdict]:
    """Layers that no gradient passes, whatever the weights."""
    steps = np.array([layer.layer for layer in hidden if layer.activation == "step"], np.intp)
    if len(steps):
        yield Verdict(
            "no_gradient",
            int(steps[0]),
            f"{_units(steps, 'layer')} {_have(steps)} the activation step, whose slope is 0: "
            "no gradient passes.",
            "Train with sigmoid or relu; a network of steps is built, not trained.",
        )


def _of_units(layer: LayerSignals, n: int) -> Iterator[Verdict]:
    """Units that are dead, saturated or nothing but linear."""
    where, name = f"layer {layer.layer}", layer.activation
    if len(layer.dead) > MANY * layer.width:
        all_ = len(layer.dead) == layer.width
        yield Verdict(
            "dead",
            layer.layer,
            f"{where}: {_share(layer.dead, layer.width)} {name} units are 0 on all {n:,} rows, "
            f"with gradient 0{', so that nothing passes' if all_ else ''}.",
            "Draw the weights anew and start biases at 0, lower the learning rate, or use "
            "leaky_relu, gelu or silu; standardise x.",
        )
    if len(layer.saturated) > MANY * layer.width:
        yield Verdict(
            "saturated",
            layer.layer,
            f"{where}: {_share(layer.saturated, layer.width)} {name} units are flat "
            f"(|phi'| < 0.01) on nearly all {n:,} rows{_scale(layer)}.",
            "Draw smaller weights, lower the learning rate, add weight decay, or standardise x.",
        )
    if len(layer.linear) > MOST * layer.width:
        yield Verdict(
            "linear",
            layer.layer,
            f"{where}: {_share(layer.linear, layer.width)} {name} units stay on one side of their "
            f"kink on all {n:,} rows, and so are linear.",
            "Start biases at 0 and centre x, so that kinks fall among the rows; or leave the "
            "layer out.",
        )


def _of_weights(net: Network, layer: LayerSignals) -> Iterator[Verdict]:
    """Units that do the same, and directions that a layer drops."""
    where = f"layer {layer.layer}"
    if layer.copies:
        largest = max(layer.copies, key=len)
        spare = sum(len(group) - 1 for group in layer.copies)
        yield Verdict(
            "copies",
            layer.layer,
            f"{where}: {spare} of {layer.width} units repeat others (units "
            f"{_list(largest)} are one unit, up to a factor).",
            "Draw the weights at random, so that gradients differ; or make the layer narrower.",
        )
    elif layer.condition > WORST_CONDITION and min(net.weights[layer.layer - 1].shape) > 1:
        yield Verdict(
            "ill_conditioned",
            layer.layer,
            f"{where}: its weights have a condition number of {layer.condition:.2g}, and a stable "
            f"rank of {layer.stable_rank:.3g}.",
            "Some directions of its input are lost: draw the weights anew (orthogonal ones have "
            "condition 1), or make the layer narrower.",
        )


# --- all layers --------------------------------------------------------------------------------


def _of_flow(net: Network, h_0: Float64, layers: Sequence[LayerSignals]) -> Iterator[Verdict]:
    """Signals and gradients that fade or grow on their way."""
    broken = next((layer for layer in layers if not layer.finite), None)
    if broken is not None:
        yield Verdict(
            "overflow",
            broken.layer,
            f"layer {broken.layer} gives NaN or infinity on finite rows{_scale(broken)}.",
            "Draw smaller weights, lower the learning rate, or compute in float64.",
        )
        return
    hidden = layers[:-1]
    if not hidden or any(
        len(layer.dead) == layer.width or layer.activation == "step" for layer in hidden
    ):
        return  # said already; nothing passes
    # Squashing units make anything 1 in size, and nothing need be smaller than it came in.
    before, after = spread(h_0), hidden[-1].spread
    if after < FADED * min(before, 1.0):
        yield Verdict(
            "vanishing_signal",
            None,
            f"what differs between rows fades: its size is {before:.2g} in the input and "
            f"{after:.2g} after layer {hidden[-1].layer}.",
            _against_fading(net, hidden),
        )
    elif after > GROWN * max(before, 1.0):
        yield Verdict(
            "exploding_signal",
            None,
            f"what differs between rows grows from {before:.2g} in the input to {after:.2g} after "
            f"layer {hidden[-1].layer}.",
            _against_growth(hidden),
        )
    first, last = hidden[0].backward, hidden[-1].backward
    if len(hidden) < 2 or first is None or last is None or last == 0:
        return
    ratio = first / last
    if ratio < FADED:
        yield Verdict(
            "vanishing_gradient",
            None,
            f"gradients fade on their way back: of {last:.2g} at layer {hidden[-1].layer}, "
            f"{first:.2g} is left at layer 1, a factor of {_each(ratio, len(hidden)):.2g} a layer.",
            _against_fading(net, hidden),
        )
    elif ratio > GROWN:
        yield Verdict(
            "exploding_gradient",
            None,
            f"gradients grow on their way back: from {last:.2g} at layer {hidden[-1].layer} to "
            f"{first:.2g} at layer 1, a factor of {_each(ratio, len(hidden)):.2g} a layer.",
            _against_growth(hidden),
        )


def _against_fading(net: Network, hidden: Sequence[LayerSignals]) -> str:
    """What to change, the likeliest cause first."""
    advice = []
    scale = _mean_scale(hidden)
    if scale < 0.5:
        size = f"{scale:.3g} times the usual size" if scale > 1e-30 else "0"
        advice.append(f"draw larger weights (these are {size})")
    if scale < TINY:
        return _sentence(advice)  # whatever the activation, nothing else would help
    squashing = sorted({layer.activation for layer in hidden} & {"sigmoid", "tanh", "softplus"})
    if "sigmoid" in squashing:
        advice.append("use tanh, relu or gelu instead of sigmoid, whose slope is at most 1/4")
    elif any(len(layer.saturated) > MANY * layer.width for layer in hidden):
        advice.append("draw smaller weights: units are saturated")
    elif "tanh" in squashing:
        advice.append("use relu or gelu instead of tanh")
    if len(hidden) > 1 and not net.spec.residual:
        advice.append("pass residual=True with equal widths")
    if len(hidden) > 2:
        advice.append("use fewer layers")
    if not advice:
        advice.append("draw the weights anew")
    return _sentence(advice)


def _against_growth(hidden: Sequence[LayerSignals]) -> str:
    advice = []
    scale = _mean_scale(hidden)
    if scale > 1.5:
        advice.append(f"draw smaller weights (these are {scale:.3g} times the usual size)")
    advice += ["lower the learning rate", "add weight decay"]
    return _sentence(advice)


def _mean_scale(hidden: Sequence[LayerSignals]) -> float:
    """The geometric mean of the layers' weights over their usual size."""
    return float(np.exp(np.mean([np.log(max(layer.weight_scale, 1e-300)) for layer in hidden])))


def _each(ratio: float, n_hidden: int) -> float:
    return float(ratio ** (1 / (n_hidden - 1)))


# --- words -------------------------------------------------------------------------------------


def _sentence(advice: list[str]) -> str:
    text = advice[0] if len(advice) == 1 else f"{', '.join(advice[:-1])} or {advice[-1]}"
    return f"{text[0].upper()}{text[1:]}."


def _scale(layer: LayerSignals) -> str:
    """Where weights are large, say so."""
    if layer.weight_scale <= 1.5:
        return ""
    return f"; its weights are {layer.weight_scale:.3g} times the usual size"


def _share(units: NDArray[np.intp], width: int) -> str:
    return f"all {width}" if len(units) == width else f"{len(units)} of {width}"


def _units(index: NDArray[np.intp], noun: str) -> str:
    return f"{noun}{'' if len(index) == 1 else 's'} {_list(index)}"


def _have(index: NDArray[np.intp]) -> str:
    return "has" if len(index) == 1 else "have"


def _list(index: Sequence[int] | NDArray[np.intp], most: int = 6) -> str:
    shown = ", ".join(str(int(i)) for i in index[:most])
    return shown if len(index) <= most else f"{shown} and {len(index) - most} more"

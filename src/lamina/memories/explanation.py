"""What a prompt's explanation holds, and how it reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Push:
    """A memory that fired, and what it pushed.

    Attributes
    ----------
    layer, neuron : int
    coefficient : float
        What its value was multiplied by.
    effect : float
        Its direct effect on the target's logit: what the logit loses when coefficient times value
        is taken out of the final residual stream, and out of nothing before.
    promotes, demotes : tuple of str
        The top tokens of what it added, and of its opposite. With a negative coefficient, what it
        demotes are the tokens that its value promotes.
    triggers : tuple of str
        The text up to each of the tokens on which it fired most, if a bank was given.
    """

    layer: int
    neuron: int
    coefficient: float
    effect: float
    promotes: tuple[str, ...]
    demotes: tuple[str, ...]
    triggers: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerPush:
    """What one layer pushed as a whole: direct effects, and the prediction after it.

    Attributes
    ----------
    layer : int
    attention, ffn : float
        Direct effects of what its attention and its feed-forward layer added.
    predicts : str
        The top token of the stream after the layer.
    probability : float
        That the stream after it gives the target.
    """

    layer: int
    attention: float
    ffn: float
    predicts: str
    probability: float


@dataclass(frozen=True)
class Position:
    """One token of the prompt, and what pushed the token after it.

    Attributes
    ----------
    text : str
    target : str
        The answer at the last position, elsewhere the prompt's next token.
    token : int
        The target's number.
    logit, probability : float
        Of the target.
    predicts : str
        The model's own top token.
    layers : tuple of LayerPush
    memories : tuple of Push
        Those with the largest direct effects in size, largest first.
    """

    text: str
    target: str
    token: int
    logit: float
    probability: float
    predicts: str
    layers: tuple[LayerPush, ...]
    memories: tuple[Push, ...]


@dataclass(frozen=True)
class Ablated:
    """A memory's direct effect beside the full one: the whole model run without it."""

    layer: int
    neuron: int
    direct: float
    full: float


@dataclass(frozen=True)
class Ablation:
    """Memories taken out one by one at the last position.

    Attributes
    ----------
    memories : tuple of Ablated
    rank_correlation : float
        Spearman's, of direct and full effects.
    """

    memories: tuple[Ablated, ...]
    rank_correlation: float


@dataclass(frozen=True)
class Explanation:
    """A prompt explained: for each token, the memories that fired and what each pushed.

    Attributes
    ----------
    prompt : str
    answer : str
        The token that the last position was explained for.
    positions : tuple of Position
    ablation : Ablation or None
    """

    prompt: str
    answer: str
    positions: tuple[Position, ...]
    ablation: Ablation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dicts, lists, numbers and text."""
        return asdict(self)

    def __str__(self) -> str:
        last = self.positions[-1]
        lines = [
            f"{self.prompt!r} -> {self.answer!r}: logit {last.logit:.2f}, probability "
            f"{last.probability:.1%}; the model's own first is {last.predicts!r}.",
            "",
            "layer  neuron  coefficient  direct effect  what it added promotes | demotes",
        ]
        lines += [
            f"{m.layer:5}  {m.neuron:6}  {m.coefficient:11.2f}  {m.effect:+13.3f}  "
            + " ".join(map(repr, m.promotes))
            + " | "
            + " ".join(map(repr, m.demotes))
            for m in last.memories
        ]
        if any(m.triggers for m in last.memories):
            lines += ["", "They fire most at the end of:"]
            lines += [
                f"{m.layer:5}  {m.neuron:6}  {m.triggers[0]!r}" for m in last.memories if m.triggers
            ]
        lines += ["", "layer  attention     ffn  probability  predicts"]
        lines += [
            f"{each.layer:5}  {each.attention:+9.3f}  {each.ffn:+6.3f}  {each.probability:11.1%}  "
            f"{each.predicts!r}"
            for each in last.layers
        ]
        if len(self.positions) > 1:
            lines += ["", "token -> next: probability, and the memory that pushed it most"]
        for position in self.positions[:-1]:
            best = max(position.memories, key=lambda m: m.effect, default=None)
            push = "" if best is None else f", {best.layer}:{best.neuron} {best.effect:+.3f}"
            lines.append(
                f"{position.text!r} -> {position.target!r}: {position.probability:.1%}{push}"
            )
        if self.ablation is not None:
            lines += [
                "",
                f"The first {len(self.ablation.memories)} memories taken out one by one: "
                f"Spearman's rank correlation of direct and full effects is "
                f"{self.ablation.rank_correlation:.2f}.",
            ]
        return "\n".join(lines)

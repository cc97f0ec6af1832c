"""What an edit did: the fact, its paraphrases, its neighbours, and the model's perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lamina.memories.sequences import answer_tokens, cut

WHERE = "Editor.report"


@dataclass(frozen=True)
class Fact:
    """What a model should say, and what it should go on saying.

    Attributes
    ----------
    prompt, answer : str
    paraphrases : tuple of str
        Other prompts that the same answer should follow.
    neighbours : tuple of (prompt, answer)
        About other subjects; they should stay as they are.
    """

    prompt: str
    answer: str
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Told:
    """What a model says to a prompt about an answer's first token.

    Attributes
    ----------
    probability : float
    rank : int
        0 where it is the model's first.
    says : str
        The model's first token.
    """

    probability: float
    rank: int
    says: str


@dataclass(frozen=True)
class FactState:
    """How a model stands to a fact.

    Attributes
    ----------
    answer : Told
    paraphrases, neighbours : tuple of Told
    perplexity : float
        NaN without texts.
    """

    answer: Told
    paraphrases: tuple[Told, ...]
    neighbours: tuple[Told, ...]
    perplexity: float


@dataclass(frozen=True)
class EditReport:
    """A fact before and after the edits.

    Attributes
    ----------
    fact : Fact
    before, after : FactState
    """

    fact: Fact
    before: FactState
    after: FactState

    @property
    def success(self) -> bool:
        """Whether the model now says the answer first."""
        return self.after.answer.rank == 0

    @property
    def paraphrased(self) -> float:
        """The share of paraphrases to which it now says the answer first; NaN without any."""
        told = self.after.paraphrases
        return sum(each.rank == 0 for each in told) / len(told) if told else math.nan

    @property
    def unharmed(self) -> bool:
        """Whether every neighbour to which the model said the answer first still has it first."""
        pairs = zip(self.before.neighbours, self.after.neighbours, strict=True)
        return all(after.rank == 0 for before, after in pairs if before.rank == 0)

    @property
    def drift(self) -> float:
        """The perplexity's relative change."""
        return self.after.perplexity / self.before.perplexity - 1.0

    def __str__(self) -> str:
        fact = self.fact
        lines = [f"{'prompt':44}  {'answer':14}  {'before':>22}  {'after':>22}"]
        rows = [(fact.prompt, fact.answer, self.before.answer, self.after.answer)]
        rows += [
            (prompt, fact.answer, before, after)
            for prompt, before, after in zip(
                fact.paraphrases, self.before.paraphrases, self.after.paraphrases, strict=True
            )
        ]
        rows += [
            (prompt, answer, before, after)
            for (prompt, answer), before, after in zip(
                fact.neighbours, self.before.neighbours, self.after.neighbours, strict=True
            )
        ]
        for prompt, answer, before, after in rows:
            told = (f"{each.probability:6.1%} {each.says!r}" for each in (before, after))
            lines.append(f"{prompt!r:44}  {answer!r:14}  " + "  ".join(f"{t:>22}" for t in told))
        if not math.isnan(self.after.perplexity):
            lines.append(
                f"perplexity {self.before.perplexity:.3f} -> {self.after.perplexity:.3f} "
                f"({self.drift:+.2%})"
            )
        return "\n".join(lines)


def measure_fact(model: Any, tokenizer: Any, fact: Fact, texts: Sequence[str]) -> FactState:
    """Return how a model stands to a fact now."""
    was_training = model.training
    model.eval()
    try:
        return FactState(
            _ask(model, tokenizer, fact.prompt, fact.answer),
            tuple(_ask(model, tokenizer, prompt, fact.answer) for prompt in fact.paraphrases),
            tuple(_ask(model, tokenizer, *pair) for pair in fact.neighbours),
            perplexity(model, tokenizer, texts) if texts else math.nan,
        )
    finally:
        model.train(was_training)


def _ask(model: Any, tokenizer: Any, prompt: str, answer: str) -> Told:
    import torch

    token = answer_tokens(tokenizer, answer, prompt)[0]
    with torch.no_grad():
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        logits = model(input_ids=ids).logits[0, -1].float()
    rank = int((logits > logits[token]).sum())
    says = tokenizer.decode([int(logits.argmax())])
    return Told(float(torch.softmax(logits, 0)[token]), rank, says)


def first_token(model: Any, tokenizer: Any, prompt: str) -> str:
    """Return the model's first token after a prompt."""
    import torch

    with torch.no_grad():
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        return str(tokenizer.decode([int(model(input_ids=ids).logits[0, -1].argmax())]))


def perplexity(model: Any, tokenizer: Any, texts: Sequence[str], max_length: int = 256) -> float:
    """Return e to the mean negative log-likelihood of a token, given those before it."""
    import torch

    total, n = 0.0, 0
    with torch.no_grad():
        for sequence in cut(texts, tokenizer, max_length, WHERE):
            ids = torch.tensor([sequence["ids"]])
            if ids.shape[1] < 2:
                continue
            told = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), 1)
            total -= float(told.gather(1, ids[0, 1:, None]).double().sum())
            n += ids.shape[1] - 1
    return math.exp(total / n) if n else math.nan

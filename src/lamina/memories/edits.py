"""Edits of a layer's second matrix: what changes, and how it is applied and taken back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lamina.memories.live_model import LiveModel, second_matrix

Kind = Literal["set", "boost", "silence", "replace", "fact"]


@dataclass(frozen=True, eq=False)
class Edit:
    """One edit, as `Editor.edits` lists them.

    Attributes
    ----------
    number : int
        Counted from 1, in the order in which they were made.
    kind : {"set", "boost", "silence", "replace", "fact"}
    layer : int
    neuron : int or None
        None of a fact, which changes all memories of the layer a little.
    text : str
        What it does, in a sentence.
    vectors : tuple of tensors
        The new value, (d_model,); of a fact u (d_model,) and v (d_ff,): ``u v^T`` is added.
    """

    number: int
    kind: Kind
    layer: int
    neuron: int | None
    text: str
    vectors: tuple[Any, ...] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.number}. {self.text}"


def matrix(live: LiveModel, layer: int) -> Any:
    """Return a layer's second matrix, a view of the parameter, (d_model, d_ff)."""
    return second_matrix(live.blocks[layer]).tensor


def apply(live: LiveModel, edit: Edit) -> Any:
    """Make an edit, and return what it wrote over: a column, or of a fact the matrix.

    The same edit on the same weights gives the same bits: a sum is taken in float64 and rounded.
    """
    import torch

    whole = matrix(live, edit.layer)
    with torch.no_grad():
        if edit.neuron is None:
            before = whole.clone()
            u, v = (vector.double() for vector in edit.vectors)
            whole.copy_((whole.double() + u[:, None] * v).to(whole.dtype))
        else:
            column = whole[:, edit.neuron]
            before = column.clone()
            column.copy_(edit.vectors[0].to(whole.dtype))
    return before


def take_back(live: LiveModel, edit: Edit, before: Any) -> None:
    """Write back what an edit wrote over."""
    import torch

    whole = matrix(live, edit.layer)
    with torch.no_grad():
        (whole if edit.neuron is None else whole[:, edit.neuron]).copy_(before)

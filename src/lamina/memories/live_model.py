"""What is read of a live Transformer: its layers, its unembedding, and a fingerprint of both."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final

from lamina.bridges.huggingface import Block, Matrix, find_blocks
from lamina.core.errors import DataError, SpecError

# Where transformers' families keep the norm before the unembedding; BERT has none
FINAL_NORM: Final = ("ln_f", "norm", "final_layer_norm", "final_layernorm", "final_norm")


@dataclass(frozen=True)
class LiveModel:
    """A model's feed-forward layers, final norm and unembedding.

    Attributes
    ----------
    blocks : list of Block
        In the order of the layers; a bank's `layer` is the place in this list.
    norm : torch.nn.Module or None
    head : torch.nn.Module or None
        Hidden states to logits; None where the model has none.
    """

    model: Any = field(repr=False)
    blocks: list[Block]
    norm: Any = field(repr=False)
    head: Any = field(repr=False)

    @classmethod
    def find(cls, model: Any, where: str) -> LiveModel:
        """Read a transformers model; SpecError if it has no layer of single neurons."""
        blocks = [block for block in find_blocks(model, where) if block.kind != "experts"]
        if not blocks:
            raise SpecError(
                f"{where}: expected plain or gated feed-forward layers, got experts only in "
                f"{type(model).__name__}. Choose a dense model."
            )
        base = getattr(model, "base_model", model)
        holders = [part for part in (base, getattr(base, "decoder", None)) if part is not None]
        norm = next(
            (
                part._modules[name]
                for part in holders  # OPT keeps it in its decoder
                for name in FINAL_NORM
                if getattr(part, "_modules", {}).get(name)
            ),
            None,
        )
        get_head = getattr(model, "get_output_embeddings", None)
        return cls(model, blocks, norm, get_head() if get_head else None)

    def unembed(self, vectors: Any) -> Any:
        """Return ``lm_head(norm(vectors))``, (n, d_model) -> (n, vocabulary).

        The norm is the model's own, applied to the vector as if it were the whole residual stream.
        """
        return self.head(vectors if self.norm is None else self.norm(vectors))

    def fingerprint(self) -> str:
        """Return a hash of the architecture and of every feed-forward weight."""
        found = hashlib.blake2b(type(self.model).__name__.encode(), digest_size=12)
        for block in self.blocks:
            for name in block.weights:
                array = block.array(name)
                found.update(f"{block.path} {name} {array.shape}".encode())
                found.update(array.data)
        return found.hexdigest()


def second_matrix(block: Block) -> Matrix:
    """Return where a layer's values lie: its `tensor` is (d_model, d_ff), `owner` the module."""
    return block.weights["w_down" if block.gated else "w_out"]


def values_of(block: Block) -> Any:
    """Return a layer's values, (d_ff, d_model), a view of the parameter."""
    return second_matrix(block).tensor.T


def fingerprint_tokenizer(tokenizer: Any) -> str:
    """Return a hash of a tokenizer's vocabulary."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.blake2b(vocabulary.encode(), digest_size=12).hexdigest()


def check_tokenizer(model: Any, tokenizer: Any, where: str) -> None:
    """Refuse a tokenizer without offsets, or with more tokens than the model has embeddings."""
    if not getattr(tokenizer, "is_fast", False):
        raise SpecError(
            f"{where}: expected a fast tokenizer, which tells where each token lies in the text, "
            f"got {type(tokenizer).__name__}. Load it with AutoTokenizer."
        )
    n_rows = int(model.get_input_embeddings().weight.shape[0])
    if len(tokenizer) > n_rows:
        raise DataError(
            f"{where}: expected a tokenizer of at most {n_rows} tokens, as the model embeds, got "
            f"{len(tokenizer)}. Use the tokenizer that belongs to the model."
        )


def check_length(model: Any, n_tokens: int, where: str) -> None:
    """Refuse more tokens than a model has positions."""
    config = getattr(model, "config", None)
    most = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if most is not None and n_tokens > int(most):
        raise DataError(
            f"{where}: expected at most {most} tokens, the model's positions, got {n_tokens}. "
            "Shorten the text."
        )


def not_called(model: Any, where: str) -> SpecError:
    """Return the error for layers that ran without calling their own matrices."""
    return SpecError(
        f"{where}: expected layers that call their own matrices, got {type(model).__name__} with "
        "others. If it is accelerated, call lamina.transformer.restore first."
    )

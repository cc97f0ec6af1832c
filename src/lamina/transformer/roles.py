"""Which part of a Transformer does what: every module's role, and what attention multiplies.

A module's role is its own where its class or name tells it, else its parent's. Norms within
attention are norms; a mixture's router is a role of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from lamina.bridges.huggingface import Block

ROLES: Final = ("embedding", "attention", "channel mixer", "norm", "router", "head", "other")

_HEADS: Final = (
    "lm_head", "score", "classifier", "qa_outputs", "cls", "proj_out", "embed_out", "pooler",
    "predictions",
)  # fmt: skip
_ROUTERS: Final = ("gate", "router", "shared_expert_gate")
_QUERIES: Final = ("q_b_proj", "q_proj", "query", "q_lin", "q")
_OUTPUTS: Final = ("o_proj", "out_proj", "c_proj", "out_lin", "dense", "o")


@dataclass(frozen=True)
class AttentionSize:
    """What one attention layer multiplies besides its weights.

    Attributes
    ----------
    path : str
    d_query, d_value : int
        n_heads times the width of a head's queries and of its values: q . k costs 2 d_query
        floating point operations a pair of positions, the sum over values 2 d_value.
    window : int or None
        How many positions a query sees at most; None: all.
    """

    path: str
    d_query: int
    d_value: int
    window: int | None = None

    def flops(self, context: int) -> int:
        """Return the products of one query with `context` positions, in FLOPs."""
        seen = context if self.window is None else min(context, self.window)
        return 2 * seen * (self.d_query + self.d_value)


def assign_roles(model: Any, blocks: Iterable[Block]) -> dict[str, str]:
    """Return the role of every module of a model, by its path."""
    modules = dict(model.named_modules())
    told = dict(_of_blocks(blocks, modules))
    output = getattr(model, "get_output_embeddings", lambda: None)()
    roles: dict[str, str] = {}
    for path, module in modules.items():
        parent, _, name = path.rpartition(".")
        inherited = roles[parent] if path else "other"
        if _is_norm(module):
            roles[path] = "norm"
        elif output is not None and module is output:
            roles[path] = "head"
        elif path in told:
            roles[path] = told[path]
        elif inherited == "other":
            roles[path] = _own_role(path, name, module)
        else:
            roles[path] = inherited
    return roles


def _of_blocks(blocks: Iterable[Block], modules: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield the paths whose role the blocks tell: channel mixers, and routers among them."""
    for block in blocks:
        prefix = f"{block.path}." if block.path else ""
        parent = block.path.rpartition(".")[0]
        if block.form in ("module", "experts"):
            yield block.path, "channel mixer"
        else:
            for name in _parts(block):
                yield prefix + name, "channel mixer"
        if block.router is not None:
            yield parent, "channel mixer"
            yield block.router, "router"
        if block.shared:
            for name in _ROUTERS:
                if f"{parent}.{name}" in modules:
                    yield f"{parent}.{name}", "router"


def _parts(block: Block) -> tuple[str, ...]:
    """Return the children of a Transformer layer that make up its feed-forward block."""
    if block.form == "spread":
        return ("intermediate", "output")
    paths = {matrix.name.removeprefix(f"{block.path}.") for matrix in block.weights.values()}
    return (*{path.partition(".")[0] for path in paths}, "activation_fn", "act")


def _is_norm(module: Any) -> bool:
    return "Norm" in type(module).__name__


def _own_role(path: str, name: str, module: Any) -> str:
    kind = type(module).__name__
    if name in _HEADS:
        return "head"
    if "Attention" in kind or name.endswith(("attn", "attention")):
        return "attention"
    # Whisper's convolutions, before its layers, turn sound into the first one's rows
    stem = kind.startswith("Conv") and not any(part.isdigit() for part in path.split("."))
    if "Embedding" in kind or name == "embeddings" or stem:
        return "embedding"
    return "other"


def attention_sizes(model: Any, roles: dict[str, str]) -> list[AttentionSize]:
    """Return what every attention layer multiplies; one whose widths cannot be read is left out."""
    found = []
    config = getattr(model, "config", None)
    used = getattr(config, "use_sliding_window", True)
    window_of_all = getattr(config, "sliding_window", None) if used else None
    for path, module in model.named_modules():
        if roles.get(path) != "attention":
            continue
        widths = _attention_widths(module)
        if widths is not None:
            window = getattr(module, "sliding_window", window_of_all)
            # Qwen2-MoE says 0 where there is none
            found.append(AttentionSize(path, *widths, window or None))
    return found


def _attention_widths(module: Any) -> tuple[int, int] | None:
    """Return n_heads times the widths of a head's queries and values."""
    children = module._modules
    query = next((children[n] for n in _QUERIES if children.get(n) is not None), None)
    output = next((children[n] for n in _OUTPUTS if children.get(n) is not None), None)
    if query is not None:
        value = children.get("value")
        if output is not None and hasattr(output, "in_features"):
            return int(query.out_features), int(output.in_features)
        if value is not None:  # BERT: the output lies elsewhere, and there is a value for each head
            return int(query.out_features), int(value.out_features)
    fused = any(children.get(n) is not None for n in ("c_attn", "qkv_proj", "query_key_value"))
    if fused and output is not None:
        width = int(getattr(output, "nx", 0) or output.in_features)
        return width, width
    return None

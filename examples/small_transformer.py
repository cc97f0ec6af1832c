"""A small Transformer, dense and with experts at the same compute: loss, balance, specialisation.

Blocks norm first, attend causally, and mix channels: by one gated feed-forward layer, or by a
mixture of experts of which each token uses as much. Characters are the tokens::

    pip install "lamina[torch,plots]"
    python examples/small_transformer.py shakespeare.txt
    python examples/small_transformer.py shakespeare.txt --steps 2000 --plots . --json found.json

Without a text it learns this repository's own Python. A step sees batch x context characters. All
three models see the same ones in the same order, and start with the same embeddings and attention:

* dense: a hidden layer of top_k x d_ff;
* loss: n_experts of d_ff, kept busy by a term of the loss (Switch);
* bias: the same, kept busy by a bias on the choice alone (DeepSeek-V3).
"""

from __future__ import annotations

import argparse
import json
import math
import string
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lamina.transformer import GatedFeedForward, MixtureOfExperts

ROOT = Path(__file__).resolve().parents[1]
CLASSES = {
    "lower": string.ascii_lowercase,
    "capital": string.ascii_uppercase,
    "digit": string.digits,
    "space": " \t",
    "newline": "\n",
    "other": None,
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a model and of a step."""

    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    d_ff: int = 192
    n_experts: int = 8
    top_k: int = 2
    context: int = 128
    batch: int = 16


class Block(nn.Module):
    """Pre-norm attention and channel mixer, each added to the stream."""

    def __init__(self, shape: Shape, mixer: nn.Module) -> None:
        super().__init__()
        d = shape.d_model
        self.n_heads = shape.n_heads
        self.before_attention, self.before_mixer = nn.RMSNorm(d), nn.RMSNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.mixer = mixer

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream after the block, (n, length, d_model)."""
        n, length, d = x.shape
        parts = self.qkv(self.before_attention(x)).view(n, length, 3, self.n_heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(n, length, d))
        return x + self.mixer(self.before_mixer(x))


class SmallTransformer(nn.Module):
    """Characters to the logits of the next.

    Parameters
    ----------
    shape : Shape
    n_tokens : int
        Of the vocabulary.
    kind : {"dense", "loss", "bias", "none"}
        What mixes channels, and what balances experts.
    seed : int
        Equal seeds give equal embeddings and attention, whatever the kind.
    """

    def __init__(self, shape: Shape, n_tokens: int, kind: str, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        mixers = [nn.Identity() for _ in range(shape.n_layers)]
        self.embedding = nn.Embedding(n_tokens, shape.d_model)
        self.position = nn.Embedding(shape.context, shape.d_model)
        self.blocks = nn.ModuleList(Block(shape, mixer) for mixer in mixers)
        self.norm = nn.RMSNorm(shape.d_model)
        for embedding in (self.embedding, self.position):
            nn.init.normal_(embedding.weight, std=shape.d_model**-0.5)
        for block in self.blocks:
            block.mixer = make_mixer(shape, kind)
        self.shape = shape

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (n, length, n_tokens) of ids (n, length)."""
        x = self.embedding(ids) + self.position.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return functional.linear(self.norm(x), self.embedding.weight)

    @property
    def mixtures(self) -> list[MixtureOfExperts]:
        """The blocks' mixtures of experts; none of a dense model."""
        return [b.mixer for b in self.blocks if isinstance(b.mixer, MixtureOfExperts)]

    @property
    def n_active(self) -> int:
        """Parameters that multiply one token: of experts top_k, of everything else all."""
        n = sum(p.numel() for p in self.parameters()) - self.position.weight.numel()
        for moe in self.mixtures:
            experts = sum(w.numel() for w in (moe.w_gate, moe.w_up, moe.w_down))
            n -= experts - experts * moe.router.top_k // moe.router.n_experts
        return n


def make_mixer(shape: Shape, kind: str) -> nn.Module:
    """Return one block's channel mixer: all compute as much for a token, but for the router."""
    if kind == "dense":
        return GatedFeedForward(shape.d_model, shape.top_k * shape.d_ff, bias=False)
    return MixtureOfExperts(
        shape.d_model,
        shape.d_ff,
        shape.n_experts,
        shape.top_k,
        scores="sigmoid" if kind == "bias" else "softmax",
        balance=None if kind == "none" else kind,
        bias_rate=2e-3,
    )


def read_text(path: Path | None) -> str:
    """Return the text, or this repository's Python."""
    if path is not None:
        return path.read_text(encoding="utf-8", errors="replace")
    files = sorted((ROOT / "src").rglob("*.py"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def encode(text: str) -> tuple[Tensor, str]:
    """Return the text as numbers, and the characters that they stand for, in order."""
    alphabet = "".join(sorted(set(text)))
    if len(text) < 10_000:
        raise SystemExit(
            f"small_transformer: expected a text of at least 10,000 characters, got {len(text):,}. "
            "Choose a longer one."
        )
    number = {c: i for i, c in enumerate(alphabet)}
    return torch.tensor([number[c] for c in text]), alphabet


def batches(ids: Tensor, shape: Shape, n_steps: int, seed: int = 1) -> Iterator[Tensor]:
    """Yield random windows, (batch, context + 1), the same for the same seed."""
    rng = np.random.default_rng(seed)
    window = torch.arange(shape.context + 1)
    for _ in range(n_steps):
        starts = rng.integers(0, len(ids) - shape.context - 1, shape.batch)
        yield ids[torch.from_numpy(starts)[:, None] + window]


def loss_of(model: SmallTransformer, rows: Tensor) -> Tensor:
    """Return the mean loss of a character, in nats."""
    logits = model(rows[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def held_out_loss(model: SmallTransformer, rows: list[Tensor]) -> float:
    """Return the mean loss of a character over held-out windows, in bits."""
    model.eval()
    with torch.no_grad():
        total = sum(float(loss_of(model, each)) for each in rows)
    model.train()
    return total / len(rows) / math.log(2)


def train(
    model: SmallTransformer,
    ids: Tensor,
    held_out: list[Tensor],
    n_steps: int,
    *,
    lr: float = 2e-3,
    tell: Any = None,
) -> dict[str, Any]:
    """Train a model, and return its held-out losses by step and the seconds of a step."""
    adam = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.1)
    curve: list[tuple[int, float]] = []
    seconds = []
    every = max(1, n_steps // 20)
    for step, rows in enumerate(batches(ids, model.shape, n_steps)):
        since = time.perf_counter()
        rise = min(1.0, (step + 1) / max(1, n_steps // 20))
        for group in adam.param_groups:
            group["lr"] = lr * rise * (0.55 + 0.45 * math.cos(math.pi * step / n_steps))
        loss = loss_of(model, rows) + sum(moe.aux_loss for moe in model.mixtures)
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        seconds.append(time.perf_counter() - since)
        if step % every == every - 1 or step == n_steps - 1:
            curve.append((step + 1, held_out_loss(model, held_out)))
            if tell is not None:
                tell(step + 1, curve[-1][1])
    return {"curve": curve, "seconds_a_step": float(np.median(seconds))}


def routed(model: SmallTransformer, rows: list[Tensor]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each mixture the tokens it saw, (n,), and their experts, (n, top_k)."""
    found: list[list[np.ndarray]] = [[] for _ in model.mixtures]
    tokens = []
    model.eval()
    with torch.no_grad():
        for each in rows:
            model(each[:, :-1])
            tokens.append(each[:, :-1].flatten().numpy())
            for kept, moe in zip(found, model.mixtures, strict=True):
                kept.append(moe.routing.experts.numpy().copy())
    model.train()
    seen = np.concatenate(tokens)
    return [(seen, np.concatenate(kept)) for kept in found]


def mutual_information(tokens: np.ndarray, experts: np.ndarray) -> float:
    """Return the mutual information of a token and one of its experts, in bits."""
    joint = np.zeros((tokens.max() + 1, experts.max() + 1))
    np.add.at(joint, (np.repeat(tokens, experts.shape[1]), experts.ravel()), 1.0)
    joint /= joint.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0)
    return float((joint[joint > 0] * np.log2(joint[joint > 0] / apart[joint > 0])).sum())


def class_of(character: str) -> int:
    """Return which class a character is of."""
    for i, members in enumerate(CLASSES.values()):
        if members is None or character in members:
            return i
    raise AssertionError(character)


def specialisation(
    tokens: np.ndarray, experts: np.ndarray, alphabet: str, n_experts: int
) -> dict[str, Any]:
    """Return what the experts of one mixture take.

    Their load over the mean, the mutual information of character and expert beside that of shuffled
    characters, and by expert the lift of classes and the characters with the highest lift.
    """
    top_k = experts.shape[1]
    load = np.bincount(experts.ravel(), minlength=n_experts) * n_experts / experts.size
    counts = np.zeros((n_experts, len(alphabet)))
    np.add.at(counts, (experts.ravel(), np.repeat(tokens, top_k)), 1.0)
    usual = counts.sum(0) / counts.sum()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    kinds = np.array([class_of(c) for c in alphabet])
    member = kinds[:, None] == np.arange(len(CLASSES))
    lift = share @ member / np.maximum(usual @ member, 1e-12)
    often = usual > 0.002  # rarer characters have lifts by luck
    ranked = np.argsort(-np.where(often, share / np.maximum(usual, 1e-12), 0.0), axis=1)
    shuffled = np.random.default_rng(0).permutation(tokens)
    return {
        "load": load.tolist(),
        "information": mutual_information(tokens, experts),
        "information_shuffled": mutual_information(shuffled, experts),
        "lift": lift.tolist(),
        "characters": ["".join(alphabet[i] for i in row[:6]) for row in ranked],
    }


def write(model: SmallTransformer, alphabet: str, n: int, seed: int = 0) -> str:
    """Return n characters that the model draws, one by one."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(1, 1, dtype=torch.int64)
    model.eval()
    with torch.no_grad():
        for _ in range(n):
            logits = model(ids[:, -model.shape.context :])[0, -1] / 0.8
            drawn = torch.multinomial(torch.softmax(logits, 0), 1, generator=generator)
            ids = torch.cat([ids, drawn[None]], 1)
    model.train()
    return "".join(alphabet[i] for i in ids[0, 1:].tolist())


def compare(
    text: str, shape: Shape, n_steps: int, kinds: tuple[str, ...], tell: Any = None
) -> tuple[dict[str, Any], dict[str, SmallTransformer]]:
    """Train each kind on the same characters, and return what was measured and the models."""
    ids, alphabet = encode(text)
    cut = len(ids) - max(len(ids) // 20, shape.context + 2)
    held_out = list(batches(ids[cut:], shape, 16, seed=2))
    frequency = torch.bincount(ids[:cut], minlength=len(alphabet)).double()
    usual = frequency / frequency.sum()
    found: dict[str, Any] = {
        "characters": len(ids),
        "alphabet": len(alphabet),
        "steps": n_steps,
        "unigram_bits": float(-torch.xlogy(usual, usual).sum() / math.log(2)),
        "models": {},
    }
    models = {}
    for kind in kinds:
        model = models[kind] = SmallTransformer(shape, len(alphabet), kind)

        def told(step: int, bits: float, kind: str = kind) -> None:
            if tell is not None:
                tell(kind, step, bits)

        run = train(model, ids[:cut], held_out, n_steps, tell=told)
        layers = [
            specialisation(*seen, alphabet, shape.n_experts) for seen in routed(model, held_out)
        ]
        found["models"][kind] = {
            **run,
            "n_params": sum(p.numel() for p in model.parameters()),
            "n_active": model.n_active,
            "layers": layers,
            "text": write(model, alphabet, 300),
        }
    return found, models


def report(found: dict[str, Any]) -> str:
    """Return the comparison as text."""
    lines = [
        f"{found['characters']:,} characters, {found['alphabet']} different ones, "
        f"{found['steps']:,} steps; their frequencies alone give {found['unigram_bits']:.2f} bits",
        "",
        "model  parameters     active  bits held out  ms a step  load of experts, least and most",
    ]
    for kind, run in found["models"].items():
        loads = [value for layer in run["layers"] for value in layer["load"]]
        even = f"{min(loads):.2f} to {max(loads):.2f} of the mean" if loads else ""
        lines.append(
            f"{kind:5}  {run['n_params']:10,}  {run['n_active']:9,}  {run['curve'][-1][1]:13.3f}  "
            f"{1000 * run['seconds_a_step']:9.0f}  {even}"
        )
    for kind, run in found["models"].items():
        for number, layer in enumerate(run["layers"]):
            lines += [
                "",
                f"{kind}, layer {number}: an expert tells {layer['information']:.2f} bits of its "
                f"character ({layer['information_shuffled']:.3f} by chance); it takes more than "
                "its share of:",
                "  " + "  ".join(repr(each) for each in layer["characters"]),
            ]
    for kind, run in found["models"].items():
        lines += ["", f"{kind} writes:", run["text"].strip()]
    return "\n".join(lines)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Write the losses, and what the experts of each model take."""
    from lamina.plots.routing import plot_losses, plot_specialisation

    folder.mkdir(parents=True, exist_ok=True)
    curves = {
        kind: tuple(np.array(run["curve"], dtype=np.float64).T)
        for kind, run in found["models"].items()
    }
    plot_losses(curves, "bits a character, held out").savefig(folder / "losses.png", dpi=120)
    for kind, run in found["models"].items():
        for number, layer in enumerate(run["layers"]):
            lift = np.array(layer["lift"])
            seen = lift.any(axis=0)  # a class that does not occur has no share
            names = [name for name, there in zip(CLASSES, seen, strict=True) if there]
            figure = plot_specialisation(lift[:, seen], names, f"{kind}, layer {number}")
            figure.savefig(folder / f"experts_{kind}_{number}.png", dpi=120)


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path, nargs="?", help="a file of text")
    parser.add_argument("--steps", type=int, default=800, help="of each model (800)")
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--plots", type=Path, help="a folder for pictures")
    options = parser.parse_args()
    if options.steps < 1:
        raise SystemExit(f"small_transformer: expected --steps >= 1, got {options.steps}.")
    try:
        text = read_text(options.text)
    except OSError as error:
        raise SystemExit(f"small_transformer: expected a text, got: {error}.") from error

    def tell(kind: str, step: int, bits: float) -> None:
        print(f"{kind}: step {step:,}, {bits:.3f} bits held out", flush=True)  # noqa: T201

    found, _ = compare(text, Shape(), options.steps, ("dense", "loss", "bias"), tell)
    print(report(found))  # noqa: T201
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.plots is not None:
        draw(found, options.plots)


if __name__ == "__main__":
    main()

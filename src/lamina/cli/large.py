"""``lamina fit --max-memory``: tables larger than memory, and ``--resume`` of what was stopped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lamina.cli.console import (
    SCORE_NAMES,
    facts,
    members_text,
    new_estimator,
    note,
    print_json,
    score_text,
    source_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina.tabular.target import Task


def fit_large(ctx: click.Context, out: str, began: float) -> None:
    """Fit within ``--max-memory`` and write the model file.

    Parameters
    ----------
    ctx : click.Context
        Of ``lamina fit``, with its options.
    out : str
        The model file. Beside it, until it is written, a folder has what ``--resume`` needs.
    began : float
        When the verb did, by `time.perf_counter`.
    """
    asked = ctx.params
    _check_options(ctx)
    from lamina.cli.progress import TrainingProgress
    from lamina.tabular.checkpoint import NAME
    from lamina.tabular.kinds import parse_types
    from lamina.tabular.stream import parse_memory, remove_work

    n_bytes = parse_memory(asked["max_memory"], "fit")
    types = parse_types(asked["types"])
    task = asked["task"] or _find_task(asked, types, n_bytes)
    limit, quiet = asked["max_seconds"], asked["quiet"] or asked["as_json"]
    est = new_estimator(task, asked["preset"], limit, asked["seed"], asked["threads"])
    est.types = types or None
    work = f"{out}.unfinished"
    score_name = "accuracy" if task == "classification" else "R2"
    try:
        with TrainingProgress(score_name, limit, quiet, unit="round") as progress:
            est._on_epoch = progress
            est.fit_files(
                source_of(asked["table"]),
                asked["target"],
                drop=asked["drop"],
                max_memory=n_bytes,
                work_dir=work,
                resume=asked["resume"],
                keep_work=True,
            )
    except KeyboardInterrupt:
        if not (Path(work) / NAME).exists():
            raise
        note(f"stopped; {work!r} has what the same command goes on with, given --resume as well.")
        ctx.exit(130)
    del est._on_epoch
    est.save(out)
    remove_work(work)
    report = _report(est, asked, task, out, began)
    if asked["as_json"]:
        print_json(report)
    elif not quiet:
        _summarise(est, report)


def _check_options(ctx: click.Context) -> None:
    """Refuse options that say nothing together."""
    if ctx.params["max_memory"] is None:
        raise click.UsageError(
            "--resume: expected --max-memory too, as when the fit began; other fits keep nothing "
            "to go on with.",
            ctx,
        )
    if ctx.get_parameter_source("test_size") is not ParameterSource.DEFAULT:
        raise click.UsageError(
            "--test-size: expected none with --max-memory, which holds out up to 20,000 rows of "
            "its own. Keep a file apart, and score it with lamina evaluate.",
            ctx,
        )
    if ctx.params["report_path"] is not None:
        raise click.UsageError(
            "--report: expected none with --max-memory, as rows to report on are not kept. Leave "
            "out one of the two.",
            ctx,
        )


def _find_task(asked: Mapping[str, Any], types: Mapping[str, str], n_bytes: int) -> Task:
    """Return what kind of target it is, by a sample of its values."""
    import numpy as np

    from lamina.tabular.batches import Batches
    from lamina.tabular.sample import draw_sample
    from lamina.tabular.stream import SAMPLE_ROWS, input_columns
    from lamina.tabular.target import Target, find_task

    name = asked["target"]
    batches = Batches(source_of(asked["table"]), n_bytes=n_bytes // 64)
    input_columns(batches, name, asked["drop"])
    rng = np.random.default_rng(asked["seed"])
    sample = draw_sample(batches.select([name]), n_bytes // 32, SAMPLE_ROWS, rng)
    target, _ = Target.find(sample.table, name, types)
    return find_task(target.split(sample.table, "fit")[1])


def _report(
    est: Any, asked: Mapping[str, Any], task: Task, out: str, began: float
) -> dict[str, Any]:
    """Return what ``--json`` prints: the keys of other fits, and how many rows were held out."""
    return {
        "out": out,
        "report": None,
        "target": asked["target"],
        "task": task,
        "preset": asked["preset"],
        "seed": asked["seed"],
        "n_test_rows": 0,
        "n_held_out_rows": len(est.held_out_),
        "test_scores": {},
        "out_of_fold_scores": dict(est.report_.scores),
        "columns": est.inputs_.uses.rows(),
        "left_out": list(est.inputs_.uses.left_out),
        "notes": list(est.report_.notes),
        "seconds": time.perf_counter() - began,
        "training": est.report_.to_json(),
    }


def _summarise(est: Any, report: Mapping[str, Any]) -> None:
    """Print the closing summary."""
    for text in report["notes"]:
        note(text)
    task = report["task"]
    n_classes = f" of {len(est.classes_)} classes" if task == "classification" else ""
    n_held = report["n_held_out_rows"]
    pairs = [
        ("target", f"{report['target']} ({task}{n_classes})"),
        ("columns", f"{len(est.inputs_.names)} used, {len(est.inputs_.cells)} inputs"),
        ("found", est.inputs_.uses.counts()),
        ("rows", f"{est.report_.n_rows - n_held:,} training, {n_held:,} held out"),
        ("members", members_text(est.report_, "rounds")),
    ]
    for name, value in report["out_of_fold_scores"].items():
        pairs.append((f"held-out {SCORE_NAMES[name]}", score_text(name, value)))
    pairs.append(("time", f"{report['seconds']:.1f} s"))
    pairs.append(("written", report["out"]))
    facts(pairs)

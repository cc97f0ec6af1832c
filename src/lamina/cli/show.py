"""``lamina show``: what a model file holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import (
    SCORE_NAMES,
    facts,
    json_option,
    neighbours_text,
    note,
    one_line,
    open_estimator,
    print_json,
    score_text,
)

if TYPE_CHECKING:
    from lamina.core.spec import NetworkSpec
    from lamina.tabular.fit_report import FitReport
    from lamina.tabular.uses import ColumnUses


@click.command("show", epilog="Example: lamina show people.lamina, or lamina show people.csv")
@click.argument("model")
@json_option
def command(model: str, as_json: bool) -> None:
    """Show what a model holds, or a table.

    Of a model that is its role, its layers and, if it is one of tables, the columns it reads and
    how it was fitted. Of a csv, tsv, parquet, jsonl or feather file, or a folder of them, it is
    what lamina fit would use each column for, and why; fit --types overrules it.
    """
    from lamina.core.modelfile import read

    if _is_table(model):
        _show_table(model, as_json)
        return

    role, spec, arrays = read(model)
    if role.startswith("tabular_"):
        est = open_estimator(model, "show")
        if as_json:
            print_json({"role": role, "n_params": est.ensemble_.n_params, **spec})
        else:
            _show_estimator(role, est)
        return
    if role.endswith("_field") and not as_json:
        _show_field(role, model)
        return
    n_params = sum(int(array.size) for array in arrays.values())
    if as_json:
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        print_json({"role": role, "spec": spec, "arrays": shapes})
        return
    facts([("role", role), ("numbers", f"{n_params:,} in {len(arrays)} arrays")])
    if role == "network":
        from lamina.core.network import Network

        _show_layers(Network.from_file_parts(spec, arrays).spec)


def _show_field(role: str, path: str) -> None:
    from dataclasses import asdict, is_dataclass

    from lamina.cli.field_files import open_field

    field = open_field(path, "show")
    report, network = field.report, field.network
    share = field.n_params / report.n_values
    form: Any = getattr(field, "form", None)
    facts(
        [
            ("role", role),
            *(asdict(form).items() if is_dataclass(form) and not isinstance(form, type) else ()),
            ("preset", f"{field.preset}, {field.n_params:,} parameters, {share:.3g} a value"),
            ("network", network.spec.encoding or "no encoding"),
            ("layers", " -> ".join(map(str, network.spec.layer_dims))),
            ("trained", f"{report.n_steps:,} steps, {report.seconds:.1f} s, {report.stopped}"),
            ("PSNR", f"{report.psnr:.2f} dB"),
            *([("max error", f"{bound:.6g}")] if (bound := getattr(field, "max_error", 0)) else ()),
        ]
    )


def _is_table(path: str) -> bool:
    from lamina.tabular.read import FORMATS

    return Path(path).suffix.lower() in FORMATS or Path(path).is_dir()


def _show_table(path: str, as_json: bool) -> None:
    from lamina.tabular.kinds import find_uses
    from lamina.tabular.read import read_table

    table = read_table(path)
    uses = find_uses(table, where="show")
    notes = [*table.notes, *uses.notes]
    if as_json:
        print_json({"n_rows": table.n_rows, "columns": uses.rows(), "notes": notes})
        return
    for text in notes:
        note(text)
    facts([("rows", f"{table.n_rows:,}"), ("columns", f"{len(uses.columns)}: {uses.counts()}")])
    click.echo("")
    _show_uses(uses)


def _show_uses(uses: ColumnUses) -> None:
    """Print what each column is used for, its missing and different values, and why."""
    lines = [("column", "use", "missing", "different", "because")]
    for c in uses:
        distinct = "" if c.n_distinct is None else f"{c.n_distinct:,}"
        lines.append((one_line(c.name), c.use, f"{c.n_missing:,}", distinct, one_line(c.reason)))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    for name, use, missing, distinct, reason in lines:
        click.echo(
            f"{name:<{widths[0]}}  {use:<{widths[1]}}  {missing:>{widths[2]}}  "
            f"{distinct:>{widths[3]}}  {reason}".rstrip()
        )


def _show_estimator(role: str, est: Any) -> None:
    target = getattr(est, "target_", None)
    name = "" if target is None else f"{target.name}, "
    kind = "numbers"
    if hasattr(est, "classes_"):
        classes = [str(c) for c in est.classes_.tolist()]
        more = f" and {len(classes) - 10} more" if len(classes) > 10 else ""
        kind = f"classes {', '.join(classes[:10])}{more}"
    members = f"{est.ensemble_.n_params:,} parameters in {len(est.ensemble_)} members"
    facts(
        [
            ("role", role.replace("_", " ")),
            ("target", f"{name}{kind}"),
            ("numbers", members),
            ("neighbours", neighbours_text(est)),
        ]
    )
    _show_layers(est.ensemble_.spec)
    click.echo("\nthe table it was fitted on")
    _show_uses(est.inputs_.uses)
    click.echo("\ntraining")
    facts((f"  {what}", value) for what, value in _training(est))


def _show_layers(spec: NetworkSpec) -> None:
    click.echo("\nlayers")
    units = [*spec.activations, spec.output]
    facts(
        (f"  {layer}", f"{spec.fan_in(layer)} -> {width}  {one_line(unit)}")
        for layer, (width, unit) in enumerate(
            zip([*spec.widths, spec.d_out], units, strict=True), start=1
        )
    )


ENDINGS = {
    "max_epochs": "all epochs done",
    "max_seconds": "the time limit",
    "patience": "no lower held-out loss",
}


def _training(est: Any) -> list[tuple[str, str]]:
    """Return how a fit went, in words."""
    report: FitReport = est.report_
    ends = {end: report.stopped.count(end) for end in dict.fromkeys(report.stopped)}
    pairs = [
        ("preset", est.preset),
        ("rows", f"{report.n_rows:,}"),
        ("members", str(report.n_members)),
        ("epochs", _range(report.epochs)),
        ("best epoch", _range(report.best_epochs)),
        ("ended by", ", ".join(_ending(end, n) for end, n in ends.items())),
    ]
    for name, value in report.scores.items():
        called = SCORE_NAMES.get(name, name.replace("_", " "))
        pairs.append((f"out-of-fold {called}", score_text(name, value)))
    pairs += [
        ("seed", str(report.seed if est.random_state is None else est.random_state)),
        ("threads", str(report.n_threads)),
        ("instruction set", report.isa),
    ]
    return pairs


def _ending(end: str, n: int) -> str:
    return f"{ENDINGS.get(end, end)} ({n} member{'s' * (n > 1)})"


def _range(values: tuple[int, ...]) -> str:
    low, high = min(values, default=0), max(values, default=0)
    return f"{low}" if low == high else f"{low} to {high}"

"""``lamina show``: what a model file holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import SCORE_NAMES, facts, json_option, note, one_line, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina.core.spec import NetworkSpec
    from lamina.tabular.model import TableModel
    from lamina.tabular.preprocess import Encoding
    from lamina.tabular.uses import ColumnUses


@click.command("show", epilog="Example: lamina show people.lamina, or lamina show people.csv")
@click.argument("model")
@json_option
def command(model: str, as_json: bool) -> None:
    """Show what a model holds, or a table.

    Of a model that is its role, its layers and, if lamina fit made it, the columns it reads and
    how it was trained. Of a csv, tsv, parquet, jsonl or feather file, or a folder of them, it is
    what lamina fit would use each column for, and why; fit --types overrules it.
    """
    from lamina.core.modelfile import read

    if _is_table(model):
        _show_table(model, as_json)
        return

    role, spec, arrays = read(model)
    if role == "table_model":
        from lamina.tabular.model import TableModel

        opened = TableModel.from_file_parts(spec, arrays)
        if as_json:
            print_json({"role": role, "n_params": opened.network.n_params, **spec})
        else:
            _show_table_model(opened)
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


def _show_table_model(model: TableModel) -> None:
    target = model.target
    classes = f": {', '.join(target.classes[:10])}" if target.classes else ""
    more = f" and {len(target.classes) - 10} more" if len(target.classes) > 10 else ""
    facts(
        [
            ("role", "table model, made by lamina fit"),
            ("target", f"{target.name} ({target.task}{classes}{more})"),
            ("numbers", f"{model.network.n_params:,} parameters"),
        ]
    )
    _show_layers(model.network.spec)
    click.echo(f"\ncolumns ({len(model.preprocessor.encodings)})")
    facts((f"  {e.name}", _encoding(e)) for e in model.preprocessor.encodings)
    if model.uses.columns:
        click.echo("\nthe table it was fitted on")
        _show_uses(model.uses)
    click.echo("\ntraining")
    facts((f"  {name}", value) for name, value in _training(model.summary))


def _show_layers(spec: NetworkSpec) -> None:
    click.echo("\nlayers")
    units = [*spec.activations, spec.output]
    facts(
        (f"  {layer}", f"{spec.fan_in(layer)} -> {width}  {one_line(unit)}")
        for layer, (width, unit) in enumerate(
            zip([*spec.widths, spec.d_out], units, strict=True), start=1
        )
    )


def _encoding(encoding: Encoding) -> str:
    text: str = encoding.kind
    if encoding.levels:
        text += f", {len(encoding.levels)} levels"
    if encoding.rare:
        text += ", rare ones together"
    return text + (", may be missing" if encoding.missing else "")


TRAINING_NAMES = {
    "n_rows": "rows",
    "n_rows_left_out": "rows without a target",
    "n_validation": "validation rows",
    "best_epoch": "best epoch",
    "stopped": "ended by",
    "n_threads": "threads",
    "isa": "instruction set",
}
ENDINGS = {
    "max_epochs": "the number of epochs",
    "max_seconds": "the time limit",
    "patience": "no lower validation loss",
}


def _training(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for name, value in summary.items():
        called = TRAINING_NAMES.get(name, name.replace("_", " "))
        if name == "validation" and isinstance(value, dict):
            for score, number in value.items():
                pairs.append((f"validation {SCORE_NAMES.get(score, score)}", f"{number:.4g}"))
        elif name == "best_epoch" and value is not None:
            pairs.append((called, str(value + 1)))  # people count from 1, as fit's summary does
        elif name == "stopped":
            pairs.append((called, ENDINGS.get(value, str(value))))
        elif isinstance(value, float):
            pairs.append((called, f"{value:.4g}"))
        elif value is not None:
            pairs.append((called, f"{value:,}" if name.startswith("n_") else str(value)))
    return pairs

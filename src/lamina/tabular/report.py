"""The report: one HTML file on a fitted model, for people; it loads nothing from elsewhere.

Everything on the page goes through jinja2's escaping, figures are SVG inside ``data:`` addresses,
there is no script, and the page's own content security policy allows no more than that.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.engine import info
from lamina.core.errors import DataError, require_extra
from lamina.core.modelfile import write_atomically
from lamina.plots.learning import plot_learning_curves
from lamina.plots.scores import plot_calibration, plot_confusion, plot_residuals
from lamina.plots.style import plain, to_svg
from lamina.tabular.diagnosis import LEAST_GROUP, calibration_bins, confusion, worst_groups
from lamina.tabular.explained import Importance
from lamina.tabular.head import ClassHead
from lamina.tabular.report_scores import Score, calibrated_pairs, find_scores
from lamina.tabular.row_losses import row_losses
from lamina.tabular.table import Table
from lamina.tabular.tabular_base import BaseTabular
from lamina.tabular.uses import DROPPED

Floats = NDArray[np.float64]

MOST_MIXED = 60_000  # rows predicted for importances, so that a report takes a part of a fit's time
MOST_EXPLAINED = 1000  # rows that they are of, fewer where there are many columns
LEAST_EXPLAINED = 200
N_SHUFFLES = 3
N_DEPENDENCES = 4
MOST_AVERAGED = 200  # rows that these are averaged over
MOST_CLASSES = 20  # in the picture of confusion
MOST_PAIRED = 8  # classes whose confusion can be read at half the page's width
MOST_IMPORTANCES = 20  # bars and rows of importances
ENDINGS = {
    "max_epochs": "all epochs done",
    "max_seconds": "the time limit",
    "patience": "no lower held-out loss",
    "interrupted": "Ctrl-C",
}


@dataclass(eq=False)
class _Subject:
    """What a report is about, and the clock of its making."""

    est: BaseTabular
    table: Table
    y: NDArray[Any]
    encoded: NDArray[Any]
    predictions: Floats
    target: str
    rng: np.random.Generator
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began


def write_report(
    path: str | os.PathLike[str],
    est: BaseTabular,
    X: Any,
    y: Any,
    *,
    target: str = "target",
    predictions: Floats | None = None,
    scored_on: str = "held-out rows",
    command: str | None = None,
    seconds: Mapping[str, float] | None = None,
) -> None:
    """Write a report on a fitted estimator as one HTML file, all or nothing.

    Parameters
    ----------
    path : str or path-like
    est : TabularClassifier or TabularRegressor
    X : table-like, n ≥ 2 rows
        Rows that the model was not fitted on: all scores and explanations are of them.
    y : array-like
        Their targets.
    target : str, default "target"
        What is predicted.
    predictions : (n, n_outputs) float64, optional
        Where X are training rows: their out-of-fold predictions. Rows of NaN are left out.
    scored_on : str, default "held-out rows"
        What the rows are, for people.
    command : str, optional
        What repeats the fit; the estimator's constructor by default.
    seconds : mapping of str to float, optional
        How long the parts before this took, besides those that the fit itself knows.

    Raises
    ------
    MissingExtraError
        jinja2 or matplotlib is not installed.
    DataError
        There are fewer than two rows to score.

    Examples
    --------
    >>> import lamina, numpy as np, pathlib, tempfile
    >>> from lamina.tabular.report import write_report
    >>> X = {"width": np.arange(60.0), "colour": ["red", "blue"] * 30}
    >>> y = np.arange(60.0) + 10 * (np.arange(60) % 2)
    >>> model = lamina.TabularRegressor("fast", random_state=0).fit(X, y)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "report.html"
    >>> write_report(path, model, X, y, target="price")
    >>> path.read_text(encoding="utf-8")[:15]
    '<!doctype html>'
    """
    where = "report"
    jinja2: Any = require_extra("jinja2", "plots")
    require_extra("matplotlib", "plots")
    table = est._table_to_predict(X, where)
    y = np.asarray(y)
    encoded = est._encoded_target(y, table, where)
    own: dict[str, float] = {**(seconds or {}), **getattr(est, "_stages", {})}
    began = time.perf_counter()
    if predictions is None:
        predictions = est._predictions_of(table, where)
    own["predict and score"] = time.perf_counter() - began
    known = np.flatnonzero(~np.isnan(predictions).any(axis=1))
    if len(known) < 2:
        raise DataError(
            f"{where}: expected at least 2 rows to score, got {len(known)}. Hold out more rows."
        )
    if len(known) < len(predictions):
        table, y, encoded = table.take(known), y[known], encoded[known]
        predictions = predictions[known]
    seed = np.random.default_rng([est.report_.seed, 3])
    subject = _Subject(est, table, y, encoded, predictions, target, seed, own)
    context = _context(subject, scored_on)
    context["command"] = plain(command or f"lamina.{est!r}.fit(X, y)", 10_000)
    context["times"] = _times(subject.seconds)
    template = _template(jinja2, "report.html.j2")
    write_atomically(path, [template.render(context).encode("utf-8", "replace")], where)


def _template(jinja2: Any, name: str) -> Any:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(_packaged(name))


def _packaged(name: str) -> str:
    return (resources.files("lamina.tabular") / name).read_text(encoding="utf-8")


def _context(s: _Subject, scored_on: str) -> dict[str, Any]:
    """Return all that the template asks for, but command and times."""
    jinja2: Any = require_extra("markupsafe", "plots")
    css = _packaged("report.css")
    is_classes = isinstance(s.est.head_, ClassHead)
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    n = f"{len(s.predictions):,}"
    with s.timed("predict and score"):
        scores = find_scores(s.est.head_, s.encoded, s.predictions, plain(s.target), s.rng)
    own = "class shares" if is_classes else "mean"
    now = datetime.datetime.now().astimezone()
    return {
        "css": jinja2.Markup(css),
        "css_hash": digest,
        "version": info()["version"],
        "date": now.strftime("%Y-%m-%d at %H:%M %Z"),
        "target": plain(s.target, 200),
        "task": "classification" if is_classes else "regression",
        "lead": f"{_task(s)}, learnt from {s.est.report_.n_rows:,} rows and "
        f"{len(s.est.inputs_.names)} columns; scored on {n} {scored_on}.",
        "scores": [_score(score) for score in scores],
        "constant_note": f"Without any column: predicting these rows' own {own} for all of them.",
        "learning": _learning(s),
        "curves": _curves(s),
        "engine": _engine(s),
        "limited": ""
        if s.est.max_seconds is None
        else ", unless max_seconds cut a fit short at another epoch",
        **_fit_section(s),
        **_explain_section(s),
        **_groups_section(s),
        **_columns_section(s),
    }


def _task(s: _Subject) -> str:
    head = s.est.head_
    if not isinstance(head, ClassHead):
        k = len(head.centre)
        return "Regression" if k == 1 else f"Regression of {k} targets"
    if head.multilabel:
        return f"Classification, {head.n_outputs} labels"
    return f"Classification, {head.n_outputs} classes"


# --- numbers as people read them ------------------------------------------------------------------


def number(value: float) -> str:
    """Return four digits, or all before the point; "–" for NaN."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", "−")


def alike(values: Iterable[float], digits: int = 3) -> list[str]:
    """Return numbers with as many decimals each, by the largest of them, so that they align."""
    listed = list(values)
    top = max((abs(v) for v in listed if np.isfinite(v)), default=0.0)
    decimals = int(np.clip(digits - 1 - np.floor(np.log10(top)), 0, 12)) if top > 0 else digits
    shown = (f"{v:,.{decimals}f}" if np.isfinite(v) else "–" for v in listed)
    return [text.replace("-", "−") for text in shown]


def _score(score: Score) -> dict[str, str]:
    def shown(value: float) -> str:
        is_share = score.unit == "share" and np.isfinite(value)
        return f"{value:.4f}".replace("-", "−") if is_share else number(value)

    low, high = shown(score.interval.low), shown(score.interval.high)
    return {
        "name": score.name,
        "what": score.what,
        "value": shown(score.interval.value),
        "range": "" if low == "–" else f"95 %: {low} to {high}",
        "interval": low if low == "–" else f"{low} to {high}",
        "constant": shown(score.constant),
    }


def _figure(figure: Any, alt: str, caption: str = "") -> dict[str, Any]:
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    data = base64.b64encode(to_svg(figure)).decode()
    return {"data": data, "width": width, "height": height, "alt": alt, "caption": caption}


# --- sections -------------------------------------------------------------------------------------


def _learning(s: _Subject) -> list[tuple[str, str]]:
    report = s.est.report_
    kinds: dict[str, int] = {}
    for why in report.stopped:
        kinds[ENDINGS.get(why, why)] = kinds.get(ENDINGS.get(why, why), 0) + 1
    spec = s.est.ensemble_.spec
    widths = " and ".join(str(w) for w in spec.widths) or "no"
    return [
        ("preset", str(s.est.preset)),
        ("members", f"{report.n_members}, each with {widths} hidden units"),
        ("parameters", f"{s.est.ensemble_.n_params:,} in all"),
        ("epochs", f"{min(report.epochs)} to {max(report.epochs)}"),
        ("epoch kept", f"{min(report.best_epochs)} to {max(report.best_epochs)}"),
        (
            "ended by",
            ", ".join(f"{why} ({count} member{'s' * (count > 1)})" for why, count in kinds.items()),
        ),
    ]


def _curves(s: _Subject) -> dict[str, Any] | None:
    histories = getattr(s.est, "histories_", None)
    if not histories:
        return None
    head = s.est.head_
    loss = "log loss (nats)"
    if not isinstance(head, ClassHead):
        loss = f"{head.loss.replace('_', ' ')}, standardised target"
    elif head.multilabel:
        loss = "log loss of a row's labels (nats)"
    with s.timed("draw figures"):
        figure = plot_learning_curves(
            [h.train_loss for h in histories],
            [h.validation_loss for h in histories],
            s.est.report_.best_epochs,
            loss=loss,
        )
        caption = (
            "Each member learns from all rows but its own fold, and keeps the epoch that was best "
            "there. The training loss is with dropout, while the epoch runs: it may lie above."
        )
        return _figure(figure, "Loss of each member by epoch", caption)


def _fit_section(s: _Subject) -> dict[str, Any]:
    """Return calibration and confusion, or residuals."""
    head, figures, notes = s.est.head_, [], []
    with s.timed("draw figures"):
        if not isinstance(head, ClassHead):
            targets = [s.target] if s.y.ndim == 1 else list(s.est._output_names())
            for k, name in enumerate(targets[:4]):
                figure = plot_residuals(s.encoded[:, k], s.predictions[:, k], target=name)
                figures.append(_figure(figure, f"Residuals of {plain(name)}"))
            notes.append(
                "Above zero the prediction was too low. Orange: median and outer tenths of the "
                "rows whose prediction is alike; at most 4,000 rows are drawn."
            )
            return {
                "fit_title": "Residuals",
                "fit_figures": figures,
                "fit_notes": notes,
                "fit_pair": len(figures) > 1,
            }
        names = s.est._output_names()
        bins = calibration_bins(*calibrated_pairs(head, s.encoded, s.predictions))
        two = len(names) == 2 and not head.multilabel
        what = names[1] if two else ("a label" if head.multilabel else "the predicted class")
        figure = plot_calibration(
            bins.predicted,
            bins.share,
            (bins.low, bins.high),
            bins.count,
            what=what,
            error=bins.error,
        )
        figures.append(_figure(figure, f"Calibration of the probability of {plain(what)}"))
        notes.append(
            "A calibrated model's dots lie on the dashed line: of all rows given 70 %, 70 % come "
            f"true. Temperature {head.temperature:.3f}, found on out-of-fold predictions."
        )
        if not head.multilabel:
            counts = confusion(s.encoded, np.argmax(s.predictions, axis=1), len(names))
            if len(names) > MOST_CLASSES:
                kept = np.sort(np.argsort(-counts.sum(axis=1), kind="stable")[:MOST_CLASSES])
                counts, names = counts[np.ix_(kept, kept)], tuple(names[k] for k in kept)
                notes.append(f"Confusion of the {MOST_CLASSES} most frequent classes.")
            figures.append(_figure(plot_confusion(counts, names), "Confusion of the classes"))
    title = "Calibration" if head.multilabel else "Calibration and confusion"
    pair = len(figures) > 1 and head.n_outputs <= MOST_PAIRED
    return {"fit_title": title, "fit_figures": figures, "fit_notes": notes, "fit_pair": pair}


def _explain_section(s: _Subject) -> dict[str, Any]:
    fair = MOST_MIXED // (N_SHUFFLES * len(s.est.inputs_.names))
    most = int(np.clip(fair, LEAST_EXPLAINED, MOST_EXPLAINED))
    rows = np.sort(s.rng.permutation(len(s.y))[:most])
    part = s.table.take(rows)
    # Squared errors have a unit that nobody can read
    scoring = "log_loss" if isinstance(s.est.head_, ClassHead) else "absolute_error"
    with s.timed("explain"):
        found = s.est.explain(
            part, s.y[rows], kind="importance", scoring=scoring, n_repeats=N_SHUFFLES
        )
    with s.timed("draw figures"):
        figure = found.plot(MOST_IMPORTANCES)
    top = max(float(found.mean.max()), 0.0)
    caption = (
        f"How much worse the predictions of {len(rows):,} rows get when one column's values are "
        f"shuffled among them ({N_SHUFFLES} times). Columns that say the same share the loss."
    )
    listed = found.order[:MOST_IMPORTANCES]
    n = len(listed)
    shown = alike([*found.mean[listed], *found.spread[listed]])
    more = len(found.columns) - len(listed)
    return {
        "importance": _figure(figure, "Importance of the columns", caption),
        "importances": [
            {
                "column": plain(found.columns[j], 120),
                "mean": mean,
                "spread": spread,
                "share": f"{max(found.mean[j], 0.0) / top:.0%}" if top > 0 else "–",
            }
            for j, mean, spread in zip(listed, shown[:n], shown[n:], strict=True)
        ],
        "importances_left_out": f"{more} less important columns are not listed." if more else "",
        "loss": found.scoring.replace("_", " "),
        "dependences": _dependences(s, part.take(_spread_out(len(rows), MOST_AVERAGED)), found),
    }


def _spread_out(n: int, most: int) -> NDArray[np.intp]:
    """Return at most ``most`` of n places, evenly apart: a table sorted by time is seen whole."""
    return np.arange(min(n, most)) * n // max(min(n, most), 1)


def _dependences(s: _Subject, part: Table, found: Importance) -> list[dict[str, Any]]:
    """Return figures for the most important columns that have values to be set to."""
    output: int | None = None
    head = s.est.head_
    if isinstance(head, ClassHead) and not head.multilabel and head.n_outputs > 2:
        output = int(np.bincount(s.encoded).argmax())
    texts = s.est.inputs_.texts
    chosen = [found.columns[j] for j in found.order if found.columns[j] not in texts]
    figures = []
    for name in chosen[:N_DEPENDENCES]:
        if bool(part.columns[name].missing.all()):
            continue
        with s.timed("explain"):
            dependence = s.est.explain(part, kind="dependence", columns=name)
        with s.timed("draw figures"):
            figures.append(_figure(dependence.plot(output), f"Dependence on {plain(name)}"))
    return figures


def _groups_section(s: _Subject) -> dict[str, Any]:
    head = s.est.head_
    is_classes = isinstance(head, ClassHead)
    losses = row_losses(head, s.encoded, "log_loss" if is_classes else "squared_error")
    with s.timed("find the worst groups"):
        prepared, _ = s.est._subject().prepared(s.table, "report")
        each = losses(s.predictions, np.arange(len(s.predictions)))
        groups, n_groups = worst_groups(prepared, each)
    lead = (
        f"Rows that share a level, a fifth of a number's range, or a missing value: {n_groups} "
        f"groups of at least {LEAST_GROUP} rows were compared with all other rows"
    )
    if groups:
        lead += "; these have more loss than chance would explain (5 % in all, Bonferroni)."
    else:
        lead += "; none has more loss than chance would explain (5 % in all, Bonferroni)."

    power = 1.0 if is_classes else 0.5  # squared errors are shown as their root
    own = [max(g.loss, 0.0) ** power for g in groups]
    others = [max(g.loss - g.excess, 0.0) ** power for g in groups]
    shown = alike([*own, *others])
    return {
        "groups_lead": lead,
        "group_loss": "log loss" if is_classes else "root mean squared error",
        "groups": [
            {
                "column": plain(g.column, 120),
                "cells": plain(g.values, 80),
                "n_rows": f"{g.n_rows:,}",
                "loss": shown[i],
                "others": shown[len(groups) + i],
                "ratio": f"{own[i] / others[i]:.1f}" if others[i] > 0 else "–",
            }
            for i, g in enumerate(groups)
        ],
    }


def _columns_section(s: _Subject) -> dict[str, Any]:
    uses = s.est.inputs_.uses
    rows = [
        {
            "name": plain(c.name, 120),
            "use": c.use,
            "reason": plain(c.reason, 300),
            "missing": f"{c.n_missing:,}",
            "distinct": "" if c.n_distinct is None else f"{c.n_distinct:,}",
            "left_out": c.use in DROPPED,
        }
        for c in uses
    ]
    n_left_out = sum(row["left_out"] is True for row in rows)
    grey = " Grey ones are not learnt from." if n_left_out else ""
    return {
        "columns": rows,
        "columns_lead": f"{len(rows)} columns: {uses.counts()}.{grey}",
        "notes": [plain(note, 400) for note in s.est.report_.notes],
    }


def _engine(s: _Subject) -> list[tuple[str, str]]:
    report, about = s.est.report_, info()
    seed = s.est.random_state
    given = f" (random_state={seed})" if isinstance(seed, int | np.integer) else ""
    return [
        ("instruction set", report.isa),
        ("threads", str(report.n_threads)),
        ("seed", f"{report.seed}{given}"),
        ("machine", str(about["machine"])),
        (
            "versions",
            f"lamina {about['version']}, Python {about['python']}, NumPy {about['numpy']}",
        ),
    ]


def _times(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    total = sum(seconds.values()) or 1.0
    parts = sorted(seconds.items(), key=lambda item: -item[1])
    rows = [
        {
            "name": plain(name),
            "seconds": f"{took:.2f}",
            "share": f"{took / total:.0%}",
            "width": f"{180 * took / total:.1f}",
        }
        for name, took in parts
    ]
    whole = {"name": "all of it", "seconds": f"{total:.2f}", "share": "100%", "width": "180"}
    return [*rows, whole]

"""The report: one file, whole, safe with any names, true to the model."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

import lamina
from lamina.core.errors import DataError, MissingExtraError
from lamina.tabular.report import MOST_AVERAGED, alike, number, write_report

N = 300
EVIL = "<script>alert('x')</script>\"&{{ 7*7 }}\u202e"
EVIL_LEVEL = "</style></td><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Everything that a test asks about a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "tags that do not nest"

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def table(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        EVIL: rng.normal(size=N),
        "level": rng.choice([EVIL_LEVEL, "b", "c"], N).astype(object),
        "城市": rng.choice(["東京", "Ōsaka"], N).astype(object),
        "key": [f"id{i}" for i in range(N)],
        "gap": np.where(np.arange(N) % 3 == 0, np.nan, rng.normal(size=N)),
    }


def classes(rows: dict[str, Any]) -> Any:
    hot = rows[EVIL] + (rows["level"] == EVIL_LEVEL) > 0.3
    return np.where(hot, EVIL_LEVEL, "no").astype(object)


def troubled(rows: dict[str, Any]) -> Any:
    """Return classes that are wrong in half of the rows of one level: a worst group."""
    y = classes(rows)
    wrong = (rows["level"] == EVIL_LEVEL) & (np.arange(N) % 2 == 0)
    return np.where(wrong, np.where(y == "no", EVIL_LEVEL, "no"), y).astype(object)


@pytest.fixture(scope="module")
def classifier() -> lamina.TabularClassifier:
    rows = table()
    return lamina.TabularClassifier("fast", random_state=7, n_threads=1).fit(rows, classes(rows))


@pytest.fixture(scope="module")
def page(classifier: lamina.TabularClassifier, tmp_path_factory: Any) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    rows = table(1)
    write_report(
        path,
        classifier,
        rows,
        troubled(rows),
        target=EVIL,
        command=f"lamina fit t.csv --target '{EVIL}'",
        seconds={EVIL: 100.0},
    )
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_nothing_is_loaded_and_no_script_runs(page: str) -> None:
    seen = Page(page)
    assert not seen.open
    names = {tag for tag, _ in seen.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in seen.tags:
        assert not [a for a in attributes if a.startswith("on") or a == "style"], tag
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/svg+xml;base64,", "#")), value
    assert "@import" not in page
    assert "url(" not in page


def test_the_policy_of_the_page_allows_its_own_style_and_no_other(page: str) -> None:
    policy = next(a["content"] for t, a in Page(page).tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    style = re.search(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert page.count("<style") == 1


def test_names_and_levels_are_shown_and_never_markup(page: str) -> None:
    text = Page(page).text
    assert "<script>alert('x')</script>\"&{{ 7*7 }}\\u202e" in text
    assert f"times as much level {EVIL_LEVEL} " in text
    assert "城市 category" in text
    assert "\u202e" not in page  # would turn the text around it
    for tag, attributes in Page(page).tags:
        assert not (tag == "img" and attributes.get("src") == "x")
    for data in re.findall(r"base64,([^\"]+)", page):
        svg = base64.b64decode(data)
        for element in ET.fromstring(svg).iter():
            assert element.tag.rpartition("}")[2] not in ("script", "foreignObject", "a")
            for name, value in element.attrib.items():
                if name.rpartition("}")[2] == "href":  # a picture's own pixels, or a part of it
                    assert value.startswith(("data:image/png;base64,", "#")), value
        assert b"http-equiv" not in svg


def test_every_figure_says_what_it_is(page: str) -> None:
    images = [a for t, a in Page(page).tags if t == "img"]
    assert len(images) >= 6
    for image in images:
        assert image["alt"]
        assert int(image["width"] or 0) > 100


def test_scores_are_those_of_the_rows(classifier: lamina.TabularClassifier, page: str) -> None:
    rows = table(1)
    y = troubled(rows) == EVIL_LEVEL
    assert classifier.classes_[0] == EVIL_LEVEL
    p = classifier.predict_proba(rows)
    text = Page(page).text
    assert f"log loss {log_loss(~y, p):.4f} 95 %: " in text
    assert f"AUC {roc_auc_score(~y, p[:, 1]):.4f} 95 %: " in text
    share = max(y.mean(), 1 - y.mean())
    assert re.search(rf"accuracy [\d.]+ [\d.]+ to [\d.]+ {share:.4f} share of rows", text)


def test_columns_time_engine_and_command_are_listed(
    classifier: lamina.TabularClassifier, page: str
) -> None:
    text = Page(page).text
    assert "key identifier 0 300 no value appears twice" in text
    assert "gap number 100" in text
    assert f"seed {classifier.report_.seed} (random_state=7)" in text
    assert f"instruction set {lamina.info()['isa']}" in text
    assert "threads 1" in text
    assert "lamina fit t.csv --target '<script>" in text
    slow = text.index("100.00")
    assert slow < text.index("train", text.index("the slowest first"))
    assert "all of it" in text
    ended = re.findall(r"\((\d+) members?\)", text)  # not a number of epochs
    assert sum(map(int, ended)) == classifier.report_.n_members


def test_numbers_have_residuals_and_their_own_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = {"a": rng.normal(size=N), "c": rng.choice(["x", "y"], N)}
    y = 1e6 + 1e4 * rows["a"] + np.where(rows["c"] == "x", 1e4, 10.0) * rng.normal(size=N)
    model = lamina.TabularRegressor("fast", random_state=0, n_threads=1).fit(rows, y)
    write_report(tmp_path / "r.html", model, rows, y, target="price")
    text = Page((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "Regression, learnt from 300 rows and 2 columns" in text
    assert f"R² {model.score(rows, y):.4f}" in text
    assert "root mean squared error, in units of price" in text
    assert re.search(r"times as much c x \d+ [\d,]+ [\d,]+ \d+\.\d", text)
    assert "lamina.TabularRegressor(n_threads=1, preset='fast', random_state=0).fit(X, y)" in text


@pytest.mark.parametrize("kind", ["multi-class", "labels", "targets"])
def test_every_kind_of_target_has_a_report(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 3))
    model: Any = lamina.TabularClassifier("fast", random_state=0, n_threads=1)
    if kind == "multi-class":
        y: Any = np.digitize(X[:, 0], np.linspace(-1.5, 1.5, 9))
    elif kind == "labels":
        y = (X[:, :2] > 0).astype(int)
    else:
        y, model = X[:, :2] * [1.0, 100.0], lamina.TabularRegressor("fast", random_state=0)
    model.fit(X, y)
    write_report(tmp_path / "r.html", model, X, y)
    seen = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert not seen.open
    says = {"multi-class": "10 classes", "labels": "2 labels", "targets": "2 targets"}[kind]
    assert says in seen.text
    assert "nan" not in seen.text.lower()


def test_a_loaded_model_and_out_of_fold_predictions_make_a_report(
    classifier: lamina.TabularClassifier, tmp_path: Path
) -> None:
    classifier.save(tmp_path / "m.lamina")
    model = lamina.load(tmp_path / "m.lamina")
    rows = table()
    out = classifier.out_of_fold_proba_.copy()
    out[:5] = np.nan
    write_report(
        tmp_path / "r.html", model, rows, classes(rows), predictions=out, scored_on="training rows"
    )
    text = Page((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "scored on 295 training rows" in text
    assert f"log loss {log_loss(classes(rows)[5:] == 'no', out[5:]):.4f}" in text


def test_a_mistake_leaves_no_file(
    classifier: lamina.TabularClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = table()
    path = tmp_path / "r.html"
    one = {name: values[:1] for name, values in rows.items()}
    with pytest.raises(DataError, match="expected at least 2 rows to score, got 1"):
        write_report(path, classifier, one, classes(rows)[:1])
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r'pip install "lamina\[plots\]"'):
        write_report(path, classifier, rows, classes(rows))
    assert not path.exists()


def test_numbers_read_well() -> None:
    assert [number(v) for v in (0.0, 1.23456, -12345.6, float("nan"))] == [
        "0",
        "1.235",
        "−12,346",
        "–",
    ]
    assert alike([0.1234, 0.00012]) == ["0.123", "0.000"]
    assert alike([12345.6, -3.0, float("nan")]) == ["12,346", "−3", "–"]
    assert alike([0.0]) == ["0.000"]


def test_rows_are_averaged_from_all_over_a_sorted_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"x": np.arange(float(N)), "other": np.random.default_rng(0).normal(size=N)}
    model = lamina.TabularRegressor("fast", random_state=0, n_threads=1).fit(rows, rows["x"])
    seen: list[Any] = []
    explain = lamina.TabularRegressor.explain

    def watched(self: Any, X: Any, *args: Any, **options: Any) -> Any:
        if options["kind"] == "dependence":
            seen.append(X.columns["x"].values)
        return explain(self, X, *args, **options)

    monkeypatch.setattr(lamina.TabularRegressor, "explain", watched)
    write_report(tmp_path / "r.html", model, rows, rows["x"])
    assert seen
    for x in seen:
        assert len(np.unique(x)) == len(x) == MOST_AVERAGED
        assert np.mean(x) == pytest.approx(np.mean(rows["x"]), rel=0.02)

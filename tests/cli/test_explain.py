"""``lamina explain``, and the report of ``lamina fit``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lamina.cli.main import cli
from lamina.tabular.read import write_columns

ROWS = 120


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a table whose target is one column doubled, and a model of it."""
    folder = tmp_path_factory.mktemp("explain")
    rng = np.random.default_rng(0)
    columns = {"signal": rng.normal(size=ROWS), "noise": rng.normal(size=ROWS)}
    table, model = folder / "t.csv", folder / "m.lamina"
    with table.open("wb") as file:
        write_columns({**columns, "y": 2 * columns["signal"]}, file, "csv")
    done = run("fit", table, "--target", "y", "--out", model, "--preset", "fast", "--quiet")
    assert done.exit_code == 0, done.stderr
    return table, model


def run(*args: Any) -> Any:
    return CliRunner().invoke(cli, [str(a) for a in args])


def test_importance_puts_the_signal_first(fitted: tuple[Path, Path]) -> None:
    table, model = fitted
    found = json.loads(run("explain", model, table, "--json").stdout)
    assert [c["column"] for c in found["columns"]] == ["signal", "noise"]
    assert found["columns"][0]["mean"] > 10 * abs(found["columns"][1]["mean"])
    lines = run("explain", model, table).stdout.splitlines()
    assert lines[1].startswith("signal")


def test_a_rows_parts_sum_to_its_prediction(fitted: tuple[Path, Path]) -> None:
    table, model = fitted
    found = json.loads(run("explain", model, table, "--row", 5, "--json").stdout)
    predictions = json.loads(run("predict", model, table, "--json").stdout)["predictions"]
    total = np.sum(found["values"]) + found["baseline"][0]
    np.testing.assert_allclose(total, predictions[5], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_is_written(fitted: tuple[Path, Path], tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"picture.{suffix}"
    done = run("explain", *reversed(fitted), "--row", 0, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert out.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--row", 999], "explain: expected --row from 0 to 119"),
        (["--out", "x.gif"], "explain: expected --out to end in .png, .svg, got 'x.gif'"),
        (["--out", "nowhere/x.png"], "explain: expected to write 'nowhere/x.png'"),
        (["--target", "z"], "'z'"),
    ],
)
def test_mistakes_are_one_sentence(
    fitted: tuple[Path, Path], args: list[Any], sentence: str
) -> None:
    done = run("explain", *reversed(fitted), *args)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("test_size", ["0.3", "0"])
def test_fit_writes_a_report(fitted: tuple[Path, Path], tmp_path: Path, test_size: str) -> None:
    report, out = tmp_path / "r.html", tmp_path / "m.lamina"
    args = ["--target", "y", "--preset", "fast", "--out", out, "--report", report, "--quiet"]
    done = run("fit", fitted[0], *args, "--test-size", test_size)
    assert done.exit_code == 0, done.stderr
    text = report.read_text(encoding="utf-8")
    assert "signal" in text
    assert ("by members that did not see it" in text) == (test_size == "0")


def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    fitted: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "m.lamina"
    done = run(
        "fit", fitted[0], "--target", "y", "--out", out, "--report", tmp_path / "no" / "r.html"
    )
    assert done.exit_code == 2
    assert "fit --report: expected to write" in done.stderr
    assert done.stderr.strip().endswith("Choose another place with --report.")
    assert not out.exists()

"""``lamina predict --interval`` and ``--quantiles``: what is written, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lamina.cli.main import cli

N_FITTED, N_FRESH = 600, 400


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in args])


def succeed(*args: object) -> str:
    result = run(*args)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def columns(text: str) -> dict[str, np.ndarray]:
    rows = list(csv.DictReader(io.StringIO(text)))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of y = 3 a + noise that grows with b, rows it has not seen, and one of classes."""
    folder = tmp_path_factory.mktemp("intervals")
    rng = np.random.default_rng(3)
    n = N_FITTED + N_FRESH
    a, b = rng.uniform(0, 10, n), rng.uniform(0, 1, n)
    y = 3 * a + (0.2 + 4 * b) * rng.normal(size=n)
    lines = [
        f"{p!r},{q!r},{r!r},{'high' if r > 15 else 'low'}\n"
        for p, q, r in zip(a.tolist(), b.tolist(), y.tolist(), strict=True)
    ]
    head = "a,b,y,half\n"
    (folder / "own.csv").write_text(head + "".join(lines[:N_FITTED]))
    (folder / "fresh.csv").write_text(head + "".join(lines[N_FITTED:]))
    for target, drop in (("y", "half"), ("half", "y")):
        args = ("fit", folder / "own.csv", "--target", target, "--drop", drop, "--preset", "fast")
        succeed(*args, "--test-size", 0, "--out", folder / f"{target}.lamina", "--quiet")
    return folder


def test_an_interval_stands_beside_the_prediction_and_holds_fresh_rows(folder: Path) -> None:
    text = succeed("predict", folder / "y.lamina", folder / "fresh.csv", "--interval", 0.9)
    found = columns(text)
    assert list(found) == ["prediction", "lower", "upper"]
    truth = columns((folder / "fresh.csv").read_text().replace("high", "1").replace("low", "0"))
    covered = np.mean((found["lower"] <= truth["y"]) & (truth["y"] <= found["upper"]))
    error = np.sqrt(0.9 * 0.1 * (1 / N_FRESH + 1 / N_FITTED))  # of both tables' draws
    assert abs(covered - 0.9) < 3.5 * error
    width = found["upper"] - found["lower"]
    noisy = truth["b"] > 0.5
    assert width[noisy].mean() > 1.5 * width[~noisy].mean()


def test_quantiles_are_columns_in_the_order_asked_and_never_cross(folder: Path) -> None:
    args = (
        "predict",
        folder / "y.lamina",
        folder / "fresh.csv",
        "--quantiles",
        "0.9, 0.05,.5,0.95",
    )
    found = columns(succeed(*args, "--interval", 0.9))
    levels = ["quantile_0.9", "quantile_0.05", "quantile_0.5", "quantile_0.95"]
    assert list(found) == ["prediction", "lower", "upper", *levels]
    assert (found["quantile_0.05"] <= found["quantile_0.5"]).all()
    assert (found["quantile_0.5"] <= found["quantile_0.9"]).all()
    np.testing.assert_allclose(found["lower"], found["quantile_0.05"], rtol=1e-9)
    np.testing.assert_allclose(found["upper"], found["quantile_0.95"], rtol=1e-9)


def test_json_and_files_hold_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    from lamina.tabular.read import read_table

    args = ("predict", folder / "y.lamina", folder / "fresh.csv", "--interval", 0.8)
    args = (*args, "--quantiles", "0.25")
    printed = columns(succeed(*args))
    document = json.loads(succeed(*args, "--json"))
    assert document["coverage"] == 0.8
    assert document["task"] == "regression"
    succeed(*args, "--out", tmp_path / "p.parquet")
    table = read_table(tmp_path / "p.parquet")
    assert table.names == ("prediction", "lower", "upper", "quantile_0.25")
    for name in ("lower", "upper", "quantile_0.25"):
        np.testing.assert_array_equal(document[name], printed[name])
        np.testing.assert_array_equal(table.columns[name].values, printed[name])


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--interval", "90", "expected a number between 0 and 1, 0.9 for 90 %, got '90'"),
        ("--interval", "0", "expected a number between 0 and 1, such as 0.9, got '0'"),
        ("--interval", "1", "got '1'"),
        ("--interval", "nan", "got 'nan'"),
        ("--interval", "wide", "got 'wide'"),
        ("--quantiles", "0.1,50", "0.5 for 50 %, got '50'"),
        ("--quantiles", "0.1,,0.9", "got ''"),
        ("--quantiles", "0.5,0.50", "expected each level once, got '0.5,0.50'"),
    ],
)
def test_a_share_that_is_none_is_refused(
    option: str, value: str, said: str, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    args = ("predict", folder / "y.lamina", folder / "fresh.csv", "--out", out, option, value)
    result = run(*args)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("option", [("--interval", "0.9"), ("--quantiles", "0.5")])
def test_a_model_without_quantiles_says_why(
    option: tuple[str, str], folder: Path, tmp_path: Path
) -> None:
    result = run("predict", folder / "half.lamina", folder / "fresh.csv", *option)
    assert result.exit_code == 2
    assert f"expected a model of numbers for {option[0]}, got one of classes" in result.stderr
    streamed = folder / "streamed.lamina"
    if not streamed.exists():
        args = ("fit", folder / "own.csv", "--target", "y", "--out", streamed, "--quiet")
        succeed(*args, "--max-memory", "200MB", "--preset", "fast", "--max-seconds", 0.2)
    result = run("predict", streamed, folder / "fresh.csv", *option)
    assert result.exit_code == 2
    assert "within --max-memory, which learns none" in result.stderr
    assert succeed("predict", streamed, folder / "fresh.csv")

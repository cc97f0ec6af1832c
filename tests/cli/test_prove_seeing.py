"""lamina prove activations and diagnose, as typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import lamina
from lamina.cli.main import cli
from lamina.core.functions import ACTIVATIONS


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["prove", *map(str, args)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network whose first layer is dead, rows and targets."""
    folder = tmp_path_factory.mktemp("prove")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    sick = lamina.Network(3, (8, 8), 1, rng=0)
    sick.biases[0] = np.full(8, -20.0)
    sick.save(folder / "sick.lamina")
    np.save(folder / "x.npy", x)
    np.savetxt(folder / "x.csv", x, delimiter=",")
    np.savetxt(folder / "y.tsv", x[:, :1], delimiter="\t")
    (folder / "header.csv").write_text("a,b,c\n1,2,3\n")
    (folder / "words.csv").write_text("1,2,3\n4,5,six\n")
    (folder / "empty.csv").write_text("")
    return folder


def test_activations_lists_the_gallery_and_draws_it(tmp_path: Path) -> None:
    result = run("activations", "--plot", tmp_path / "all.svg")
    assert result.exit_code == 0, result.stderr
    assert all(f"  {name} " in result.stdout for name in ACTIVATIONS)
    assert "Check by hand" in result.stdout
    assert (tmp_path / "all.svg").read_bytes().startswith(b"<?xml")


def test_activations_tells_all_about_one() -> None:
    result = run("activations", "gelu", "--json")
    facts = json.loads(result.stdout)["activations"]["gelu"]
    assert facts["formula"] == "z * Phi(z)"
    assert facts["ns_forward"] >= 0
    assert "arXiv:1606.08415" in run("activations", "gelu").stdout


def test_activations_refuses_an_unknown_name() -> None:
    result = run("activations", "swish")
    assert result.exit_code == 2
    assert "expected each name to be one of identity, step" in result.stderr


def test_hidden_shows_the_exclusive_or_parted(tmp_path: Path) -> None:
    result = run("hidden", "--plot", tmp_path / "hidden.svg", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    h, w = np.array(facts["hidden"]), np.array(facts["weights"])
    assert (h @ w + facts["bias"] > 0).tolist() == [False, True, True, False]
    assert np.abs(h @ w + facts["bias"]).min() / np.linalg.norm(w) >= facts["margin"] - 1e-12
    assert facts["y_pred"] == [0, 1, 1, 0]
    assert "Both checked in fractions: yes." in run("hidden").stdout


@pytest.mark.parametrize("rows", ["x.npy", "x.csv"])
def test_diagnose_finds_what_hinders(folder: Path, rows: str) -> None:
    result = run("diagnose", folder / "sick.lamina", folder / rows, "--target", folder / "y.tsv")
    assert result.exit_code == 0, result.stderr
    assert "Something hinders this network" in result.stdout
    assert "layer 1: all 8 relu units are 0 on all 40 rows" in result.stdout


def test_diagnose_gives_json_and_a_picture(folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "d.png"
    args = ("diagnose", folder / "sick.lamina", folder / "x.npy", "--json", "--plot", picture)
    result = run(*args)
    assert [v["kind"] for v in json.loads(result.stdout)["verdicts"]] == ["dead"]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("header.csv", "numbers in a .csv file without a header|expected numbers in"),
        ("words.csv", r"got: could not convert [^.]*\. Pass"),
        ("empty.csv", "got: an empty file. Pass"),
        ("x.parquet", "expected a .npy, .csv or .tsv file"),
        ("none.npy", "No such file or directory"),
        ("y.tsv", r"expected x of shape \(n, 3\), got \(40, 1\)"),
    ],
)
def test_diagnose_says_what_is_wrong_with_the_rows(folder: Path, rows: str, says: str) -> None:
    result = run("diagnose", folder / "sick.lamina", folder / rows)
    assert result.exit_code == 2
    assert re.search(says, result.stderr)

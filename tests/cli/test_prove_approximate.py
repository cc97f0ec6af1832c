"""lamina prove approximate, polynomial and depth: claims, pictures, mistakes in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import lamina
from lamina.cli.box_text import rounded_down, rounded_up
from lamina.cli.main import cli


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["prove", *(str(a) for a in args)])


def test_a_network_is_built_proved_saved_and_drawn(tmp_path: Path):
    model, picture = tmp_path / "sine.lamina", tmp_path / "sine.svg"
    result = run("approximate", "sin(6*x)", "--out", model, "--plot", picture)
    assert result.exit_code == 0, result.stderr
    assert "one hidden layer of 12 relu units stays within 0.009999 of sin(6*x) on [0, 1]." in (
        result.stdout
    )
    assert "no fewer    than 11 relu units" in result.stdout
    net = lamina.load(model)
    x = np.linspace(0, 1, 1001)[:, None]
    assert np.abs(net(x)[:, 0] - np.sin(6 * x[:, 0])).max() <= 0.01
    assert "12 relu units for sin(6*x)" in picture.read_text(encoding="utf-8")


def test_machines_get_the_bound_and_the_network():
    args = ("approximate", "x1*x2", "--box=-1:1,0:1", "--tolerance", 0.1, "--activation", "tanh")
    found = json.loads(run(*args, "--learn", 1, "--json").stdout)
    assert found["reached"] is True
    assert found["error_attained"] <= found["error_bound"] <= 0.1
    assert found["box"] == [[-1, 1], [0, 1]]
    assert np.shape(found["network"]["weights"][0]) == (found["n_units"], 2)
    assert len(found["learned"]["error_bounds"]) == 1


def test_what_is_not_reached_is_said():
    result = run("approximate", "sign(x - 0.5)", "--max-seconds", 2)
    assert result.exit_code == 0
    assert "The tolerance 0.01 was not reached" in result.stdout


def test_polynomials_are_kept_away_and_relu_comes_closer(tmp_path: Path):
    result = run("polynomial", "--plot", tmp_path / "p.svg")
    assert result.exit_code == 0, result.stderr
    for line in (
        "polynomial units of degree 3, of any width, comes closer to abs(x) on [-1, 1] than 1/8.",
        "relu        2 units in one hidden layer: within 0.06238 (proved)",
        "verified in fractions",
    ):
        assert line in result.stdout
    assert "closer than 0.125" in (tmp_path / "p.svg").read_text(encoding="utf-8")
    facts = json.loads(run("polynomial", "exp(x)", "--degree", 4, "--box", "0:1", "--json").stdout)
    assert facts["verified"] is True
    assert 0 < facts["bound"] < 1e-4
    assert facts["box"] == [[0, 1]]


def test_the_box_of_the_help_is_the_one_that_is_taken():
    text = " ".join(run("polynomial", "--help").stdout.split())
    assert "[default: -1:1]" in text
    assert "0:1" not in text
    assert json.loads(run("polynomial", "--json").stdout)["box"] == [[-1, 1]]
    assert "[default: 0:1]" in run("approximate", "--help").stdout


def test_a_polynomial_is_said_to_be_one(tmp_path: Path):
    result = run("polynomial", "x**2", "--degree", 4, "--plot", tmp_path / "p.svg")
    assert result.exit_code == 0, result.stderr
    assert "x**2 is itself a polynomial of degree 4 at most" in result.stdout
    assert "distance from these is 0" in result.stdout
    assert "no distance can be proved" not in result.stdout
    assert "closer than" not in (tmp_path / "p.svg").read_text(encoding="utf-8")
    close = run("polynomial", "exp(x)", "--degree", 40)
    assert "no distance can be proved" in close.stdout


def test_depth_is_shown_with_units_that_fewer_cannot_do_with(tmp_path: Path):
    result = run("depth", "--folds", 5, "--plot", tmp_path / "d.svg")
    assert result.exit_code == 0, result.stderr
    assert "one hidden layer needs at least 31 units" in result.stdout
    assert "both are the sawtooth, exactly" in result.stdout
    assert ">32<" in (tmp_path / "d.svg").read_text(encoding="utf-8")
    facts = json.loads(run("depth", "--json").stdout)
    assert (facts["deep_units"], facts["units_at_least"]["1"]) == (12, 63)


def test_printed_bounds_are_rounded_the_safe_way():
    rng = np.random.default_rng(0)
    for value in np.exp(rng.uniform(-40, 5, 300)).tolist():
        assert float(rounded_down(value)) <= value <= float(rounded_up(value))
        assert float(rounded_up(value)) <= value * 1.002


def test_a_third_feature_makes_the_exclusive_or_separable(tmp_path: Path):
    result = run("features", "--plot", tmp_path / "f.svg")
    assert result.exit_code == 0, result.stderr
    assert "One linear unit of the features x1, x2, x1*x2 computes x1 xor x2." in result.stdout
    assert "x = (1, 1): features (1, 1, 1), sum -1, class 0" in result.stdout
    assert "x1*x2" in (tmp_path / "f.svg").read_text(encoding="utf-8")
    facts = json.loads(run("features", "x1, x2", "--json").stdout)
    assert (facts["separable"], facts["point"], facts["verified"]) == (False, ["1/2", "1/2"], True)
    parity = run("features", "x1+x2+x3, (x1+x2+x3)**2, x1*x2*x3").stdout
    assert "computes the parity of x1 … x3" in parity


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["approximate", "sin(y)"], "got 'y'"),
        (["approximate", "x.__class__"], "got 'x.__class__'"),
        (["approximate", "9**9**9"], "whole number from -1000 to 1000"),
        (["approximate", "x", "--box", "1:0"], "low < high"),
        (["approximate", "x", "--box", "0"], "expected --box as LOW:HIGH"),
        (["approximate", "x", "--box", "0:inf"], "low < high"),
        (["approximate", "x", "--tolerance", "0"], "tolerance"),
        (["approximate", "log(x)", "--box=-1:1"], "to be defined"),
        (["approximate", "x4"], "at most 3 dimensions"),
        (["approximate", "x", "--plot", "a.txt"], ".png, .svg or .pdf"),
        (["approximate", "x", "--out", "/no/such/folder/a"], "no folder"),
        (["approximate", "x", "--learn", "0"], "n_seeds"),
        (["polynomial", "x", "--degree", "99"], "at most 40"),
        (["polynomial", "x1*x2"], "a function of x alone"),
        (["depth", "--folds", "40"], "at most 16"),
        (["features", "x1, x9"], "at most 8 variables"),
        (["features", "sin(x1)"], "expected a rational formula"),
        (["features", "x1, x2", "--plot", "a.png"], "three features that separate"),
    ],
)
def test_mistakes_are_one_sentence(args: list[str], says: str):
    result = run(*args)
    assert result.exit_code == 2, result.stdout
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""

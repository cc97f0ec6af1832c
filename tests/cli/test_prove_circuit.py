"""lamina prove circuit and collapse: claims, evidence, pictures, and mistakes in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import lamina
from lamina import theory
from lamina.cli.main import cli


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["prove", *(str(a) for a in args)])


def test_xor_is_proved_with_every_unit_at_every_input():
    result = run("circuit", "(a | b) & ~(a & b)")
    assert result.exit_code == 0, result.stderr
    for line in (
        "A network of 2 hidden step units in 1 layer computes (a | b) & ~(a & b): "
        "right at all 4 inputs.",
        "  h1 = [a + b - 1.5 > 0]",
        "  h2 = [a + b - 0.5 > 0]",
        "  y = [h2 - h1 - 0.5 > 0]",
        "  1  1   1   1  0",
        "Check by hand",
    ):
        assert line in result.stdout


def test_machines_get_weights_and_what_was_verified():
    result = json.loads(run("circuit", "a & (b | c)", "--json", "--input", "101").stdout)
    assert result["units"] == [
        {"name": "y", "layer": 1, "weights": {"a": 2, "b": 1, "c": 1}, "bias": -2.5}
    ]
    assert result["verified"]["exhaustive"] is True
    assert result["verified"]["n_inputs"] == 8
    assert result["trace"][-1].endswith("-> 1")


def test_the_fewest_units_come_with_a_proof():
    result = run("circuit", "a ^ b ^ c", "--minimal")
    assert result.exit_code == 0, result.stderr
    assert (
        "A network of 3 hidden step units in 1 layer, and no fewer in one layer," in result.stdout
    )
    assert "two are not enough: no two of the 104 threshold functions" in result.stdout
    assert run("circuit", "a & b & c & d & e", "--minimal").exit_code == 2


def test_the_function_is_read_out_of_a_model(tmp_path: Path):
    path = tmp_path / "xor.lamina"
    theory.circuit("(a | b) & ~(a & b)").network.save(path)
    result = run("circuit", path)
    assert result.exit_code == 0, result.stderr
    assert "  y = x1 ^ x2" in result.stdout
    assert json.loads(run("circuit", path, "--json").stdout)["formulas"] == {"y": "x1 ^ x2"}
    assert run("circuit", path, "--plot", tmp_path / "a.png").exit_code == 2
    lamina.Network(2, (3,), 1, rng=0).save(path)
    assert "expected outputs of 0 and 1" in run("circuit", path).stderr


def test_a_picture_is_drawn(tmp_path: Path):
    result = run("circuit", "a ^ b ^ c", "--plot", tmp_path / "xor.svg")
    assert result.exit_code == 0, result.stderr
    text = (tmp_path / "xor.svg").read_text(encoding="utf-8")
    assert all(f">{label}<" in text for label in ("a", "h1", "2.5", "y", "−1"))


FORTY = " & ".join(f"x{i}" for i in range(40))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["circuit", "a & | b"], "character 5"),
        (["circuit", "a & b", "--input", "011"], "2 digits 0 or 1"),
        (["circuit", FORTY, "--exhaustive"], "at most 20 variables"),
        (["circuit", "a", "--plot", "a.txt"], ".png, .svg or .pdf"),
        (["collapse", "none.lamina"], "none.lamina"),
    ],
)
def test_mistakes_are_one_sentence(args: list[str], says: str):
    result = run(*args)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_deep_linear_network_is_shown_to_be_one_matrix(tmp_path: Path):
    path, out, picture = (tmp_path / name for name in ("deep.lamina", "flat.lamina", "a.png"))
    net = lamina.Network(3, (20, 20), 2, activation="identity", rng=0)
    net.save(path)
    result = run("collapse", path, "--out", out, "--plot", picture)
    assert result.exit_code == 0, result.stderr
    assert "This network of 3 layers is one matrix and a bias." in result.stdout
    assert lamina.load(out).spec.widths == ()
    assert picture.read_bytes().startswith(b"\x89PNG")
    facts = json.loads(run("collapse", path, "--json").stdout)
    assert facts["folded"] == [1, 2]
    assert facts["largest_difference"] < 1e-5 * facts["largest_output"]


def test_a_file_without_a_single_network_is_refused(tmp_path: Path):
    ensemble = lamina.Ensemble([lamina.Network(2, (3,), 1, rng=i) for i in range(2)])
    ensemble.save(tmp_path / "two.lamina")
    result = run("collapse", tmp_path / "two.lamina")
    assert result.exit_code == 2
    assert "something else: Ensemble" in result.stderr


def test_regions_are_counted_in_a_window_and_along_a_line(tmp_path: Path):
    path, picture = tmp_path / "net.lamina", tmp_path / "regions.png"
    net = lamina.Network(2, (3,), 1, rng=0)
    net.weights[0], net.biases[0] = [[1, 0], [0, 1], [1, 1]], [0, 0, -0.5]
    net.save(path)
    result = run("regions", path, "--window", -1, 1, -1, 1, "--plot", picture)
    assert result.exit_code == 0, result.stderr
    assert "This network has 7 activation regions and 7 linear pieces" in result.stdout
    assert "areas sum to 4, exactly" in result.stdout
    assert "Zaslavsky" in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    facts = json.loads(run("regions", path, "--line", "-1,-1", "1,1", "--json").stdout)
    assert facts["exact_breaks"] == ["1/2", "5/8"]
    assert facts["sampled"]["unknown"] == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--window", "1", "1", "0", "1"], "it is empty"),
        (["--at", "x"], "numbers with commas"),
        (["--line", "0,0", "1,1", "--at", "0,0"], "got both"),
        (["--axes", "0", "5"], "from 0 to 1"),
    ],
)
def test_mistaken_windows_are_one_sentence(args: list[str], says: str, tmp_path: Path):
    lamina.Network(2, (3,), 1, rng=0).save(tmp_path / "net.lamina")
    result = run("regions", tmp_path / "net.lamina", *args)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1

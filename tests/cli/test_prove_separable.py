"""lamina prove xor, separable and translation: what they say, and what they refuse."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lamina.cli.main import cli

APART = "a,b,y\n0.1,0.2,no\n0.3,0.1,no\n1,1.5,yes\n2,0.9,yes\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def prove(*args: str, stdin: str | None = None) -> tuple[str, str]:
    """Return what is printed on standard output and on standard error."""
    result = CliRunner().invoke(cli, ["prove", *args], input=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def facts(*args: str, stdin: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(prove(*args, "--json", stdin=stdin)[0])
    assert found["verified"]
    return found


def refused(*args: str) -> str:
    before = sorted(Path().iterdir())
    result = CliRunner().invoke(cli, ["prove", *args])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert re.fullmatch(r"lamina: [^\n]+\n", result.stderr), result.stderr
    assert sorted(Path().iterdir()) == before
    return result.stderr


def test_xor_names_the_common_point_and_how_to_check_it() -> None:
    said, _ = prove("xor")
    assert "1/2·(0, 1) + 1/2·(1, 0) = (0.5, 0.5)" in said
    assert "1/2·(0, 0) + 1/2·(1, 1) = (0.5, 0.5)" in said
    assert said.index("Claim") < said.index("Evidence") < said.index("Check by hand")
    assert "solver: yes" in said
    found = facts("xor")
    assert found["positive_mix"] == found["negative_mix"] == found["point"] == ["1/2", "1/2"]


def test_translation_counts_pixels_and_trains_a_network() -> None:
    said, _ = prove("translation")
    assert said.count("■") == 8
    assert "32 of 32 right" in said
    found = facts("translation")
    assert found["mean_a"] == found["mean_b"] == ["1/4"] * 16
    feature = found["autocorrelation"]
    w, b = [Fraction(v) for v in feature["weights"]], Fraction(feature["bias"])
    for name, sign in (("a", 1), ("b", -1)):
        pattern = found[name]
        pairs = [sum(pattern[i] * pattern[i - k] for i in range(16)) for k in range(9)]
        assert sign * (sum(u * v for u, v in zip(w, pairs, strict=True)) + b) > 0


@pytest.mark.parametrize("verb", ["xor", "translation"])
def test_the_classic_examples_take_under_two_seconds(verb: str) -> None:
    def seconds() -> float:  # of the processor: other tests may keep this one waiting
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "lamina.cli", "prove", verb], check=True, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(2)) < 2.0


def test_two_classes_apart() -> None:
    Path("t.csv").write_text(APART)
    said, _ = prove("separable", "t.csv", "--target", "y", "--max-margin")
    assert "No hidden layer is needed: one linear unit tells y = yes from y = no" in said
    assert "f = 100/91·b + 60/91·a − 17/13" in said
    assert "the largest there is" in said
    found = facts("separable", "t.csv", "--target", "y")
    w, b = [Fraction(v) for v in found["weights"]], Fraction(found["bias"])
    for line in APART.splitlines()[1:]:
        *row, label = line.split(",")
        value = sum(u * Fraction(v) for u, v in zip(w, row, strict=True)) + b
        assert (value > 0) == (label == "yes")


def test_two_classes_mixed_name_the_rows_and_a_point() -> None:
    Path("t.csv").write_text("x1,x2,y\n0,0,0\n0,1,1\n1,0,1\n1,1,0\n")
    said, _ = prove("separable", "t.csv", "--target", "y")
    assert "A hidden layer, or another feature, is needed" in said
    assert said.count("weight 0.5") == 4
    found = facts("separable", "t.csv", "--target", "y")
    assert [(m["row"], m["class"]) for m in found["mix"]] == [
        (2, "1"),
        (3, "1"),
        (1, "0"),
        (4, "0"),
    ]
    assert found["point"] == ["1/2", "1/2"]


def test_text_is_decimal_where_floats_would_tie() -> None:
    text = "x,y\n0.30000000000000000001,b\n0.3,a\n"
    Path("t.csv").write_text(text)
    Path("t.tsv").write_text(text.replace(",", "\t"))
    for source in ("t.csv", "t.tsv"):
        assert facts("separable", source, "--target", "y")["separable"]
    assert facts("separable", "-", "--target", "y", stdin=text)["separable"]
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"x": [0.3, 0.1 + 0.2], "y": ["a", "b"]}), "t.parquet")
    assert facts("separable", "t.parquet", "--target", "y")["separable"]  # 2**-54 apart


def test_what_is_no_number_becomes_one_or_is_left_out_and_said() -> None:
    Path("t.csv").write_text(
        "size,city,seen,ok,y\n1,Oslo,2024-01-01,true,0\n2,Rome,2024-01-02,false,0\n"
        "3,Oslo,2024-01-03,true,1\n,Rome,2024-01-03,true,1\n4,Oslo,2024-01-09,true,\n"
    )
    said, notes = prove("separable", "t.csv", "--target", "y")
    assert "3 rows, 5 columns" in said
    assert "column 'city' holds categories" in notes
    assert "column 'seen' holds dates" in notes
    assert "left out: 2 rows that lack one." in notes
    found = facts("separable", "t.csv", "--target", "y", "--drop", "seen", "--drop", "size")
    assert found["columns"] == ["city=Oslo", "city=Rome", "ok"]
    assert not found["separable"]  # Oslo, true is of both classes
    assert [m["row"] for m in found["mix"]] == [3, 1]


def test_three_classes_get_a_table() -> None:
    Path("t.csv").write_text("x,y\n0,a\n1,b\n2,c\n")
    said, _ = prove("separable", "t.csv", "--target", "y")
    assert "No hidden layer is needed: one linear layer with softmax gives all 3 classes" in said
    assert re.search(r"each against the rest: 2 of 3 separable\n +b +not separable: 3 rows", said)
    assert "pairs: 3 of 3 separable" in said
    found = facts("separable", "t.csv", "--target", "y")
    assert found["rest"]["a"]["separable"]
    assert not found["rest"]["b"]["separable"]
    outputs = np.outer(range(3), [float(Fraction(w)) for (w,) in found["argmax"]["weights"]])
    outputs += [float(Fraction(b)) for b in found["argmax"]["biases"]]
    assert outputs.argmax(axis=1).tolist() == [0, 1, 2]
    assert [(p["negative"], p["positive"]) for p in found["pairs"]] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_a_picture_is_drawn(form: str) -> None:
    Path("t.csv").write_text(APART)
    said, _ = prove("separable", "t.csv", "--target", "y", "--plot", f"t.{form}")
    assert f"drawn in t.{form}" in said
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[form]
    assert Path(f"t.{form}").read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("a,y\n0,0\n1,1\n2,0\n", "convex hulls"),
        ("a,b,c,y\n0,0,0,0\n1,1,2,1\n2,2,4,0\n", "principal direction"),
        ("a,b,c,y\n0,0,0,0\n1,1,2,1\n", "signed distance"),
        ("a,b,y\n0,0,u\n1,1,v\n2,2,w\n", "not separable"),
    ],
)
def test_every_kind_of_answer_has_a_picture(table: str, words: str) -> None:
    Path("t.csv").write_text(table)
    prove("separable", "t.csv", "--target", "y", "--plot", "t.svg")
    assert words in Path("t.svg").read_text(encoding="utf-8")


def test_the_examples_have_pictures() -> None:
    for verb, words in (("xor", "x1 xor x2 = 1"), ("translation", "B and its shifts")):
        prove(verb, "--plot", "p.svg")
        assert words in Path("p.svg").read_text(encoding="utf-8").replace("&#39;", "'")


@pytest.mark.parametrize(
    ("table", "args", "said"),
    [
        (APART, ["--target", "Y"], "Did you mean 'y'?"),
        (APART, ["--target", "y", "--drop", "c"], "expected a column 'c'"),
        (
            APART,
            ["--target", "y", "--drop", "a", "--drop", "b"],
            "besides the target 'y', got none",
        ),
        (APART, ["--target", "y", "--plot", "t.gif"], "end in .png, .svg or .pdf, got 't.gif'"),
        (
            APART,
            ["--target", "y", "--plot", "no/t.png"],
            "no folder 'no'. Choose another place with --plot",
        ),
        ("a,y\n1,no\n1e400,yes\n", ["--target", "y", "--plot", "t.svg"], "that a float64 holds"),
        ("a,y\n1,no\n2,no\n", ["--target", "y"], "expected two classes or more in 'y', got 1"),
        ("a,y\n1,no\n,yes\n", ["--target", "y"], "got 1 in 1 complete rows"),
        ("a,y\ninf,no\n2,yes\n", ["--target", "y"], "finite numbers in column 'a', got 'inf'"),
        ("a,y\n1e99999,no\n2,yes\n", ["--target", "y"], "finite numbers in column 'a'"),
        (
            "a,y\n" + "".join(f"{i},{i / 7}\n" for i in range(60)),
            ["--target", "y"],
            "expected classes in the target 'y', got 60 different numbers",
        ),
        (
            "a,y\n" + "".join(f"n{i},{i % 2}\n" for i in range(120)),
            ["--target", "y"],
            "Leave it out with --drop a.",
        ),
        ("a,y\n", ["--target", "y"], "expected rows, the table has none"),
    ],
)
def test_a_table_that_proves_nothing_is_refused(table: str, args: list[str], said: str) -> None:
    Path("t.csv").write_text(table)
    assert said in refused("separable", "t.csv", *args)


def test_a_missing_file_is_refused() -> None:
    assert "no such file" in refused("separable", "t.csv", "--target", "y")

"""Whatever goes wrong: one sentence, the right exit code, no traceback and no file."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lamina.cli.main import cli
from lamina.core import modelfile
from lamina.core.engine import require_memory
from lamina.core.network import Network

GOOD = "a,b,y\n" + "".join(f"{i},{i * i % 7},{'no' if i < 20 else 'yes'}\n" for i in range(40))

QUICK = ("--preset", "fast", "--max-seconds", "0.1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a good table and its model."""
    monkeypatch.chdir(tmp_path)
    Path("good.csv").write_text(GOOD)
    result = CliRunner().invoke(cli, ["fit", "good.csv", "--target", "y", *QUICK])
    assert result.exit_code == 0, result.output
    return tmp_path


def refused(folder: Path, *args: str, said: str, stdin: str | None = None) -> Result:
    """Run, and hold that it exits 2 with one sentence that contains ``said``, writing nothing."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = CliRunner().invoke(cli, list(args), input=stdin)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert re.fullmatch(r"lamina: [^\n]+\n", result.stderr), result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return result


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["fitt"], "No such command 'fitt'"),
        (["fit"], "Missing argument 'TABLE...'"),
        (["fit", "good.csv"], "Missing option '--target'"),
        (["fit", "good.csv", "--target", "y", "--colour", "red"], "No such option"),
        (["fit", "good.csv", "--target", "y", "--preset", "slow"], "'slow' is not one of"),
        (["fit", "good.csv", "--target", "y", "--test-size", "1"], "0.0<=x<=0.9"),
        (["fit", "good.csv", "--target", "y", "--test-size", "nan"], "nan"),
        (["fit", "good.csv", "--target", "y", "--max-seconds", "0"], "x>0"),
        (["fit", "good.csv", "--target", "y", "--seed", "-1"], "x<="),
        (["fit", "good.csv", "--target", "y", "--task", "guess"], "'guess'"),
        (["show", "good.lamina", "more"], "unexpected extra argument"),
    ],
)
def test_a_wrong_call(args: list[str], said: str, folder: Path) -> None:
    assert "lamina" in refused(folder, *args, said=said).stderr.partition("See: ")[2]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["fit", "absent.csv", "--target", "y"], "absent.csv: expected a table, there is no such"),
        (["fit", "table", "--target", "y"], "got none"),
        (["fit", ".", "--target", "z"], "expected a column 'z'"),
        (["fit", "good.csv", "--target", "z"], "expected a column 'z', the table has none. It has"),
        (["fit", "good.csv", "--target", "Y"], "Did you mean 'y'?"),
        (
            ["fit", "good.csv", "--target", "y", "--task", "regression"],
            "expected numbers in target",
        ),
        (["fit", "good.csv", "--target", "a", "--task", "classification"], "expected classes"),
        (["fit", "good.csv", "--target", "y", "--out", "no/m.lamina"], "no folder 'no'"),
        (["fit", "good.csv", "--target", "y", "--out", "."], "a folder of that name"),
        (["fit", "good.csv", "--target", "y", "--out", "./good.csv"], "the name of a file to read"),
        (["predict", "good.lamina", "absent.csv"], "there is no such file"),
        (["predict", "absent.lamina", "good.csv"], "expected a model file, got no such file"),
        (["predict", "good.csv", "good.csv"], "expected a lamina model file"),
        (["predict", "good.lamina", "good.csv", "--out", "p.txt"], "end in .csv or .parquet"),
        (["predict", "good.lamina", "good.csv", "--out", "no/p.csv"], "no folder 'no'"),
        (["predict", "good.lamina", "good.csv", "--out", "good.csv"], "a file to read"),
        (["evaluate", "good.lamina", "good.lamina"], "expected a file name that ends in .csv"),
        (["evaluate", "absent.lamina", "good.csv"], "no such file"),
        (["show", "absent.lamina"], "no such file"),
        (["show", "absent.csv"], "expected a table, there is no such file"),
        (["fit", "good.csv", "--target", "y", "--types", "z=drop"], "there is no 'z'. It has"),
        (["fit", "good.csv", "--target", "y", "--types", "A=drop"], "Did you mean 'a'?"),
        (["fit", "good.csv", "--target", "y", "--types", "a"], "such as zip=category,id=drop"),
        (["fit", "good.csv", "--target", "y", "--types", "a=zip"], "expected one of number, cat"),
        (["fit", "good.csv", "--target", "y", "--types", "y=drop"], "that keep the target 'y'"),
        (["fit", "good.csv", "--target", "y", "--types", "a=date"], "neither yyyymmdd nor sec"),
        (
            ["fit", "good.csv", "--target", "y", "--types", "a=boolean"],
            "got numbers such as 2 in row 3",
        ),
    ],
)
def test_a_wrong_name(args: list[str], said: str, folder: Path) -> None:
    refused(folder, *args, said=said)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "an empty CSV file"),
        ("a,y\n", "expected at least one row"),
        ("a,y\n1,2\n3", "expected 2 fields in every row, as in the first, got 1 in row 3"),
        ("y\nno\nyes\n" * 20, "at least one column to learn from"),
        ("a,y\n" + "".join(f"{i},no\n" for i in range(40)), "expected at least two classes"),
        ("a,y\n" + "".join(f"{i},7\n" for i in range(40)), "expected at least two classes"),
        ("a,y\n" + "".join(f"{i},\n" for i in range(40)), "every row is missing its own"),
        (
            "a,y\n" + "".join(f"NaN,{i % 2}\n" for i in range(40)),
            "'a' is left out: constant, it has no value",
        ),
        ("a,y\n" + "".join(f"5,{i % 2}\n" for i in range(40)), "all its values are the same"),
        ("a,y\n" + "".join(f"{i},name {i}\n" for i in range(40)), "that repeat, got 40 different"),
        ("a,y\n" + "".join(f"{i},2020-01-{i + 1:02}\n" for i in range(30)), "got date values"),
        ("a,y\n" + "1,no\n" * 11, "expected at least two classes"),
    ],
)
def test_a_table_that_cannot_be_learnt(table: str, said: str, folder: Path) -> None:
    (folder / "t.csv").write_text(table)
    refused(folder, "fit", "t.csv", "--target", "y", said=said)
    refused(folder, "fit", "-", "--target", "y", said=said, stdin=table)


@pytest.mark.parametrize(
    ("verb", "table", "said"),
    [
        ("predict", "b,y\n1,no\n", "expected the 2 columns seen in fit, missing 'a'"),
        ("evaluate", "A,b,y\n1,2,no\n", "Is 'a' now called 'A'?"),
        (
            "predict",
            "a,b\nx,2\n",
            "expected column 'a' to hold numbers as in fit, got text such as",
        ),
        ("evaluate", "a,b,y\n", "expected at least one row"),
        ("evaluate", "a,b\n1,2\n", "expected a column 'y'"),
        ("evaluate", "a,b,y\n1,2,\n", "every row is missing its own"),
        ("evaluate", "a,b,y\n1,2,maybe\n", "classes seen in fit, 'no', 'yes', got 'maybe'"),
    ],
)
def test_a_table_that_does_not_suit_the_model(
    verb: str, table: str, said: str, folder: Path
) -> None:
    (folder / "t.csv").write_text(table)
    refused(folder, verb, "good.lamina", "t.csv", said=said)


@pytest.mark.filterwarnings("default:.*counts as missing:UserWarning")
def test_a_row_is_named_as_the_file_counts_them(folder: Path) -> None:
    """Rows are predicted some thousands at a time, and evaluated where they have a target."""
    n = 40_000
    lines = [f"{i % 40},{i % 7},no\n" for i in range(n)]
    lines[n - 2] = "1,oops,no\n"
    (folder / "long.csv").write_text("a,b,y\n" + "".join(lines))
    note = "note: column 'b': 1 of 40,000 values is no number and counts as missing, 'oops' in row"
    for verb in (["predict", "--out", "p.csv"], ["evaluate"]):
        result = CliRunner().invoke(cli, [verb[0], "good.lamina", "long.csv", *verb[1:]])
        assert result.exit_code == 0, result.output
        assert result.stderr.replace("evaluate: ", "") == f"{note} {n - 1}.\n"
    (folder / "p.csv").unlink()
    lines[10_000:] = [f"{i % 40},what,{'no' if i % 2 else ''}\n" for i in range(n - 10_000)]
    lines[:9999] = [line.replace("no", "") for line in lines[:9999]]
    (folder / "long.csv").write_text("a,b,y\n" + "".join(lines))
    for verb in ("predict", "evaluate"):
        refused(folder, verb, "good.lamina", "long.csv", said="such as 'what' in row 10001.")


@pytest.mark.parametrize(
    ("table", "target", "said"),
    [
        ("b,c,y\n" + "".join(f"{i * 37 % 60}.5,{i % 7},{i}.5\n" for i in range(59)) + "3,1,inf\n",
         "y", "column 'y': 1 of 60 numbers is infinite and counts as missing, in row 60."),
        ("b,c,y\n" + "".join(f"{i * 37 % 60}.5,{i % 7},{i}.5\n" for i in range(59)) + "3,1,oops\n",
         "y", "column 'y': 1 of 60 values is no number and counts as missing, 'oops' in row 60."),
        ("b,c,y\n" + "".join(f"{i * 37 % 60}.5,{i % 7},{i % 2}\n" for i in range(59))
         + "-inf,1,1\n",
         "y", "column 'b': 1 of 60 numbers is infinite and counts as missing, in row 60."),
    ],
)  # fmt: skip
def test_a_value_that_counts_as_missing_is_told(
    table: str, target: str, said: str, folder: Path
) -> None:
    (folder / "t.csv").write_text(table)
    result = CliRunner().invoke(cli, ["fit", "t.csv", "--target", target, *QUICK])
    assert result.exit_code == 0, result.output
    assert f"note: {said}\n" in result.stderr
    assert ("note: 1 row without a target is left out.\n" in result.stderr) == ("'y'" in said)


def test_a_bad_line_of_json_is_named_as_the_file_counts_them(folder: Path) -> None:
    (folder / "t.jsonl").write_text('{"a": 1, "y": 2}\n{"a": 1,\n')
    refused(folder, "fit", "t.jsonl", "--target", "y", said="object member in row 2. The file")


VERBS_ON_MODELS = [
    ["show", "m.lamina"],
    *([v, "m.lamina", "good.csv"] for v in ("predict", "evaluate")),
]


@pytest.mark.parametrize("args", VERBS_ON_MODELS)
def test_a_damaged_model(args: list[str], folder: Path) -> None:
    data = (folder / "good.lamina").read_bytes()
    for size in (0, 7, 100, len(data) // 2, len(data) - 1):
        (folder / "m.lamina").write_bytes(data[:size])
        refused(folder, *args, said="expected a lamina model file")
    (folder / "m.lamina").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused(folder, *args, said="checksum differs")


@pytest.mark.parametrize("args", VERBS_ON_MODELS)
def test_a_model_of_a_newer_format(
    args: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role, spec, arrays = modelfile.read(folder / "good.lamina")
    with monkeypatch.context() as patch:
        patch.setattr(modelfile, "FORMAT_VERSION", 2)
        modelfile.write(folder / "m.lamina", role, spec, arrays)
    refused(folder, *args, said="pgrade")


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_model_of_another_role(verb: str, folder: Path) -> None:
    Network(2, (3,), 1, rng=0).save(folder / "m.lamina")
    refused(folder, verb, "m.lamina", "good.csv", said="which holds a Network")


@pytest.mark.parametrize("args", VERBS_ON_MODELS)
@pytest.mark.parametrize(
    "change",
    [
        lambda spec, arrays: spec.pop("inputs"),
        lambda spec, arrays: spec.pop("report"),
        lambda spec, arrays: spec.update(network=[]),
        lambda spec, arrays: spec.update(target=3),
        lambda spec, arrays: spec["target"].update(kind="magic"),
        lambda spec, arrays: spec["classes"].update(labels=["a", "b", "c"]),
        lambda spec, arrays: spec["network"].update(output="identity"),
        lambda spec, arrays: arrays.pop("theta"),
        lambda spec, arrays: arrays.update(theta=arrays["theta"][:-1]),
        lambda spec, arrays: arrays.update(theta=arrays["theta"] * np.float32(np.nan)),
        lambda spec, arrays: arrays.pop("inputs.knots"),
    ],
)
def test_a_forged_model(args: list[str], change: object, folder: Path) -> None:
    """Well-formed files whose parts do not fit together are refused, never a bug."""
    role, spec, arrays = modelfile.read(folder / "good.lamina")
    change(spec, arrays)  # type: ignore[operator]
    modelfile.write(folder / "m.lamina", role, spec, arrays)
    refused(folder, *args, said="expected a tabular_classifier whose parts fit together")


def test_a_folder_that_may_not_be_written_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    refused(folder, "fit", "good.csv", "--target", "y", said="that may not be written to")
    args = ("predict", "good.lamina", "good.csv", "--out", "p.csv")
    refused(folder, *args, said="that may not be written to")


def test_a_disk_that_is_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    args = ("predict", "good.lamina", "good.csv", "--out", "p.csv")
    refused(folder, *args, said="No space left on device. Make room there, or choose another")
    result = CliRunner().invoke(cli, ["fit", "good.csv", "--target", "y", "--out", "new.lamina"])
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr
    assert not list(folder.glob("new*")) + list(folder.glob(".lamina-*"))


def test_a_bug_is_said_to_be_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("lamina.tabular.read.read_table", broken)
    monkeypatch.delenv("LAMINA_DEBUG", raising=False)
    result = CliRunner().invoke(cli, ["fit", "good.csv", "--target", "y"])
    assert result.exit_code == 1
    assert re.fullmatch(r"lamina: this is a bug in lamina \(ZeroDiv.*DEBUG=1.*\n", result.stderr)
    monkeypatch.setenv("LAMINA_DEBUG", "1")
    result = CliRunner().invoke(cli, ["fit", "good.csv", "--target", "y"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_too_little_memory_is_no_bug(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("lamina.tabular.read.read_table", hungry)
    refused(folder, "fit", "good.csv", "--target", "y", said="expected more memory")


def test_memory_that_the_engine_could_not_get_is_told_in_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*args: object, **options: object) -> None:
        require_memory(2**60)

    monkeypatch.setattr("lamina.tabular.read.read_table", hungry)
    refused(folder, "fit", "good.csv", "--target", "y", said=f"lamina: expected {2**60:,} bytes")

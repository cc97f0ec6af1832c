"""``lamina fit``: columns to leave out, tables with too little in them, equal files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lamina import TabularClassifier, TabularRegressor, loading
from lamina.cli.main import cli
from lamina.cli.show import ENDINGS
from lamina.tabular.read import read_table


def fit(*args: object) -> Result:
    return CliRunner().invoke(
        cli, ["fit", *map(str, args), "--preset", "fast", "--max-seconds", "0.2"]
    )


def table(folder: Path, n: int, numbers: bool = False) -> Path:
    target = [f"{i * 0.37}" if numbers else "uv"[i % 2] for i in range(n)]
    lines = [f"{i},{i * i % 7},{i % 3},{t}" for i, t in enumerate(target)]
    path = folder / "t.csv"
    path.write_text("\n".join(["key,a,b,y", *lines]) + "\n")
    return path


def test_dropped_columns_are_neither_learnt_from_nor_needed(tmp_path: Path) -> None:
    path, out = table(tmp_path, 80), tmp_path / "m.lamina"
    assert fit(path, "--target", "y", "--out", out, "--drop", "key", "--drop", "b").exit_code == 0
    assert loading.load(out).inputs_.names == ("a",)
    slim = tmp_path / "slim.csv"
    slim.write_text("a\n1\n2\n")
    done = CliRunner().invoke(cli, ["predict", str(out), str(slim)])
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("drop", "said"),
    [
        (["kye"], "fit --drop: expected a column 'kye', the table has none. Did you mean 'key'?"),
        (["y"], "expected --drop to name other columns than the target, got 'y'."),
        (["a", "b", "key"], "at least one column to learn from, got the target alone ('y'). Add"),
    ],
)
def test_a_column_that_cannot_be_dropped_is_named(
    tmp_path: Path, drop: list[str], said: str
) -> None:
    options = [part for name in drop for part in ("--drop", name)]
    done = fit(table(tmp_path, 40), "--target", "y", "--out", tmp_path / "m.lamina", *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "m.lamina").exists()


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_a_table_of_a_few_rows_makes_no_model(tmp_path: Path, n: int, numbers: bool) -> None:
    done = fit(table(tmp_path, n, numbers), "--target", "y", "--out", tmp_path / "m.lamina")
    assert done.exit_code == 2
    assert f"expected at least 10 rows with a target, got {n}. Add rows" in done.stderr
    assert not (tmp_path / "m.lamina").exists()


def test_a_score_of_a_few_rows_is_called_chance(tmp_path: Path) -> None:
    done = fit(table(tmp_path, 40), "--target", "y", "--out", tmp_path / "m.lamina")
    assert "note: the test score is of 8 rows only: much of it is chance." in done.stderr
    done = fit(table(tmp_path, 300), "--target", "y", "--out", tmp_path / "m.lamina")
    assert "chance" not in done.stderr


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["u"] * 40, "expected at least two classes in target 'y', got only 'u' in every row."),
        (["7.5"] * 40, "expected target 'y' to vary, got 7.5 in every row. Choose another"),
    ],
)
def test_a_constant_target_is_refused(tmp_path: Path, values: list[str], said: str) -> None:
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(f"{i},{v}\n" for i, v in enumerate(values)))
    done = fit(tmp_path / "t.csv", "--target", "y", "--out", tmp_path / "m.lamina")
    assert done.exit_code == 2
    assert said in done.stderr


def test_equal_fits_make_equal_files(tmp_path: Path) -> None:
    path = table(tmp_path, 80)
    for name in ("one", "two"):
        args = ["fit", str(path), "--target", "y", "--preset", "fast", "--quiet"]
        done = CliRunner().invoke(cli, [*args, "--out", str(tmp_path / f"{name}.lamina")])
        assert done.exit_code == 0, done.stderr
    assert (tmp_path / "one.lamina").read_bytes() == (tmp_path / "two.lamina").read_bytes()


def test_show_speaks_in_words(tmp_path: Path) -> None:
    fit(table(tmp_path, 80), "--target", "y", "--out", tmp_path / "m.lamina")
    shown = CliRunner().invoke(cli, ["show", str(tmp_path / "m.lamina")]).stdout
    training = shown.split("training\n")[1]
    assert "_" not in training
    assert "  n rows" not in training
    assert "ended by" in training
    assert any(end in training for end in ENDINGS.values())
    assert re.search(r"ended by .*\(\d+ members?\)", training)  # not a number of epochs
    assert "out-of-fold accuracy" in training
    lines = [line.split() for line in training.splitlines()]
    assert ["seed", "0"] in lines


MESSY = "id,price,when,zip,y\n" + "".join(
    f'{i},"${1000 + i * 37 % 500:,}.50",{i % 28 + 1}/3/2021,0{i % 5}123,{("no", "yes")[i % 2]}\n'
    for i in range(80)
)


def test_show_tells_what_each_column_is_taken_for(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(MESSY)
    shown = CliRunner().invoke(cli, ["show", str(path)])
    assert shown.exit_code == 0
    uses = {line.split()[0]: line.split()[1] for line in shown.stdout.splitlines()[-5:]}
    expected = {"id": "identifier", "price": "number", "when": "date", "zip": "category"}
    assert uses == {**expected, "y": "category"}
    assert "note: column 'id' is left out: identifier" in shown.stderr
    document = json.loads(CliRunner().invoke(cli, ["show", str(path), "--json"]).stdout)
    assert document["n_rows"] == 80
    assert {c["name"]: c["use"] for c in document["columns"]} == uses


def test_types_given_to_fit_hold_at_predict(tmp_path: Path) -> None:
    path, out = tmp_path / "t.csv", tmp_path / "m.lamina"
    path.write_text(MESSY)
    types = ["--types", "id=number,zip=drop", "--types", "when=category"]
    assert fit(path, "--target", "y", "--out", out, *types).exit_code == 0
    model = loading.load(out)
    kinds = {c.name: c.kind for c in model.inputs_.uses if c.use != "drop"}
    assert kinds == {"id": "number", "price": "number", "when": "text"}
    one = tmp_path / "one.csv"
    one.write_text('id,price,when\n3,"$1,111.50",4/3/2021\n')
    done = CliRunner().invoke(cli, ["predict", str(out), str(one)])
    assert done.exit_code == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    one.write_text("id,price,when\n")
    assert len(CliRunner().invoke(cli, ["predict", str(out), str(one)]).stdout.splitlines()) == 1
    one.write_text("id,price,when\n3,cheap,4/3/2021\n")
    done = CliRunner().invoke(cli, ["predict", str(out), str(one)])
    assert done.exit_code == 2
    assert (
        "expected column 'price' to hold numbers as in fit, got text such as 'cheap' in row 1"
        in (done.stderr)
    )


def test_several_files_and_a_folder_are_one_table(tmp_path: Path) -> None:
    lines = table(tmp_path, 80).read_text().splitlines()
    folder = tmp_path / "parts"
    folder.mkdir()
    for k, part in enumerate((lines[1:31], lines[31:])):
        (folder / f"{k}.csv").write_text("\n".join([lines[0], *part]) + "\n")
    files = [folder / "0.csv", folder / "1.csv"]
    found = []
    for source in ([tmp_path / "t.csv"], files, [folder]):
        out = tmp_path / "m.lamina"
        done = fit(*source, "--target", "y", "--out", out, "--json")
        assert done.exit_code == 0, done.stderr
        report = json.loads(done.stdout)
        found.append(report["training"]["n_rows"] + report["n_test_rows"])
        for verb in ("predict", "evaluate"):
            args = [verb, str(out), *map(str, source)]
            assert CliRunner().invoke(cli, args).exit_code == 0
    assert found == [80, 80, 80]


def test_a_table_too_small_to_divide_is_learnt_whole(tmp_path: Path) -> None:
    done = fit(table(tmp_path, 11), "--target", "y", "--out", tmp_path / "m.lamina")
    assert done.exit_code == 0, done.stderr
    assert "note: all 11 rows are learnt from: they are too few to test on some." in done.stderr
    assert "out-of-fold accuracy" in done.stdout
    assert "test accuracy" not in done.stdout


def test_a_class_of_one_row_is_learnt_and_named(tmp_path: Path) -> None:
    path = table(tmp_path, 80)
    lines = path.read_text().splitlines()
    lines[7] = lines[7].rpartition(",")[0] + ",w"
    path.write_text("\n".join(lines) + "\n")
    done = fit(path, "--target", "y", "--out", tmp_path / "m.lamina")
    assert done.exit_code == 0, done.stderr
    assert "note: class 'w' of target 'y' has one row only, row 7: it is learnt" in done.stderr
    assert loading.load(tmp_path / "m.lamina").classes_.tolist() == ["u", "v", "w"]


def test_columns_all_missing_or_infinite_do_no_harm(tmp_path: Path) -> None:
    lines = [f"{'inf' if i % 9 == 0 else i % 7},,{'uv'[i % 2]}" for i in range(80)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["a,empty,y", *lines]) + "\n")
    out = tmp_path / "m.lamina"
    done = fit(path, "--target", "y", "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "note: column 'empty' is left out: constant, it has no values." in done.stderr
    path.write_text("a,empty\n-inf,3\n2,\n")
    done = CliRunner().invoke(cli, ["predict", str(out), str(path), "--json"])
    p = json.loads(done.stdout)["probabilities"]
    assert all(0 <= value <= 1 for row in p for value in row)


@pytest.mark.parametrize("numbers", [False, True])
def test_a_model_saved_in_python_is_evaluated_by_a_named_column(
    tmp_path: Path, numbers: bool
) -> None:
    path = table(tmp_path, 80, numbers)
    out = tmp_path / "m.lamina"
    est: Any = (TabularRegressor if numbers else TabularClassifier)("fast", max_seconds=0.1)
    rows = read_table(path)
    target = rows.columns["y"]
    y = target.values if numbers else np.array(target.levels)[target.values]
    est.fit(rows.without("y"), y).save(out)
    runner = CliRunner()
    assert runner.invoke(cli, ["predict", str(out), str(path)]).exit_code == 0
    done = runner.invoke(cli, ["evaluate", str(out), str(path)])
    assert done.exit_code == 2
    assert "evaluate: expected --target COLUMN" in done.stderr
    done = runner.invoke(cli, ["evaluate", str(out), str(path), "--target", "y", "--json"])
    scores = json.loads(done.stdout)["scores"]
    expected = est.score(rows.without("y"), y)  # sums may be in another order
    assert scores["r2" if numbers else "accuracy"] == pytest.approx(expected, rel=1e-12)


def test_a_model_of_several_targets_predicts_all_of_them(tmp_path: Path) -> None:
    path = table(tmp_path, 40, numbers=True)
    rows = read_table(path).without("y")
    y = np.stack([np.arange(40.0), np.arange(40.0) ** 2], axis=1)
    est = TabularRegressor("fast", max_seconds=0.1).fit(rows, y)
    est.save(tmp_path / "m.lamina")
    done = CliRunner().invoke(cli, ["predict", str(tmp_path / "m.lamina"), str(path)])
    assert done.stdout.splitlines()[0] == '"prediction_0","prediction_1"'
    args = ["evaluate", str(tmp_path / "m.lamina"), str(path), "--target", "y"]
    done = CliRunner().invoke(cli, args)
    assert done.exit_code == 2
    assert "expected a model of one target" in done.stderr

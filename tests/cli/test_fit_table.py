"""``lamina fit``: columns to leave out, tables with too little in them, equal files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lamina import loading
from lamina.cli.main import cli


def fit(*args: object) -> Result:
    return CliRunner().invoke(cli, ["fit", *map(str, args), "--epochs", "2"])


def table(folder: Path, n: int, numbers: bool = False) -> Path:
    target = [f"{i * 0.37}" if numbers else "uv"[i % 2] for i in range(n)]
    lines = [f"{i},{i * i % 7},{i % 3},{t}" for i, t in enumerate(target)]
    path = folder / "t.csv"
    path.write_text("\n".join(["key,a,b,y", *lines]) + "\n")
    return path


def test_dropped_columns_are_neither_learnt_from_nor_needed(tmp_path: Path) -> None:
    path, out = table(tmp_path, 80), tmp_path / "m.lamina"
    assert fit(path, "--target", "y", "--out", out, "--drop", "key", "--drop", "b").exit_code == 0
    assert loading.load(out).preprocessor.names == ("a",)
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
        (["a", "b", "key"], "at least one column to learn from, got the target alone. Add"),
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
        assert fit(path, "--target", "y", "--out", tmp_path / f"{name}.lamina").exit_code == 0
    assert (tmp_path / "one.lamina").read_bytes() == (tmp_path / "two.lamina").read_bytes()


def test_show_speaks_in_words(tmp_path: Path) -> None:
    fit(table(tmp_path, 80), "--target", "y", "--out", tmp_path / "m.lamina")
    shown = CliRunner().invoke(cli, ["show", str(tmp_path / "m.lamina")]).stdout
    training = shown.split("training\n")[1]
    assert "_" not in training
    assert "  n rows" not in training
    assert "ended by" in training
    assert "the number of epochs" in training


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
    kinds = {e.name: e.kind for e in model.preprocessor.encodings}
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

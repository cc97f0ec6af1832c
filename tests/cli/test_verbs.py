"""The verbs on a real small table: what people see, what machines see, what is in the files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lamina.cli.main import VERBS, cli
from lamina.cli.memories import VERBS as MEMORIES
from lamina.cli.prove import CLAIMS

N = 240
QUICK = ("--preset", "fast", "--max-seconds", 0.1)


def run(*args: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in args], input=stdin)


def succeed(*args: object, stdin: str | None = None) -> Result:
    result = run(*args, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return result


def as_csv(rows: list[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def people(n: int = N) -> list[dict[str, object]]:
    """Rows whose class and number follow from the columns, some values missing."""
    rng = np.random.default_rng(5)
    rows: list[dict[str, object]] = []
    for i in range(n):
        age, city = int(rng.integers(18, 80)), str(rng.choice(["Oslo", "Rome", "Lima"]))
        wage = 100.0 * age + (2000 if city == "Oslo" else 0) + float(rng.normal(0, 30))
        row = {"key": f"id{i}", "age": age, "city": city, "since": f"20{i % 20:02}-01-02"}
        row |= {"band": age // 5, "wage": round(wage, 2), "rich": "yes" if wage > 5500 else "no"}
        if i % 17 == 0:
            row["city"] = ""
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people.csv and a model fitted on it."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "people.csv").write_text(as_csv(people()))
    args = ("fit", folder / "people.csv", "--target", "rich", "--out", folder / "rich.lamina")
    succeed(*args, "--preset", "fast")
    return folder


def test_fit_learns_and_says_so(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.lamina"
    result = succeed("fit", folder / "people.csv", "--target", "rich", "--out", out)
    shown = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert shown["target"].strip() == "rich (classification of 2 classes)"
    assert float(shown["test accuracy"]) > 0.9
    assert shown["written"].strip() == str(out)
    assert out.exists()
    assert "epoch 1/" in result.stderr
    assert "note: column 'key' is left out: identifier, no value appears twice" in result.stderr


def test_fit_json_is_one_document_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.lamina"
    args = ("fit", folder / "people.csv", "--target", "wage", "--out", out, "--json")
    result = succeed(*args)
    report = json.loads(result.stdout)
    assert result.stderr == ""
    assert report["task"] == "regression"
    assert report["test_scores"]["r2"] > 0.9
    assert report["n_test_rows"] == round(N * 0.2)
    assert report["training"]["n_rows"] == N - report["n_test_rows"]
    assert report["out"] == str(out)


def test_fit_quiet_prints_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.lamina"
    result = succeed("fit", folder / "people.csv", "--target", "rich", "--out", out, "--quiet")
    assert result.output == ""
    assert out.exists()


def test_fit_options_are_obeyed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.lamina"
    options = ["--preset", "fast", "--test-size", 0.5, "--seed", 9, "--threads", 1]
    result = succeed(
        "fit", folder / "people.csv", "--target", "band", "--task", "classification", "--json",
        "--out", out, *options,
    )  # fmt: skip
    report = json.loads(result.stdout)
    training = report["training"]
    assert report["task"] == "classification"
    assert (report["preset"], report["seed"], training["n_threads"]) == ("fast", 9, 1)
    assert 0.4 * N <= report["n_test_rows"] <= 0.5 * N
    shown = json.loads(succeed("show", out, "--json").stdout)
    assert shown["parameters"]["preset"] == "fast"
    assert shown["target"] == {"name": "band", "kind": "number", "form": "", "marks": []}


def test_fit_stops_at_max_seconds(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.lamina"
    args = ("fit", folder / "people.csv", "--target", "rich", "--out", out, "--max-seconds", "1e-9")
    assert "stopped by --max-seconds" in succeed(*args).stdout


def test_fit_without_test_rows_shows_the_out_of_fold_score(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.lamina"
    args = ("fit", folder / "people.csv", "--target", "rich", "--out", out, "--test-size", 0)
    result = succeed(*args)
    assert "out-of-fold accuracy" in result.stdout
    assert "test accuracy" not in result.stdout


def test_fit_names_the_model_after_the_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ("--target", "rich", "--preset", "fast", "--max-seconds", 0.1)
    succeed("fit", folder / "people.csv", *quick)
    succeed("fit", "-", *quick, stdin=as_csv(people()))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.lamina", "people.lamina"]


def test_fit_repeats_to_the_bit(folder: Path, tmp_path: Path) -> None:
    theta = []
    for name in ("a.lamina", "b.lamina"):
        out = tmp_path / name
        succeed("fit", folder / "people.csv", "--target", "rich", "--out", out, "--preset", "fast")
        theta.append(succeed("predict", out, folder / "people.csv").stdout)
    assert theta[0] == theta[1]


def test_the_final_score_is_on_rows_that_training_never_saw(folder: Path, tmp_path: Path) -> None:
    from lamina.loading import load
    from lamina.tabular.evaluate import score_rows
    from lamina.tabular.read import read_table
    from lamina.tabular.tabular_classifier import TabularClassifier

    trained_on: list[set[float]] = []
    fit = TabularClassifier.fit

    def spy(self: Any, X: Any, y: Any) -> Any:
        trained_on.append(set(X.columns["wage"].values))
        return fit(self, X, y)

    out = tmp_path / "m.lamina"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TabularClassifier, "fit", spy)
        args = ("fit", folder / "people.csv", "--target", "rich", "--out", out, "--json")
        report = json.loads(succeed(*args, "--preset", "fast").stdout)
    people = read_table(folder / "people.csv")
    seen = np.isin(people.columns["wage"].values, list(trained_on[0]))
    test = np.flatnonzero(~seen)
    assert len(test) == report["n_test_rows"] == round(0.2 * N)
    model = load(out)
    kept, column, rows = model.target_.split(people.take(test), "evaluate")
    assert score_rows(model, kept, column, rows, where="") == report["test_scores"]


def test_codes_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    """The model learnt text ("A" occurs); a later table with digits only must not read numbers."""
    rows = [{"code": ["007", "7", "A"][i % 3], "y": int(i % 3 == 0)} for i in range(300)]
    path, out = tmp_path / "t.csv", tmp_path / "m.lamina"
    path.write_text(as_csv(rows))
    succeed("fit", path, "--target", "y", "--out", out)
    path.write_text("code,y\n007,1\n7,0\n")
    found = json.loads(succeed("predict", out, path, "--json").stdout)
    assert found["predictions"] == [1, 0]
    found = json.loads(succeed("evaluate", out, path, "--json").stdout)
    assert found["scores"]["accuracy"] == 1


def test_rows_without_a_target_are_left_out_with_a_note(tmp_path: Path) -> None:
    rows = people()
    for row in rows[:40]:
        row["rich"] = ""
    path, out = tmp_path / "gaps.csv", tmp_path / "m.lamina"
    path.write_text(as_csv(rows))
    result = succeed("fit", path, "--target", "rich", "--out", out)
    assert "note: 40 rows without a target are left out." in result.stderr
    result = succeed("evaluate", out, path)
    assert "note: 40 rows without a target are left out." in result.stderr
    assert f"rows      {N - 40}" in result.stdout


def test_predict_writes_csv_to_stdout(folder: Path) -> None:
    result = succeed("predict", folder / "rich.lamina", folder / "people.csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert list(rows[0]) == ["prediction", "probability_no", "probability_yes"]
    assert len(rows) == N
    right = [row["prediction"] == want["rich"] for row, want in zip(rows, people(), strict=True)]
    assert np.mean(right) > 0.9
    for row in rows:
        p_no, p_yes = float(row["probability_no"]), float(row["probability_yes"])
        assert p_no + p_yes == pytest.approx(1.0, abs=1e-6)
        assert row["prediction"] == ("yes" if p_yes > p_no else "no")


def test_predict_from_stdin_in_another_column_order_without_the_target(folder: Path) -> None:
    rows = [dict(reversed(row.items())) for row in people()]
    for row in rows:
        del row["rich"]
        row["new"] = "anything"
    given = succeed("predict", folder / "rich.lamina", "-", stdin=as_csv(rows)).stdout
    assert given == succeed("predict", folder / "rich.lamina", folder / "people.csv").stdout


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
def test_predict_writes_files(name: str, folder: Path, tmp_path: Path) -> None:
    from lamina.tabular.read import read_table

    out = tmp_path / name
    args = ("predict", folder / "rich.lamina", folder / "people.csv", "--out", out)
    assert succeed(*args).stdout == f"{N} predictions written to {out}\n"
    table = read_table(out)
    assert table.names == ("prediction", "probability_no", "probability_yes")
    assert table.n_rows == N
    assert json.loads(succeed(*args, "--json").stdout)["n_rows"] == N


def test_predict_json(folder: Path) -> None:
    args = ("predict", folder / "rich.lamina", folder / "people.csv")
    document = json.loads(succeed(*args, "--json").stdout)
    rows = list(csv.DictReader(io.StringIO(succeed(*args).stdout)))
    assert document["classes"] == ["no", "yes"]
    assert document["predictions"] == [row["prediction"] for row in rows]
    assert len(document["probabilities"]) == N


def test_predictions_have_the_type_of_the_target(folder: Path, tmp_path: Path) -> None:
    rows = people()
    for row in rows:
        row["digit"], row["flag"] = int(row["rich"] == "yes") + 3, row["rich"] == "yes"
    path, out = tmp_path / "t.csv", tmp_path / "m.lamina"
    path.write_text(as_csv(rows))
    for target, values in (("digit", {3, 4}), ("flag", {True, False}), ("rich", {"yes", "no"})):
        succeed("fit", path, "--target", target, "--out", out, *QUICK)
        found = json.loads(succeed("predict", out, path, "--json").stdout)
        assert set(found["classes"]) == values
        assert {type(v) for v in found["classes"]} == {type(v) for v in values}
    succeed("fit", path, "--target", "wage", "--out", out, *QUICK)
    found = json.loads(succeed("predict", out, path, "--json").stdout)
    assert "classes" not in found
    assert isinstance(found["predictions"][0], float)


def test_evaluate_agrees_with_the_predictions(folder: Path) -> None:
    args = (folder / "rich.lamina", folder / "people.csv")
    report = json.loads(succeed("evaluate", *args, "--json").stdout)
    rows = csv.DictReader(io.StringIO(succeed("predict", *args).stdout))
    right = [row["prediction"] == want["rich"] for row, want in zip(rows, people(), strict=True)]
    assert report["scores"]["accuracy"] == pytest.approx(np.mean(right))
    assert report["n_rows"] == N
    shown = succeed("evaluate", *args).stdout
    assert f"accuracy  {np.mean(right):.4f}" in shown


def test_show_tells_what_is_inside(folder: Path) -> None:
    shown = succeed("show", folder / "rich.lamina").stdout
    for text in ("tabular classifier", "rich, classes no, yes", "age", "since", "date"):
        assert text in shown
    assert "3 different values in 225 rows" in shown
    document = json.loads(succeed("show", folder / "rich.lamina", "--json").stdout)
    assert document["role"] == "tabular_classifier"
    columns = [c["name"] for c in document["inputs"]["uses"]["columns"]]
    assert columns == ["key", "age", "city", "since", "band", "wage"]


def test_show_of_a_plain_network(tmp_path: Path) -> None:
    from lamina.core.network import Network

    Network(3, (5,), 2, output="softmax", rng=0).save(tmp_path / "net.lamina")
    shown = succeed("show", tmp_path / "net.lamina").stdout
    assert "role     network" in shown
    assert "1  3 -> 5  relu" in shown
    assert "2  5 -> 2  softmax" in shown
    document = json.loads(succeed("show", tmp_path / "net.lamina", "--json").stdout)
    assert document["arrays"] == {"theta": [32]}


def test_info_for_people_and_machines() -> None:
    import lamina

    assert succeed("info").stdout.split()[:2] == ["version", lamina.__version__]
    assert json.loads(succeed("info", "--json").stdout)["n_threads"] >= 1


def test_version_and_help() -> None:
    import lamina

    assert succeed("--version").stdout == f"lamina {lamina.__version__}\n"
    listed = succeed("--help").stdout
    for verb in VERBS:
        assert f"  {verb} " in listed
        text = succeed(verb, "--help").stdout
        assert f"Example: lamina {verb}" in text
        assert "--json" in text or verb in ("prove", "memories")  # groups, whose verbs have it
    for verb in MEMORIES:
        text = succeed("memories", verb, "--help").stdout
        assert f"Example: lamina memories {verb}" in text
        assert "--json" in text or verb == "browse"
    for claim in CLAIMS:
        text = succeed("prove", claim, "--help").stdout
        assert f"Example: lamina prove {claim}" in text
        assert "--json" in text
        assert "--plot" in text
    assert "..." not in listed.partition("Commands:")[2]  # no sentence is cut short


def test_names_from_files_do_not_steer_the_terminal(tmp_path: Path) -> None:
    rows = [{"\x1b[31mred": i, "y": i % 2, "k": f"{i}\x07"} for i in range(40)]
    path, out = tmp_path / "t.csv", tmp_path / "m.lamina"
    path.write_text(as_csv(rows))
    shown = succeed("fit", path, "--target", "y", "--out", out, *QUICK).output
    shown += succeed("show", out).output
    assert "\x1b" not in shown
    assert r"\x1b[31mred" in shown

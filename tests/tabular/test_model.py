"""Table models: learnt, saved, loaded and used; rows kept apart; batches that do not matter."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

from lamina.core import modelfile
from lamina.core.errors import DataError
from lamina.core.history import EpochReport
from lamina.tabular import model as module
from lamina.tabular.model import TableModel, batch_size, fit, most_epochs, split_rows
from lamina.tabular.read import read_table
from lamina.tabular.table import Column, Table

ADULT = Path(__file__).parents[2] / "examples" / "data" / "adult.parquet"


def number(name: str, values: np.ndarray) -> Column:
    return Column(name, "number", np.asarray(values, dtype=np.float64))


def text(name: str, codes: np.ndarray, *levels: str) -> Column:
    return Column(name, "text", np.asarray(codes, dtype=np.int32), levels)


def table(*columns: Column) -> Table:
    return Table({c.name: c for c in columns}, len(columns[0].values))


@pytest.fixture(scope="module")
def rows() -> Table:
    rng = np.random.default_rng(3)
    x, c = rng.normal(size=600), rng.integers(0, 3, 600)
    x[::13] = np.nan
    y = np.nan_to_num(x) + c
    return table(
        number("x", x),
        text("c", c, "p", "q", "r"),
        number("y", 1000 + 50 * y),
        text("big", y > 1, "no", "yes"),
    )


@pytest.fixture(scope="module")
def classes(rows: Table) -> TableModel:
    return fit(rows.without("y"), "big", max_epochs=15)


@pytest.fixture(scope="module")
def numbers(rows: Table) -> TableModel:
    return fit(rows.without("big"), "y", max_epochs=15)


def test_classification_learns(classes: TableModel, rows: Table) -> None:
    scores, n_left_out = classes.evaluate(rows)
    assert scores["accuracy"] > 0.93
    assert scores["auc"] > 0.97
    assert n_left_out == 0
    p = classes.predict_proba(rows)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    expected = np.where(p[:, 1] > p[:, 0], "yes", "no")
    assert classes.predict(rows).tolist() == expected.tolist()


def test_regression_learns_in_the_targets_unit(numbers: TableModel, rows: Table) -> None:
    scores, _ = numbers.evaluate(rows)
    assert scores["r2"] > 0.97
    y = rows.columns["y"].values
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean((numbers.predict(rows) - y) ** 2)))
    with pytest.raises(DataError, match="got regression"):
        numbers.predict_proba(rows)


def test_summary_counts_every_row_once(rows: Table) -> None:
    values = rows.columns["y"].values.copy()
    values[:50] = np.nan
    values[50] = np.inf
    seen: list[EpochReport] = []
    gaps = table(rows.columns["x"], rows.columns["c"], number("y", values))
    summary = fit(gaps, "y", max_epochs=3, on_epoch=seen.append).summary
    assert (summary["n_rows"], summary["n_rows_left_out"]) == (549, 51)
    assert summary["n_validation"] == 55
    assert summary["epochs"] == len(seen) == 3


@pytest.mark.parametrize("name", ["classes", "numbers"])
def test_save_and_load_to_the_bit(
    name: str, rows: Table, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model: TableModel = request.getfixturevalue(name)
    model.save(tmp_path / "m.lamina")
    role, spec, arrays = modelfile.read(tmp_path / "m.lamina")
    assert role == "table_model"
    for loaded in (
        TableModel.from_file_parts(spec, arrays),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ):
        np.testing.assert_array_equal(loaded.output(rows), model.output(rows))
        assert loaded.target == model.target
        assert loaded.summary == model.summary
        assert loaded.preprocessor.encodings == model.preprocessor.encodings


def test_lamina_load_opens_a_table_model(classes: TableModel, rows: Table, tmp_path: Path) -> None:
    import lamina

    classes.save(tmp_path / "m.lamina")
    loaded = lamina.load(tmp_path / "m.lamina")
    assert isinstance(loaded, TableModel)
    np.testing.assert_array_equal(loaded.output(rows), classes.output(rows))


def test_the_seed_decides(rows: Table, classes: TableModel) -> None:
    again = fit(rows.without("y"), "big", max_epochs=15)
    other = fit(rows.without("y"), "big", max_epochs=15, rng=1)
    np.testing.assert_array_equal(again.network.theta, classes.network.theta)
    assert not np.array_equal(other.network.theta, classes.network.theta)


def test_output_does_not_depend_on_the_batch(
    classes: TableModel, rows: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = classes.output(rows)
    monkeypatch.setattr(module, "BATCH_ROWS", 7)
    np.testing.assert_array_equal(classes.output(rows), whole)
    one = classes.output(rows.take(slice(5, 6)))
    np.testing.assert_array_equal(one, whole[5:6])


def test_the_target_is_never_an_input(classes: TableModel, rows: Table) -> None:
    assert classes.preprocessor.names == ("x", "c")
    shuffled = rows.columns["big"].take(np.random.default_rng(0).permutation(rows.n_rows))
    other = Table({**rows.columns, "big": shuffled}, rows.n_rows)
    np.testing.assert_array_equal(classes.output(other), classes.output(rows))


def test_split_keeps_every_class_its_share() -> None:
    codes = np.repeat([0, 1, 2, 3], [500, 100, 10, 1])
    column = text("y", np.random.default_rng(0).permutation(codes), "a", "b", "c", "d")
    held = split_rows(column, "classification", 0.2, np.random.default_rng(1))
    assert np.bincount(column.values[held], minlength=4).tolist() == [100, 20, 2, 0]
    other = split_rows(column, "classification", 0.2, np.random.default_rng(2))
    assert not np.array_equal(held, other)


@pytest.mark.parametrize(("n", "n_held"), [(1, 0), (2, 0), (3, 1), (100, 20), (101, 20)])
def test_split_of_numbers(n: int, n_held: int) -> None:
    held = split_rows(number("y", np.arange(n)), "regression", 0.2, np.random.default_rng(0))
    assert held.sum() == n_held


def test_split_leaves_a_row_of_every_class() -> None:
    column = text("y", np.array([0, 0, 1, 1, 2]), "a", "b", "c")
    held = split_rows(column, "classification", 0.9, np.random.default_rng(0))
    assert set(column.values[~held]) == {0, 1, 2}


@pytest.mark.parametrize("n", [2, 3, 5, 11])
def test_tiny_tables_fit(n: int) -> None:
    model = fit(table(number("x", np.arange(n)), text("y", np.arange(n) % 2, "a", "b")), "y")
    assert set(model.predict(table(number("x", np.arange(n))))) <= {"a", "b"}


def test_sizes_follow_the_number_of_rows() -> None:
    assert [batch_size(n) for n in (2, 1000, 5000, 10**6)] == [16, 16, 128, 256]
    assert [most_epochs(n) for n in (2, 25_000, 40_000, 10**7)] == [40, 40, 25, 10]


@pytest.mark.parametrize("seed", [0, 1])
def test_adult_reaches_its_accuracy(seed: int) -> None:
    """The issue's own bar: 0.85 on held-out rows of the census table."""
    adult = read_table(ADULT)
    held = split_rows(
        adult.columns["income"], "classification", 0.2, np.random.default_rng([seed, 1])
    )
    model = fit(adult.take(~held), "income", rng=seed)
    assert model.evaluate(adult.take(held))[0]["accuracy"] >= 0.85

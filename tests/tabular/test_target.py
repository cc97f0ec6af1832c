"""The target: which task it poses, and scores that agree with scikit-learn's."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from lamina.core.errors import DataError, ModelFileError
from lamina.tabular.table import Column
from lamina.tabular.target import Target, area_under_curve, find_task


def number(values: list[float]) -> Column:
    return Column("y", "number", np.array(values, dtype=np.float64))


def text(codes: list[int], *levels: str, kind: str = "text") -> Column:
    return Column("y", kind, np.array(codes, dtype=np.int32), levels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("column", "task"),
    [
        (text([0, 1], "a", "b"), "classification"),
        (text([0, 1], "false", "true", kind="boolean"), "classification"),
        (number([0, 1, 1, 0]), "classification"),
        (number([float(i) for i in range(10)] * 3), "classification"),
        (number([float(i) for i in range(11)] * 3), "regression"),
        (number([0.5, 1.0, 0.5]), "regression"),
    ],
)
def test_the_task_follows_from_the_values(column: Column, task: str) -> None:
    assert find_task(column) == task
    assert Target.fit(column).task == task


def test_classes_are_sorted_and_unused_levels_are_none() -> None:
    assert Target.fit(text([2, 0, 2], "b", "unused", "a")).classes == ("a", "b")
    assert Target.fit(number([10, 9, 10])).classes == ("9", "10")
    assert Target.fit(number([1.5, -1, 1.5]), "classification").classes == ("-1", "1.5")


def test_encode_and_decode_are_inverse() -> None:
    column = text([2, 0, 1, 2], "b", "c", "a")
    target = Target.fit(column)
    y = target.encode(column, "fit")
    assert y.tolist() == [0, 1, 2, 0]
    assert target.decode(np.eye(3, dtype=np.float32)[y]).tolist() == ["a", "b", "c", "a"]
    numbers = number([3.0, 7.5, -2.0])
    target = Target.fit(numbers)
    y = target.encode(numbers, "fit")
    assert y.shape == (3, 1)
    np.testing.assert_allclose(y.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(), 1, rtol=1e-6)
    np.testing.assert_allclose(target.decode(y), numbers.values, rtol=1e-6)


def test_booleans_read_from_numbers() -> None:
    target = Target.fit(text([0, 1, 1], "false", "true", kind="boolean"))
    assert target.encode(number([1, 0]), "evaluate").tolist() == [1, 0]
    assert target.class_values().tolist() == [False, True]


@pytest.mark.parametrize(
    ("column", "task", "said"),
    [
        (text([0, 0], "a"), None, "at least two classes in target 'y', got only 'a'"),
        (number([3, 3]), None, "at least two classes"),
        (number([3.5, 3.5]), None, "to vary, got 3.5 in every row"),
        (text([0, 1], "a", "b"), "regression", "expected numbers in target 'y'"),
        (Column("y", "date", np.zeros(2)), None, "got date values"),
        (Column("y", "date", np.zeros(2)), "regression", "got date values"),
        (text(list(range(30)), *map(str, range(30))), None, "got 30 different values in 30 rows"),
        (number([i + 0.5 for i in range(30)]), "classification", "Use --task regression."),
        (number([1e308, -1e308]), "regression", "within float64's range"),
    ],
)
def test_a_target_that_cannot_be_learnt(column: Column, task: None, said: str) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        Target.fit(column, task)


def test_an_unknown_class_is_named() -> None:
    target = Target.fit(text([0, 1], "a", "b"))
    with pytest.raises(DataError, match=re.escape("seen in fit, 'a', 'b', got 'c'")):
        target.encode(text([0, 1], "a", "c"), "evaluate")
    with pytest.raises(DataError, match="expected target 'y' to hold numbers as in fit"):
        Target.fit(number([0.5, 2])).encode(text([0], "a"), "evaluate")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_area_under_curve_agrees_with_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    positive, score = np.array([r[0] for r in rows]), np.array([r[1] for r in rows]) / 5
    if positive.all() or not positive.any():
        return
    assert area_under_curve(positive, score) == pytest.approx(sk.roc_auc_score(positive, score))


def test_scores_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    target = Target.fit(text([0, 1], "a", "b"))
    y, p = rng.integers(0, 2, 200), rng.random(200)
    output = np.stack([1 - p, p], axis=1)
    assert target.scores(y, output) == pytest.approx(
        {
            "accuracy": sk.accuracy_score(y, p > 0.5),
            "log_loss": sk.log_loss(y, p),
            "auc": sk.roc_auc_score(y, p),
        }
    )
    true, guess = rng.normal(5, 3, 200), rng.normal(5, 3, 200)
    target = Target("y", "number", "regression", mean=5.0, scale=3.0)
    found = target.scores((true[:, None] - 5) / 3, (guess[:, None] - 5) / 3)
    assert found == pytest.approx(
        {
            "r2": sk.r2_score(true, guess),
            "rmse": sk.root_mean_squared_error(true, guess),
            "mae": sk.mean_absolute_error(true, guess),
        }
    )


def test_auc_is_left_out_where_it_is_not_defined() -> None:
    target = Target.fit(text([0, 1], "a", "b"))
    assert "auc" not in target.scores(np.zeros(3, dtype=np.int32), np.full((3, 2), 0.5))


@pytest.mark.parametrize(
    "change",
    [
        {"task": "guess"},
        {"kind": "magic"},
        {"kind": "date"},
        {"classes": []},
        {"classes": ["a", "a"]},
        {"classes": "ab"},
        {"mean": None},
        {"mean": float("inf")},
        {"scale": 0.0},
        {"more": 1},
        {"task": "regression"},
        {"kind": "number"},
        {"kind": "boolean"},
        {"name": 3},
    ],
)
def test_state_survives_json_and_damage_is_refused(change: dict[str, object]) -> None:
    target = Target.fit(text([0, 1], "a", "b"))
    state = json.loads(json.dumps(target.to_json()))
    assert Target.from_json(state) == target
    with pytest.raises(ModelFileError, match="expected the target of a table model"):
        Target.from_json({**state, **change})

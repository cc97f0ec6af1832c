"""Levels as codes, and texts as features: stable, target-free, and the same after a model file."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from lamina.core.errors import ModelFileError
from lamina.tabular.frames import as_table
from lamina.tabular.levels import MOST_BUCKETS, Levels
from lamina.tabular.table import Column
from lamina.tabular.words import N_BUCKETS, TextFeatures


def column(values: list[Any]) -> Column:
    return as_table({"v": values}).columns["v"]


MANY = [f"common{i % 3}" for i in range(60)] + [f"rare{i}" for i in range(40)] + [None]


def test_frequent_levels_have_codes_of_their_own_and_rare_ones_share() -> None:
    levels = Levels.fit(column(MANY))
    assert levels.frequent == ("common0", "common1", "common2")
    assert levels.n_buckets == 7  # sqrt(40)
    codes = levels.codes(column(MANY))
    assert codes[:60].tolist() == [0, 1, 2] * 20
    assert set(codes[60:100].tolist()) == set(range(3, 10))
    assert codes[100] == levels.n_codes - 1 == 10


def test_a_level_has_one_code_wherever_it_stands() -> None:
    levels = Levels.fit(column(MANY))
    codes = levels.codes(column(MANY))
    for row in (0, 65, 99):
        assert levels.codes(column([MANY[row], "new"]))[0] == codes[row]
    new = levels.codes(column([f"new{i}" for i in range(200)]))
    assert set(new.tolist()) == set(range(3, 10))
    assert Levels.from_json(json.loads(json.dumps(levels.to_json()))) == levels


def test_a_column_without_rare_levels_still_has_a_place_for_new_ones() -> None:
    levels = Levels.fit(column(["a", "b"] * 20))
    assert (levels.n_buckets, levels.n_codes) == (1, 4)
    assert levels.codes(column(["c", None, "a"])).tolist() == [2, 3, 0]
    assert Levels.fit(column([f"v{i}" for i in range(10_000)])).n_buckets == MOST_BUCKETS
    assert len(Levels.fit(column([f"v{i % 50}" for i in range(1000)]), most=7).frequent) == 7


@pytest.mark.parametrize(
    "state",
    [
        None,
        {"frequent": ["a"]},
        {"frequent": ["a", "a"], "n_buckets": 1},
        {"frequent": [1], "n_buckets": 1},
        {"frequent": [], "n_buckets": 0},
        {"frequent": [], "n_buckets": 10**9},
    ],
)
def test_forged_levels_are_refused(state: Any) -> None:
    with pytest.raises(ModelFileError, match="load: expected the levels"):
        Levels.from_json(state)


rng = np.random.default_rng(0)
BIRDS = ["gull", "hawk", "goose", "heron", "wing", "feather"]
CARS = ["engine", "wheel", "brake", "road", "tyre"]
TEXTS = [" ".join(rng.choice(words, 5)) for words in (BIRDS, CARS) for _ in range(100)]


def test_texts_about_one_thing_lie_together() -> None:
    features = TextFeatures.fit(column(TEXTS), d=4)
    z = features.transform(column(TEXTS))
    assert z.shape == (200, 6)
    assert z.dtype == np.float32
    np.testing.assert_allclose((z[:, :4] ** 2).mean(axis=0), 1.0, rtol=0.05)
    unseen = features.transform(column(["hawks and geese", "a brake and a wheel"]))[:, :4]
    middle = np.array([z[:100, :4].mean(axis=0), z[100:, :4].mean(axis=0)])
    nearest = ((unseen[:, np.newaxis] - middle) ** 2).sum(axis=2).argmin(axis=1)
    assert nearest.tolist() == [0, 1]


def test_length_and_words_are_counted_and_missing_texts_are_zero() -> None:
    features = TextFeatures.fit(column(TEXTS))
    z = features.transform(column(["two words", None, "", "two words"]))
    np.testing.assert_allclose(z[0, -2:], np.log1p([9, 2]), rtol=1e-6)
    assert (z[1] == 0).all()
    assert (z[0] == z[3]).all()
    none = Column("v", "text", np.array([-1], dtype=np.int32))
    assert (features.transform(none) == np.zeros((1, features.d_out))).all()
    assert features.transform(none.take(slice(0, 0))).shape == (0, features.d_out)


def test_text_features_survive_a_model_file_and_repeat() -> None:
    one, two = TextFeatures.fit(column(TEXTS), rng=3), TextFeatures.fit(column(TEXTS), rng=3)
    np.testing.assert_array_equal(one.components, two.components)
    back = TextFeatures.from_arrays(one.arrays("text.0"), "text.0")
    np.testing.assert_array_equal(back.transform(column(TEXTS)), one.transform(column(TEXTS)))
    for wrong in (
        {},
        {"t.idf": one.idf, "t.components": one.components[:5]},
        {"t.idf": one.idf * np.float32(np.nan), "t.components": one.components},
    ):
        with pytest.raises(ModelFileError, match="load: expected the text features 't'"):
            TextFeatures.from_arrays(wrong, "t")


def test_one_text_alone_has_its_length_only() -> None:
    features = TextFeatures.fit(column(["the same words here"] * 5))
    assert features.components.shape == (N_BUCKETS, 0)
    assert features.transform(column(["other"])).shape == (1, 2)

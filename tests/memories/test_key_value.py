"""A layer built from pairs returns them, and is read back whole."""

from __future__ import annotations

import numpy as np
import pytest

from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.memories import KeyValueMemory


def unit_keys(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    keys = rng.standard_normal((n, d))
    return keys / np.linalg.norm(keys, axis=1, keepdims=True)


def test_a_thousand_pairs_are_retrieved_exactly():
    rng = np.random.default_rng(0)
    keys, values = unit_keys(rng, 1000, 16), rng.standard_normal((1000, 5))
    memory = KeyValueMemory.store(keys, values)
    np.testing.assert_allclose(memory(keys), values, rtol=0, atol=1e-12)
    np.testing.assert_allclose(memory.coefficients(keys), np.eye(1000), rtol=0, atol=1e-12)


def test_a_planted_memory_is_read_back_whole_though_permuted_and_rescaled():
    rng = np.random.default_rng(1)
    keys, values = unit_keys(rng, 1000, 16), rng.standard_normal((1000, 5))
    planted = KeyValueMemory.store(keys, values)
    order, scale = rng.permutation(1000), np.exp(rng.uniform(-3, 3, 1000))
    hidden = KeyValueMemory(
        (planted.keys * scale[:, None])[order],
        (planted.values / scale[:, None])[order],
        thresholds=(planted.thresholds * scale)[order],
    )
    found_keys, found_values = hidden.read_pairs()
    owner = (found_keys @ keys.T).argmax(axis=1)
    np.testing.assert_array_equal(owner, order)
    np.testing.assert_allclose(found_keys, keys[order], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found_values, values[order], rtol=0, atol=1e-11)


def test_the_network_computes_the_memory():
    rng = np.random.default_rng(2)
    memory = KeyValueMemory.store(unit_keys(rng, 30, 8), rng.standard_normal((30, 3)))
    x = rng.standard_normal((20, 8))
    np.testing.assert_allclose(memory.to_network()(x), memory(x), rtol=1e-10, atol=1e-10)


def test_softmax_is_attention_over_the_keys():
    rng = np.random.default_rng(3)
    keys, values = unit_keys(rng, 10, 4), rng.standard_normal((10, 2))
    x = rng.standard_normal((6, 4))
    weights = np.exp(3.0 * x @ keys.T)
    expected = weights @ values / weights.sum(axis=1, keepdims=True)
    memory = KeyValueMemory.store(keys, values, "softmax", beta=3.0)
    np.testing.assert_allclose(memory(x), expected, rtol=1e-12)


def test_one_pair_is_a_memory_too():
    np.testing.assert_allclose(KeyValueMemory.store([[1.0, 0.0]], [[7.0]])([1.0, 0.0]), [[7.0]])


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: KeyValueMemory.store([[2.0, 0.0]], [[1.0]]), DataError, "keys of length 1"),
        (lambda: KeyValueMemory.store([[1.0], [1.0]], [[1.0]] * 2), DataError, "distinct keys"),
        (lambda: KeyValueMemory([[1.0]], [[1.0], [2.0]]), ShapeError, "as many values"),
        (lambda: KeyValueMemory([[np.nan]], [[1.0]]), DataError, "finite keys"),
        (lambda: KeyValueMemory([[1.0]], [[1.0]], "sigmoyd"), SpecError, "'sigmoyd'"),
        (lambda: KeyValueMemory(np.ones((0, 2)), [[1.0]]), ShapeError, "non-empty"),
        (lambda: KeyValueMemory([[1.0]], [[1.0]])([1.0, 2.0]), ShapeError, "queries of 1"),
        (lambda: KeyValueMemory([[1.0]], [[1.0]], "softmax").to_network(), SpecError, "softmax"),
    ],
)
def test_bad_input_gets_one_sentence(make, error, says):
    with pytest.raises(error, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)

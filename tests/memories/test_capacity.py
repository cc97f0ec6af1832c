"""What a memory recalls: of pairs it was trained on, and of ever more of them with noise."""

from __future__ import annotations

import numpy as np
import pytest
from tests.memories.test_key_value import unit_keys

from lamina.core.errors import ShapeError, SpecError
from lamina.memories import KeyValueMemory, measure_capacity, measure_recall


def test_a_trained_memory_recalls_99_percent_of_a_thousand_pairs():
    rng = np.random.default_rng(0)
    keys, values = unit_keys(rng, 1000, 32), rng.standard_normal((1000, 8))
    memory = KeyValueMemory.fit(keys, values, 500, max_epochs=200, n_threads=1)
    assert len(memory) == 501  # with the bias
    assert measure_recall(memory, keys, values) >= 0.99
    # an oracle by SciPy: the nearest value of each answer
    from scipy.spatial import KDTree

    nearest = KDTree(values).query(memory(keys))[1]
    assert measure_recall(memory, keys, values) == np.mean(nearest == np.arange(1000))


def test_recall_falls_with_pairs_and_with_noise():
    quiet = measure_capacity(8, (4, 64, 1024), noise=0.0)
    loud = measure_capacity(8, (4, 64, 1024), noise=0.5)
    assert [c.relu for c in quiet] == [1.0, 1.0, 1.0]
    assert quiet[-1].softmax < 0.5  # attention mixes the neighbours in, even without noise
    assert loud[0].relu > loud[1].relu > loud[2].relu
    sharp = measure_capacity(8, (4, 64, 1024), noise=0.0, beta=1e5)
    assert [c.softmax for c in sharp] == [1.0, 1.0, 1.0]
    assert loud == measure_capacity(8, (4, 64, 1024), noise=0.5)


def test_bad_input_gets_one_sentence():
    with pytest.raises(SpecError, match="d_key >= 2"):
        measure_capacity(1)
    with pytest.raises(ShapeError, match="values of shape"):
        measure_recall(KeyValueMemory.store([[1.0]], [[1.0]]), [[1.0]], [[1.0, 2.0]])

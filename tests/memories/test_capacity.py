"""What a memory recalls: of pairs it was trained on, and of ever more of them with noise."""

from __future__ import annotations

import numpy as np
import pytest
from tests.memories.test_key_value import unit_keys

from lamina.core.errors import ShapeError, SpecError
from lamina.memories import KeyValueMemory, measure_capacity, measure_recall, plot_capacity


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
    assert [c.relu_interference for c in quiet] == pytest.approx([0, 0, 0], abs=1e-6)
    assert loud[0].relu_interference < loud[2].relu_interference
    sharp = measure_capacity(8, (4, 64, 1024), noise=0.0, beta=1e5)
    assert [c.softmax for c in sharp] == [1.0, 1.0, 1.0]
    assert loud == measure_capacity(8, (4, 64, 1024), noise=0.5)


def test_interference_is_the_stray_part_of_answers():
    """Three pairs by hand: the softmax weights of orthogonal keys are e^beta and 1."""
    (found,) = measure_capacity(4096, (3,), noise=0.0, d_value=50, beta=1.0)
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((3, 4096))
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    values = rng.standard_normal((3, 50))
    weights = np.exp(keys @ keys.T)
    answers = weights / weights.sum(1, keepdims=True) @ values
    wanted = np.linalg.norm(answers - values) / np.linalg.norm(values)
    assert found.softmax_interference == pytest.approx(wanted, rel=1e-5)


def test_capacity_is_drawn():
    found = measure_capacity(8, (4, 64, 256), noise=0.5)
    recall, stray = plot_capacity(found).axes
    assert [list(line.get_ydata()) for line in recall.lines] == [
        [c.relu for c in found],
        [c.softmax for c in found],
    ]
    assert list(stray.lines[1].get_ydata()) == [c.softmax_interference for c in found]
    with pytest.raises(SpecError, match="empty list"):
        plot_capacity([])


def test_bad_input_gets_one_sentence():
    with pytest.raises(SpecError, match="d_key >= 2"):
        measure_capacity(1)
    with pytest.raises(ShapeError, match="values of shape"):
        measure_recall(KeyValueMemory.store([[1.0]], [[1.0]]), [[1.0]], [[1.0, 2.0]])

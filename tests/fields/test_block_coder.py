"""The coder of blocks: what goes in comes out, at the size that entropy asks for."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.core.errors import DataError
from lamina.fields import block_coder
from lamina.fields.block_coder import EXTRA_BITS, N_TOKENS, Decoder, Tables, pack_bits, tokens
from lamina.fields.lattice import UNITS, Passage, passages, refine
from lamina.fields.residual import Layout

LANES = 8


def coded(values: np.ndarray, contexts: np.ndarray, n_contexts: int) -> Decoder:
    token, extra = tokens(values)
    counts = np.zeros((n_contexts, N_TOKENS), np.int64)
    np.add.at(counts, (contexts[contexts >= 0], token[contexts >= 0]), 1)
    tables = Tables.of(counts)
    tables.check(n_contexts, "test")
    table = np.where(contexts < 0, 0, tables.which[contexts]).astype(np.uint8)
    words = block_coder.encode(token, table, tables, LANES)
    extras = [pack_bits(e, EXTRA_BITS[t]) for e, t in zip(extra, token, strict=True)]
    return Decoder(words, extras, tables, LANES, "test")


@given(st.lists(st.integers(-(2**40) + 1, 2**40 - 1), min_size=1, max_size=64))
@settings(max_examples=60, deadline=None)
def test_whole_numbers_come_back(numbers: list[int]) -> None:
    values = np.array([numbers + [0] * (-len(numbers) % LANES)], np.int64)
    contexts = (np.arange(values.size) % 3).reshape(1, -1)
    decoder = coded(values, contexts, 3)
    np.testing.assert_array_equal(decoder.read(contexts), values)
    decoder.close()


def test_many_blocks_and_passages_come_back_and_certain_zeros_cost_nothing() -> None:
    rng = np.random.default_rng(0)
    scale = np.array([0.3, 3.0, 200.0])
    contexts = rng.integers(-1, 3, (5, 4000))
    values = np.rint(rng.laplace(size=contexts.shape) * scale[contexts]).astype(np.int64)
    values[contexts < 0] = 0
    decoder = coded(values, contexts, 3)
    parts = [decoder.read(contexts[:, a : a + 800]) for a in range(0, 4000, 800)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), values)
    decoder.close()
    nothing = coded(np.zeros((1, 8000), np.int64), np.full((1, 8000), -1), 1)
    assert len(nothing.words) == 2 * LANES + LANES + 1  # the states, and what pads the end


def test_it_takes_what_entropy_says() -> None:
    rng = np.random.default_rng(1)
    values = np.rint(rng.laplace(size=(1, 80_000)) * 2.0).astype(np.int64)
    decoder = coded(values, np.zeros(values.shape, np.int64), 1)
    _, counts = np.unique(values, return_counts=True)
    share = counts / counts.sum()
    entropy = -float((share * np.log2(share)).sum()) * values.size
    assert entropy <= 16 * len(decoder.words) + 8 * len(decoder.extra) <= 1.01 * entropy + 600


def test_damaged_words_are_noticed() -> None:
    rng = np.random.default_rng(2)
    values = np.rint(rng.laplace(size=(2, 800)) * 4.0).astype(np.int64)
    contexts = np.zeros(values.shape, np.int64)
    for _ in range(20):
        decoder = coded(values, contexts, 1)
        decoder.words[rng.integers(2 * LANES, len(decoder.words) - LANES - 1)] ^= 1 << 7
        with pytest.raises(DataError, match="damaged"):
            (decoder.read(contexts), decoder.close())


def test_each_sample_of_a_lattice_is_predicted_once_from_those_before() -> None:
    dims = (8, 16, 24)
    seen = np.zeros((1, *dims), np.int64)
    seen[:, ::8, ::8, ::8] = 1
    for spacing in (4, 2, 1):
        for passage in passages(dims, spacing, 1):
            got = passage.gather(seen)
            assert not got.any()
            passage.scatter(seen, np.ones_like(got))
    assert (seen == 1).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_predictions_are_those_of_the_polynomial_through_the_neighbours(axis: int) -> None:
    """Exact fractions, of Lagrange's formula."""
    rng = np.random.default_rng(3)
    line = [int(v) for v in rng.integers(-1000, 1000, 9)]

    def lagrange(nodes: list[int], at: Fraction) -> Fraction:
        return sum(
            line[i] * math.prod(((at - j) / (i - j) for j in nodes if j != i), start=Fraction(1))
            for i in nodes
        )

    known = np.zeros((1, 16, 16, 16), np.int64)
    wide = np.moveaxis(known, axis + 1, -1)
    wide[..., ::2] = line[:8]
    found = []

    def answer(passage: Passage, predicted: np.ndarray, context: np.ndarray) -> np.ndarray:
        if passage.n_between == 1 and passage.spacing == 1:
            box = np.zeros((1, 16, 16, 16), np.int64)
            passage.scatter(box, predicted)
            found.append(np.moveaxis(box, axis + 1, -1)[0, 0, 0, 1::2])
        return np.zeros_like(predicted)

    refine(known, (16, 16, 16), [UNITS], answer, smooth=True)
    nodes = [[0, 1, 2], *([i - 1, i, i + 1, i + 2] for i in range(1, 6)), [5, 6, 7], [5, 6, 7]]
    for i, (got, near) in enumerate(zip(found[0].tolist(), nodes, strict=True)):
        assert abs(lagrange(near, Fraction(2 * i + 1, 2)) - got) <= Fraction(1, 2)


@given(st.lists(st.integers(1, 70), min_size=3, max_size=3), st.data())
@settings(max_examples=40, deadline=None)
def test_blocks_tile_every_grid(sizes: list[int], data: st.DataObject) -> None:
    layout = Layout(tuple(sizes), 1)
    count = np.zeros(sizes, np.int64)
    for block in range(layout.n_blocks):
        count[layout.inside(block)] += 1
    assert (count == 1).all()
    box = []
    for n in sizes:
        low = data.draw(st.integers(0, n - 1))
        box.append(slice(low, data.draw(st.integers(low + 1, n))))
    count[...] = 0
    for tile in layout.tiles(tuple(box)):
        count[tile] += 1
    assert (count[tuple(box)] == 1).all()
    assert count.sum() == math.prod(s.stop - s.start for s in box)
    meeting = set(layout.meeting(tuple(box)))
    for block in range(layout.n_blocks):
        inside = layout.inside(block)
        meets = all(
            max(a.start, b.start) < min(a.stop, b.stop) for a, b in zip(box, inside, strict=True)
        )
        assert meets == (block in meeting)

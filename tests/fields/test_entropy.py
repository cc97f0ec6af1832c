"""The entropy coder gives values back, nearly as short as can be, and survives any damage."""

import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lamina.core.errors import DataError
from lamina.fields.byte_reader import ByteReader, varint
from lamina.fields.entropy import decode, encode

FROZEN = "010c01be00b11002b6cf05b2a9fa07808080084147250004ee9b3c8bbd50ff3f07444cf2c6a3"

int32 = arrays(np.int32, st.integers(0, 300), elements=st.integers(-(2**31), 2**31 - 1))
small = arrays(np.int64, st.integers(0, 300), elements=st.integers(-3, 40))


def entropy_bytes(values):
    """Zero-order entropy, in bytes, from its definition."""
    _, counts = np.unique(values, return_counts=True)
    return -float(counts @ np.log2(counts / counts.sum())) / 8


def samples(name, n):
    rng = np.random.default_rng(3)
    return {
        "laplace": np.rint(rng.laplace(2, 1.5, n)),
        "normal": np.rint(rng.normal(-4, 30, n)),
        "mostly zero": np.where(rng.random(n) < 0.8, 0, rng.integers(-3, 4, n)),
        "uniform": rng.integers(0, 256, n),
        "two humps": np.where(rng.random(n) < 0.5, -20, 20) + rng.poisson(3, n),
    }[name].astype(np.int64)


@settings(max_examples=60, deadline=None)
@given(int32 | small)
def test_decoding_gives_every_value_back(values):
    assert np.array_equal(decode(encode(values), len(values)), values)


@pytest.mark.parametrize("n", [1, 2, 2047, 2048, 4095, 4096, 4097, 3 * 2048 + 5])
def test_any_number_of_lanes_gives_values_back(n):
    values = samples("normal", n)
    assert np.array_equal(decode(encode(values), n), values)


@pytest.mark.parametrize("name", ["laplace", "normal", "mostly zero", "uniform", "two humps"])
def test_streams_are_within_two_percent_of_the_entropy(name):
    values = samples(name, 20_000)
    assert len(encode(values)) <= 1.02 * entropy_bytes(values) + 20


def test_few_values_do_not_pay_for_a_table():
    """1,700 weights of some 200 values: their table alone would take 15 % more."""
    values = samples("normal", 1700)
    assert len(encode(values)) <= 1.05 * entropy_bytes(values)


def test_wide_values_take_little_more_than_32_bits():
    values = np.random.default_rng(0).integers(-(2**31), 2**31, 20_000)
    assert len(encode(values)) <= 4.05 * len(values)


def test_values_of_one_kind_take_almost_nothing():
    assert len(encode(np.full(20_000, -7))) < 80


def test_a_frozen_stream_decodes_on_every_machine():
    """Made by the first version: a change of it must not go unnoticed."""
    data = bytes.fromhex(FROZEN)
    assert decode(data, 12).tolist() == [0, 0, 1, -1, 0, 2, 0, 0, -3, 0, 1, 70000]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_changed_byte_is_noticed(data):
    stream = bytearray(encode(samples("laplace", 500)))
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DataError, match=r"entropy\.decode: expected a stream"):
        decode(bytes(stream), 500)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_forged_streams_are_refused_or_give_n_values(data):
    """With a checksum that fits: nothing but DataError, and no more than n values."""
    name = data.draw(st.sampled_from(["laplace", "normal", "two humps"]))
    stream = bytearray(encode(samples(name, 300)))[:-4]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, min(len(stream) - 1, 60)))
        stream[place] = data.draw(st.integers(0, 255))
    forged = bytes(stream[: data.draw(st.integers(0, len(stream)))])
    with suppress(DataError):
        assert len(decode(forged + zlib.crc32(forged).to_bytes(4, "little"), 300)) == 300


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 400))
def test_any_bytes_are_refused_or_give_n_values(raw, n):
    forged = b"\x01" + varint(n) + raw
    with suppress(DataError):
        assert len(decode(forged + zlib.crc32(forged).to_bytes(4, "little"), n)) == n


def test_what_cannot_be_encoded_is_one_sentence():
    with pytest.raises(DataError, match="expected whole numbers, got float64"):
        encode([0.5])
    with pytest.raises(DataError, match="in \\[-2\\^31, 2\\^31\\)"):
        encode([2**31])
    with pytest.raises(DataError, match="another number of values than 3"):
        decode(encode([1, 2]), 3)


@given(st.integers(0, 2**63 - 1))
def test_numbers_in_base_128_come_back(value):
    assert ByteReader(varint(value)).varint() == value

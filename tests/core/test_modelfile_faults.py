"""The model file: every way in which a file can be wrong."""

import json
import os
import pickle
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.core.sample_files import ARRAYS, SPEC, entry, forge

from lamina.core import modelfile
from lamina.core.errors import ModelFileError

in_tmp_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "model.lamina"
    modelfile.write(target, "network", SPEC, ARRAYS)
    return target


# ---------------------------------------------------------------------------------- wrong files


def test_every_changed_bit_is_noticed(path):
    good = path.read_bytes()
    for i in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[i] ^= 1 << bit
            path.write_bytes(bad)
            with pytest.raises(ModelFileError):
                modelfile.read(path)


def test_every_truncation_and_any_tail_is_noticed(path):
    good = path.read_bytes()
    for bad in [*(good[:n] for n in range(len(good))), good + b"\0", good + good]:
        path.write_bytes(bad)
        with pytest.raises(ModelFileError):
            modelfile.read(path)


@in_tmp_path
@given(data=st.data())
def test_any_splice_of_bytes_is_noticed(path, data):
    good = path.read_bytes()
    start = data.draw(st.integers(0, len(good)))
    stop = data.draw(st.integers(start, len(good)))
    bad = good[:start] + data.draw(st.binary(max_size=40)) + good[stop:]
    target = path.parent / "spliced"
    target.write_bytes(bad)
    if bad == good:
        modelfile.read(target)
    else:
        with pytest.raises(ModelFileError):
            modelfile.read(target)


@in_tmp_path
@given(content=st.binary(max_size=300))
def test_random_bytes_are_refused(tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ModelFileError):
        modelfile.read(tmp_path / "m")


@in_tmp_path
@given(data=st.data())
def test_a_forged_header_gives_arrays_or_one_sentence(tmp_path, data):
    sizes = st.integers(-1, 9) | st.sampled_from([2**31, 2**62, 2**63, 2**64, 10**30, 1.0, True])
    tensors = st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__"]),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from([*modelfile._DTYPES, "BF16", "F8_E4M3", 4, None]),
                "shape": st.lists(sizes, max_size=9) | st.none(),
                "data_offsets": st.lists(sizes, max_size=3) | st.integers(),
            }
        )
        | st.none(),
    )
    forge(tmp_path / "m", data.draw(tensors), data=bytes(data.draw(st.integers(0, 16))))
    try:
        _, _, arrays = modelfile.read(tmp_path / "m")
    except ModelFileError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= 16


def test_a_forged_file_that_is_consistent_loads(tmp_path):
    forge(tmp_path / "m", {"a": entry()}, data=b"\0\0\x80?\0\0\0@")
    np.testing.assert_array_equal(modelfile.read(tmp_path / "m")[2]["a"], [1.0, 2.0])


HOSTILE_TENSORS = {
    "a huge shape": {"a": entry(shape=[2**40], offsets=[0, 8])},
    "an overflowing shape": {"a": entry(shape=[2**62, 4], offsets=[0, 0])},
    "too many axes": {"a": entry(shape=[1] * 70 + [2])},
    "a negative axis": {"a": entry(shape=[-1, -2])},
    "a fractional axis": {"a": entry(shape=[2.0])},
    "a true axis": {"a": entry("F64", [True])},
    "negative offsets": {"a": entry(offsets=[-8, 0])},
    "reversed offsets": {"a": entry(offsets=[8, 0])},
    "a gap": {"a": entry(shape=[1], offsets=[4, 8])},
    "an overlap": {"a": entry(), "b": entry()},
    "bytes left over": {"a": entry(shape=[1], offsets=[0, 4])},
    "more than there is": {"a": entry(shape=[4], offsets=[0, 16])},
    "an unknown dtype": {"a": entry("BF16", [4])},
    "a dtype that is a list": {"a": {**entry(), "dtype": []}},
    "an unknown field": {"a": {**entry(), "extra": 1}},
    "a missing field": {"a": {"dtype": "F32", "shape": [2]}},
    "a number for a tensor": {"a": 3},
    "neither true nor false": {"a": entry("BOOL", [8])},
    "the same name twice": f'{{METADATA,"a":{json.dumps(entry())},"a":{json.dumps(entry())}}}',
    "the same field twice": '{METADATA,"a":{"dtype":"F32","dtype":"F32","shape":[2],'
    '"data_offsets":[0,8]}}',
    "metadata twice": f'{{METADATA,METADATA,"a":{json.dumps(entry())}}}',
    "NaN": '{METADATA,"a":NaN}',
    "an infinite number": '{METADATA,"a":1e999}',
    "a number of a million digits": '{METADATA,"a":' + "1" * 1_000_000 + "}",
    "endless nesting": '{METADATA,"a":' + "[" * 1_000_000,
    "closed endless nesting": '{METADATA,"a":' + "[" * 100_000 + "]" * 100_000 + "}",
    "nested objects": '{METADATA,"a":' + '{"a":' * 100_000 + "1" + "}" * 100_001,
    "a list": "[1]",
    "no JSON": "{",
    "an empty header": "",
    "bad UTF-8": b'{"\xff":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
}


@pytest.mark.parametrize("tensors", HOSTILE_TENSORS.values(), ids=HOSTILE_TENSORS)
def test_a_hostile_header_is_refused(tmp_path, tensors):
    forge(tmp_path / "m", tensors, data=b"\x02" * 8)
    with pytest.raises(ModelFileError, match=r"^load .*: expected .*, got .*\. Give") as caught:
        modelfile.read(tmp_path / "m")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_huge_shape_with_an_axis_of_0_is_refused(tmp_path):
    forge(tmp_path / "m", {"a": entry(shape=[0, 2**62, 4], offsets=[0, 0])})
    with pytest.raises(ModelFileError, match="shape does not fit"):
        modelfile.read(tmp_path / "m")


@pytest.mark.parametrize("fault", ["a gap", "an overlap"])
def test_a_gap_or_overlap_is_found_before_anything_is_read(tmp_path, fault):
    forge(tmp_path / "m", HOSTILE_TENSORS[fault], data=bytes(8))
    with pytest.raises(ModelFileError, match="gap or overlap"):
        modelfile.read(tmp_path / "m")


GOOD = {"format_version": 1, "role": "network", "lamina_version": "0", "spec": {}}
HOSTILE_DOCUMENTS = {
    "no version": {"role": "network", "lamina_version": "0", "spec": {}},
    "version true": {**GOOD, "format_version": True},
    "version 0": {**GOOD, "format_version": 0},
    "version 1.0": {**GOOD, "format_version": 1.0},
    "a role that is a list": {**GOOD, "role": ["network"]},
    "a spec that is a list": {**GOOD, "spec": []},
    "a checksum that is a number": {**GOOD, "sha256": 0},
    "a checksum of capital letters": {**GOOD, "sha256": "A" * 64},
    "an unknown field": {**GOOD, "extra": 1},
    "a list": "[]",
    "not JSON": "lamina",
    "endless nesting": "[" * 1_000_000,
    "a key twice": '{"role":"a","role":"b"}',
    "a number": 1,
}


@pytest.mark.parametrize("document", HOSTILE_DOCUMENTS.values(), ids=HOSTILE_DOCUMENTS)
def test_a_hostile_document_is_refused(tmp_path, document):
    forge(tmp_path / "m", {}, document)
    with pytest.raises(ModelFileError, match="expected a lamina model file"):
        modelfile.read(tmp_path / "m")


@pytest.mark.parametrize("metadata", [3, [], {}, {"format": "pt"}, {"lamina": {}}])
def test_a_safetensors_file_of_another_program_is_refused(tmp_path, metadata):
    forge(tmp_path / "m", {"a": entry()}, metadata=metadata, data=bytes(8))
    with pytest.raises(ModelFileError, match="lamina's metadata"):
        modelfile.read(tmp_path / "m")


def test_a_second_copy_of_the_checksum_is_refused(tmp_path):
    document = json.dumps({"sha256": "a" * 64, **GOOD, "role": "a" * 64})
    forge(tmp_path / "m", {}, document)
    with pytest.raises(ModelFileError, match="checksum"):
        modelfile.read(tmp_path / "m")


def test_a_newer_format_says_which_came_and_to_upgrade(tmp_path):
    future = {"format_version": 7, "lamina_version": "3.1", "checksum": "of another kind"}
    forge(tmp_path / "m", {"a": {"dtype": "F4"}}, future)
    with pytest.raises(ModelFileError) as caught:
        modelfile.read(tmp_path / "m")
    sentence = str(caught.value)
    assert "version 1 or older" in sentence
    assert "got version 7 (written by lamina '3.1')" in sentence
    assert "pip install --upgrade lamina" in sentence


def test_a_pickle_is_refused_and_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle ran",))

    (tmp_path / "m").write_bytes(pickle.dumps({"a": Trap()}))
    with pytest.raises(ModelFileError):
        modelfile.read(tmp_path / "m")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"load '.*absent\.lamina'.*no such file"):
        modelfile.read(tmp_path / "absent.lamina")


def test_a_folder_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="folder"):
        modelfile.read(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="device"):
        modelfile.read(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="device"):
        modelfile.write(tmp_path / "pipe", "network", {}, {})


@pytest.mark.parametrize("target", ["a\0b", "x" * 5000, 0, None, "a\nb"])
def test_a_path_that_is_none_is_refused_in_one_line(target):
    with pytest.raises(ModelFileError, match=r"^load .*expected") as caught:
        modelfile.read(target)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read all")
def test_an_unreadable_file_is_named(path):
    path.chmod(0)
    with pytest.raises(ModelFileError, match="Permission"):
        modelfile.read(path)


@pytest.mark.parametrize(
    "content",
    [
        (2**63).to_bytes(8, "little") + b"{}",
        (modelfile.MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b" " * 100,
    ],
)
def test_a_huge_header_takes_no_memory(tmp_path, content):
    with (tmp_path / "m").open("wb") as file:
        file.write(content)
        file.truncate(10 * modelfile.MAX_HEADER_BYTES)  # sparse
    assert peak_bytes_of_a_refused_read(tmp_path / "m") < 2**20


def test_a_huge_shape_takes_no_memory(tmp_path):
    forge(tmp_path / "m", {"a": entry("U8", [2**33], [0, 2**33])}, data=bytes(8))
    assert peak_bytes_of_a_refused_read(tmp_path / "m") < 2**20


def test_the_worst_header_takes_a_bounded_multiple_of_its_size(tmp_path):
    n = 2**18
    forge(tmp_path / "m", '{METADATA,"a":[%s[]]}' % ("[]," * n))
    assert peak_bytes_of_a_refused_read(tmp_path / "m") < 40 * 3 * n


def peak_bytes_of_a_refused_read(path):
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError):
            modelfile.read(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

"""Search along directions against every value in float64; what is derived from a bank beside it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from tests.memories.fabricated import fabricate

from lamina import memories
from lamina.core.errors import ShapeError

SMALL = {"layers": 3, "d_ff": 40, "d_model": 12, "n_vocabulary": 60, "n_sequences": 12}


@pytest.fixture
def path(tmp_path):
    fabricate(tmp_path / "b", **SMALL, length=16, top_k=5)
    return tmp_path / "b"


def directions(bank):
    rows = bank.rows("SELECT value FROM directions ORDER BY layer")
    return np.concatenate([np.frombuffer(v, np.float16).reshape(40, 12) for (v,) in rows]).astype(
        np.float64
    )


def test_the_nearest_values_are_those_of_every_value_read(path, tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(2):  # made, and mapped
        with memories.open(path) as bank:
            unit = directions(bank)
            for k in (1, 7, 120, 500):
                direction = rng.standard_normal(12)
                cosine = unit @ direction / np.linalg.norm(direction)
                order = np.argsort(-cosine)[:k]
                found = bank.neurons_along(direction, k)
                assert [(n.layer, n.neuron) for n in found] == [divmod(i, 40) for i in order]
                assert [n.score for n in found] == pytest.approx(cosine[order], abs=1e-6)
            alike = bank.neurons_alike(2, 7, 4)
            cosine = unit @ unit[87]
            cosine[87] = -1
            assert [(n.layer, n.neuron) for n in alike] == [
                divmod(i, 40) for i in np.argsort(-cosine)[:4]
            ]
            with pytest.raises(ShapeError, match="vector of 12 numbers, got shape \\(13,\\)"):
                bank.neurons_along(np.ones(13))
            assert bank.neurons_along(np.zeros(12), 3)[0].score == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "b.values"]


@pytest.mark.parametrize("wrong", ["another", "short", "empty", "folder"])
def test_a_file_of_values_that_is_not_the_banks_is_not_used(path, tmp_path, wrong):
    direction = np.arange(12.0)
    with memories.open(path) as bank:
        wanted = bank.neurons_along(direction)
    beside = tmp_path / "b.values"
    data = bytearray(beside.read_bytes())
    if wrong == "another":
        fabricate(tmp_path / "other", **SMALL, length=16, top_k=5, seed=1)
        with memories.open(tmp_path / "other") as bank:
            assert bank.neurons_along(direction) != wanted
        beside.write_bytes((tmp_path / "other.values").read_bytes())
    elif wrong == "folder":
        beside.unlink()
        beside.mkdir()
    else:
        beside.write_bytes(data[:-4] if wrong == "short" else b"")
    with memories.open(path) as bank:
        assert bank.neurons_along(direction) == wanted
    assert wrong == "folder" or beside.read_bytes() == data


ASK = """
    import json, resource, sys
    import numpy as np
    from lamina import memories
    with memories.open(sys.argv[1]) as bank:
        if len(sys.argv) > 2:  # no file grows beyond it, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
        found = [bank.neurons_triggered_by("word1"), bank.neurons_along(np.arange(12.0))]
        print(json.dumps([[(n.layer, n.neuron, n.score) for n in each] for each in found]))
"""


def ask(path, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(ASK), str(path), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_several_processes_search_a_new_bank_at_once(path, tmp_path):
    running = [ask(path) for _ in range(3)]
    answers = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    with memories.open(path) as bank:
        found = [bank.neurons_triggered_by("word1"), bank.neurons_along(np.arange(12.0))]
    wanted = [[[n.layer, n.neuron, n.score] for n in each] for each in found]
    assert all(json.loads(answer) == wanted for answer in answers)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "b.search", "b.values"]


def test_on_a_full_disk_searches_answer_and_leave_nothing(path, tmp_path):
    full = ask(path, "1024")
    answer = full.communicate(timeout=60)[0]
    assert full.returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]
    assert answer == ask(path).communicate(timeout=60)[0]


def test_patterns_count_random_places_as_sets_of_tuples_do(path):
    from lamina.memories.patterns import grams, random_ids

    with memories.open(path) as bank:
        found = [p for neuron in range(20) for p in bank.patterns(1, neuron)]
        places = random_ids(bank, 20_000)
        ids = dict(bank.rows("SELECT text, token FROM vocabulary"))
        assert len(found) > 10
        for pattern in found:
            words = [f" {word}" for word in pattern.text.split()]
            gram = tuple(ids[word] for word in words)
            often = np.mean([gram in grams(place, 3) for place in places])
            assert pattern.lift == pytest.approx(pattern.n_triggers / 5 / often)


@pytest.mark.slow
@pytest.mark.alone
def test_queries_of_a_bank_as_large_as_smollm2s_take_less_than_50_ms(tmp_path):
    fabricate(tmp_path / "b")
    with memories.open(tmp_path / "b") as bank:
        bank.neurons_along(np.ones(576))  # makes what lies beside the bank
        bank.neurons_triggered_by("word1")
    direction = np.random.default_rng(0).standard_normal(576)
    queries = {
        "along": lambda bank: bank.neurons_along(direction),
        "alike": lambda bank: bank.neurons_alike(3, 7),
        "triggers": lambda bank: bank.triggers(13, 70),
        "promotes": lambda bank: bank.promotes(13, 70),
        "promoting": lambda bank: bank.neurons_promoting("word77"),
        "words": lambda bank: bank.neurons_triggered_by("word77"),
        "phrase": lambda bank: bank.neurons_triggered_by("word77 word1"),
    }
    for name, query in queries.items():
        times = []
        for _ in range(5):  # the first query of a bank just opened
            with memories.open(tmp_path / "b") as bank:
                since = time.perf_counter()
                query(bank)
                times.append(time.perf_counter() - since)
        assert min(times) < 0.05, (name, times)

"""``lamina bench``: tables for people, JSON for machines, one sentence for mistakes."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from lamina.bench.workloads import WORKLOADS
from lamina.cli.main import cli

TINY = ("--quick", "--seconds", "0", "--threads", "1", "--engines", "lamina,lamina bf16,jax")


def bench(*args: str) -> Result:
    return CliRunner().invoke(cli, ["bench", *args])


def test_the_document_has_the_machine_the_rounds_and_the_share_of_the_peak() -> None:
    done = bench(*TINY, "--workloads", "A,rows-1000,infer-A-1", "--rounds", "2", "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    by_name = {workload["name"]: workload["engines"] for workload in document["workloads"]}
    assert list(by_name) == ["A", "rows-1000", "infer-A-1"]
    ours = by_name["A"]["lamina"]
    assert ours["status"] == "ok"
    assert len(ours["rounds"]) == document["n_rounds"] == 2
    assert all(r["peak"] > 1e9 for r in ours["rounds"])
    steps = WORKLOADS["A"].tiny().flops
    shares = [steps / r["median"] / r["peak"] for r in ours["rounds"]]
    assert ours["of_peak"] == pytest.approx(sum(shares) / 2)
    assert ours["flops"] == pytest.approx(WORKLOADS["A"].tiny().flops / ours["median"])
    assert by_name["A"]["jax"]["status"] in ("missing", "ok")
    assert set(by_name["rows-1000"]) == {"lamina", "lamina bf16"}
    assert set(document["cpu"]) >= {"isa", "isas", "features"}


def test_people_get_tables_and_are_told_what_is_missing() -> None:
    done = bench(*TINY, "--workloads", "A")
    assert done.exit_code == 0, done.stderr
    assert "lamina and the best peer" in done.stdout
    assert "GFLOP/s" in done.stdout
    assert "these are no results" in done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--workloads", "Z"), "bench: expected some of A, B, C, D, E"),
        (("--engines", "tensorflow"), "bench: expected some of lamina"),
        (("--threads", "4096"), "CPUs there are as threads, got 4096. Ask for fewer."),
    ],
)
def test_a_wrong_name_is_one_sentence(args: tuple[str, ...], said: str) -> None:
    done = bench("--quick", *args)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_operations_are_counted_as_the_textbook_does() -> None:
    # Forward, gradient by weights, gradient by h_1 (not by x): 2 n m k each.
    a = WORKLOADS["A"]
    products = (20 * 100, 100 * 2, 20 * 100, 100 * 2, 100 * 2)
    assert a.flops == 2 * a.batch_size * sum(products)

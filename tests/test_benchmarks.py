"""The benchmarks run, say what is missing, and write documents from their JSON alone."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
RESULTS = BENCHMARKS / "results" / "engine.json"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def is_installed(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return an import of the benchmarks' modules, which are scripts' and not a package's."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an interpreter that has no packages at all."""
    path = tmp_path_factory.mktemp("bare") / "python"
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -E -S "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, bare_python: Path) -> dict[str, Any]:
    """Return the JSON of a tiny run in which JAX is missing."""
    out = tmp_path_factory.mktemp("bench") / "engine.json"
    tiny = ("--quick", "--seconds", 0, "--workloads", "A,C,fit-A,infer-A-1", "--threads", 1)
    engines = "lamina,lamina.train,scikit-learn,torch,jax,onnxruntime"
    done = script(
        "engine.py", *tiny, "--engines", engines, "--jax-python", bare_python, "--out", out
    )
    assert done.returncode == 0, done.stderr
    assert "jax" in done.stdout
    assert "missing" in done.stdout
    return json.loads(out.read_text(encoding="utf-8"))


def test_the_json_says_on_what_and_how_it_was_measured(result: dict[str, Any]) -> None:
    wanted = {"format", "created", "commit", "changed", "n_rounds", "n_threads", "seconds", "quick"}
    assert wanted | {"cpu", "versions", "engines", "load_average", "workloads"} <= set(result)
    assert {"model", "isa", "isas", "features"} <= set(result["cpu"])
    assert len(result["load_average"]["before"]) == len(result["load_average"]["after"]) == 3
    assert {"python", "numpy", "lamina", "scikit-learn", "torch", "jax"} <= set(result["versions"])


def test_no_place_of_this_machine_is_in_the_json(result: dict[str, Any]) -> None:
    text = json.dumps(result)
    assert str(ROOT) not in text
    assert sys.prefix not in text


def test_lamina_and_its_peers_are_measured(result: dict[str, Any]) -> None:
    by_name = {workload["name"]: workload for workload in result["workloads"]}
    assert list(by_name) == ["A", "C", "fit-A", "infer-A-1"]
    needs = {"torch": ("torch",), "onnxruntime": ("onnx", "onnxruntime")}
    for name, workload in by_name.items():
        for engine, measured in workload["engines"].items():
            if engine == "jax" or not is_installed(*needs.get(engine, ())):
                continue
            assert measured["status"] == "ok", f"{name}, {engine}: {measured}"
            assert 0 < measured["min"] <= measured["median"]
            assert measured["q1"] <= measured["median"] <= measured["q3"]
            assert measured["same_work"], f"{name}, {engine}: {measured}"
            assert len(measured["rounds"]) == result["n_rounds"]
        assert workload["engines"]["lamina"]["ratio"] == 1.0
    assert set(by_name["fit-A"]["engines"]) == {"lamina", "scikit-learn"}


def test_a_peer_that_is_not_installed_is_reported_as_missing(result: dict[str, Any]) -> None:
    assert result["versions"]["jax"] is None
    assert result["engines"]["jax"] == {"available": False, "reason": "jax not installed"}
    training = result["workloads"][0]["engines"]["jax"]
    assert training == {"status": "missing", "reason": "jax not installed"}


def test_a_peer_that_fails_says_why(module: Any, tmp_path: Path) -> None:
    process = module("lamina.bench.process")
    crash = tmp_path / "python"
    crash.write_text(f"#!/bin/sh\necho boom in {tmp_path} >&2\nexit 3\n")
    crash.chmod(0o755)
    answer = process.Workers(1, str(crash)).run({}, own_python=True)
    assert answer["status"] == "failed"
    assert answer["reason"].startswith("the process ended with 3: boom")

    task = {"workload": "A", "engine": "none", "n_threads": 1, "seconds": 0, "quick": True}
    answer = process.Workers(1).run(task)
    assert answer == {"status": "failed", "reason": "KeyError: 'none'"}


def one_round(middle: float, check: float = 1.0) -> dict[str, Any]:
    times = {"min": middle / 2, "q1": middle, "median": middle, "q3": middle, "n_samples": 3}
    return {"status": "ok", **times, "check": check, "setting": "", "load": 0.0}


def test_ratios_are_taken_within_a_round(module: Any) -> None:
    summary, workloads = module("lamina.bench.summary"), module("lamina.bench.workloads")
    # The machine was ten times slower in the last round, for both.
    rounds = {
        "lamina": [one_round(1.0), one_round(1.0), one_round(10.0)],
        "torch": [one_round(2.0), one_round(3.0), one_round(40.0)],
    }
    engines = summary.of_workload(workloads.WORKLOADS["A"], rounds)["engines"]
    assert engines["torch"]["ratio"] == engines["torch"]["ratio_of_mins"] == 3.0
    assert engines["torch"]["median"] == 3.0
    assert engines["torch"]["min"] == 1.0


def test_grouped_products_agree_with_the_loop_they_are_timed_against(tmp_path: Path) -> None:
    out = tmp_path / "grouped.json"
    cases = ("--cases", "many-experts-few-tokens,one-token", "--rounds", 1, "--threads", 1)
    done = script("grouped.py", *cases, "--out", out)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(out.read_text(encoding="utf-8"))["cases"]
    assert (first["n_experts"], second["gated"]) == (64, True)
    assert first["forward"]["ratio"] > 0


@pytest.mark.parametrize("check", [0.0, 0.5, float("nan")])
def test_an_engine_that_did_other_work_is_found_out(module: Any, check: float) -> None:
    summary, workloads = module("lamina.bench.summary"), module("lamina.bench.workloads")
    rounds = {"lamina": [one_round(1.0)], "torch": [one_round(1.0, check)]}
    engines = summary.of_workload(workloads.WORKLOADS["A"], rounds)["engines"]
    assert engines["lamina"]["same_work"]
    assert not engines["torch"]["same_work"]


def test_a_wrong_prediction_is_found_out(module: Any) -> None:
    workload = module("lamina.bench.workloads").WORKLOADS["infer-A-32"]
    x, _ = workload.rows()
    right = workload._predict(x)
    late_nan = right.copy()
    late_nan[-1] = np.nan
    assert workload.error(x, right) == 0.0
    assert workload.error(x, np.zeros_like(right)) > 0.5
    assert np.isnan(workload.error(x, late_nan))
    assert workload.error(x, right[:, :1]) == np.inf


def test_the_report_fills_its_blocks_and_leaves_the_rest(
    module: Any, result: dict[str, Any]
) -> None:
    report = module("report")
    document = "before\n<!-- bench:start -->\nold\n<!-- bench:end -->\nafter\n"
    filled = report.fill(document, result)
    assert filled.startswith("before\n<!-- bench:start -->\n| Training")
    assert filled.endswith("<!-- bench:end -->\nafter\n")
    assert "old" not in filled
    assert "missing" in filled
    assert report.fill(filled, result) == filled
    assert "quartiles" in report.fill(document.replace("bench:", "bench-detail:"), result)


def test_a_quick_run_is_not_published(tmp_path: Path, result: dict[str, Any]) -> None:
    results, document = tmp_path / "engine.json", tmp_path / "README.md"
    results.write_text(json.dumps(result))
    document.write_text("<!-- bench:start -->\n<!-- bench:end -->\n")
    done = script("report.py", document, "--results", results)
    assert done.returncode != 0
    assert "--quick" in done.stderr
    assert document.read_text() == "<!-- bench:start -->\n<!-- bench:end -->\n"


@pytest.mark.parametrize(
    "arguments",
    [("--workloads", "Z"), ("--engines", "Z"), ("--jax-python", "no-such"), ("--threads", 4096)],
)
def test_a_wrong_option_is_one_sentence(arguments: tuple[object, ...]) -> None:
    done = script("engine.py", *arguments)
    assert done.returncode == 2
    assert "expected" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_numbers_in_readme_come_from_the_json(module: Any) -> None:
    if RESULTS.exists():
        result = json.loads(RESULTS.read_text(encoding="utf-8"))
        assert not result["quick"]
        assert module("report").fill(README, result) == README
    else:
        block = README.split("<!-- bench:start -->")[1].split("<!-- bench:end -->")[0]
        assert "Not measured yet" in block
        assert "×" not in block


def test_tables_are_scored_cached_and_summarised(tmp_path: Path) -> None:
    cache, out = tmp_path / "cache.jsonl", tmp_path / "tables.json"
    args = ("--tables", "iris", "--methods", "lamina-fast,hgb", "--seeds", 1, "--threads", 1)
    for _ in range(2):
        done = script("tables.py", *args, "--cache", cache, "--out", out)
        assert done.returncode == 0, done.stderr
    assert len(cache.read_text().splitlines()) == 2  # the second run computed nothing
    found = json.loads(out.read_text())
    by_method = {row["method"]: row for row in found["summary"]}
    assert by_method["hgb"]["score"] == 1.0
    errors = {r["method"]: r["error"] for r in found["results"]}
    expected = errors["lamina-fast"] / errors["hgb"]
    assert by_method["lamina-fast"]["score"] == pytest.approx(expected)
    assert sorted(row["mean_rank"] for row in found["summary"]) == [1.0, 2.0]


def test_a_table_that_needs_a_folder_is_refused_without_one(tmp_path: Path) -> None:
    done = script("tables.py", "--tables", "adult", "--cache", tmp_path / "c")
    assert done.returncode == 2
    assert "expected --data FOLDER for table 'adult'" in " ".join(done.stderr.split())

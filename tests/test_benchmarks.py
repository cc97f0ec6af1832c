"""The benchmarks run, say what is missing, and write documents from their JSON alone."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shlex
import subprocess
import sys
from dataclasses import replace
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


def tables_result(method: str, table: str, seed: int, error: float, **more: Any) -> dict[str, Any]:
    costs = {"fit_seconds": 2.0, "predict_us_a_row": 8.0, "memory_mib": 30.0}
    about = {"method": method, "table": table, "seed": seed, "version": "1.0", "threads": 1}
    return {**about, "error": error, **costs, "n_train": 80, "n_test": 20, **more}


def tables_results() -> list[dict[str, Any]]:
    """Return results of which a method lacks a table, and another a seed."""
    failed = {"error": None, "failed": "out of <b>memory</b>"}
    last = {k: v for k, v in (tables_result("mlp", "b", 0, 0.0) | failed).items() if k != "error"}
    return [
        tables_result("hgb", "a", 0, 0.4),
        tables_result("hgb", "a", 1, 0.8),
        tables_result("hgb", "b", 0, 1.0),
        tables_result("hgb", "c", 0, 0.5),
        tables_result("lamina", "a", 0, 0.1, fit_seconds=1.0),
        tables_result("lamina", "b", 0, 1.0, fit_seconds=4.0),
        tables_result("lamina", "c", 0, 0.1, fit_seconds=900.0),
        tables_result("mlp", "a", 0, 0.8),
        tables_result("mlp", "c", 0, 4.0, memory_mib=-1.0),
        last,
    ]


def test_methods_are_compared_on_the_tables_and_seeds_they_share(module: Any) -> None:
    summary = module("tables_summary")
    found = {row["method"]: row for row in summary.summarise(tables_results())}
    assert list(found) == ["lamina", "hgb", "mlp"]  # the best first
    # on a, seed 0: 0.4, 0.1, 0.8; on c: 0.5, 0.1, 4.0
    assert found["lamina"]["score"] == pytest.approx((0.25 * 0.2) ** 0.5)
    assert found["mlp"]["score"] == pytest.approx((2.0 * 8.0) ** 0.5)
    assert found["hgb"]["score"] == 1.0
    assert [row["mean_rank"] for row in found.values()] == [1.0, 2.0, 3.0]
    assert found["lamina"]["interval"] == pytest.approx([0.2, 0.25])
    assert found["lamina"]["fit_seconds"] == pytest.approx((1.0 * 900.0) ** 0.5)
    assert found["mlp"]["memory_mib"] == pytest.approx(14.5)
    assert {row["n_tables"] for row in found.values()} == {2}
    assert [row["n_tables_own"] for row in found.values()] == [3, 3, 2]
    text = summary.coverage_sentence(tables_results())
    assert "the 2 of 3 tables that all methods finished, 1 seed each" in text
    assert "not finished: mlp 1." in text
    two = [r for r in tables_results() if r["method"] != "mlp" and r["table"] != "b"]
    assert {row["n_tables"] for row in summary.summarise(two)} == {2}


@pytest.mark.parametrize("kept", [{"lamina", "mlp"}, set()])
def test_nothing_to_compare_is_no_crash(module: Any, kept: set[str]) -> None:
    summary = module("tables_summary")
    results = [r for r in tables_results() if r["method"] in kept]
    assert summary.summarise(results) == []
    assert summary.coverage_sentence(results).startswith("Compared on")


def test_the_points_that_nobody_beats_in_both_are_found(module: Any) -> None:
    points = [(3.0, 0.5), (1.0, 0.9), (2.0, 0.9), (4.0, 0.7), (0.5, 1.5)]
    assert module("tables_figures").pareto(points) == [(0.5, 1.5), (1.0, 0.9), (3.0, 0.5)]


def test_the_page_holds_every_number_and_loads_nothing(module: Any, tmp_path: Path) -> None:
    from click.testing import CliRunner

    sources = [tmp_path / "tables.json", tmp_path / "peers.jsonl"]
    own = [r for r in tables_results() if r["method"] != "mlp"]
    own.append(tables_result("<i>new</i>", "a", 0, 0.123456))
    sources[0].write_text(json.dumps({"summary": [], "results": own}), encoding="utf-8")
    peers = [r for r in tables_results() if r["method"] == "mlp"]
    lines = [json.dumps(r) for r in ({**peers[0], "error": 7.5}, *peers)]  # the last line counts
    sources[1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    out = tmp_path / "page.html"
    main = module("tables_page").main
    done = CliRunner().invoke(main, [*map(str, sources), str(out)])
    assert done.exit_code == 0, done.output
    text = out.read_text(encoding="utf-8")
    assert text.count("data:image/svg+xml;base64,") == 3
    assert not any(part in text for part in ("<script", "http://", "https://", str(tmp_path)))
    assert "&lt;i&gt;new&lt;/i&gt;" in text
    assert "<i>" not in text
    assert "out of &lt;b&gt;memory&lt;/b&gt;" in text
    for number in ("0.1235", "0.8000", "4.0000", "0.6000", "± 0.2828", "900", "1 of 3 tables"):
        assert number in text, number
    assert "7.5" not in text
    done = CliRunner().invoke(main, [*map(str, sources), str(out), "--methods", "lamina"])
    assert "2 tables" not in done.output
    assert "3 of 3 tables" in done.output
    assert "mlp" not in out.read_text(encoding="utf-8")
    refused = [
        ([sources[0], tmp_path / "page.txt"], "ends in .html"),
        ([sources[0], out, "--methods", "tabm"], "got 'tabm'"),
        ([sources[1], out], "expected results of hgb"),
        ([RESULTS, out], "expected the JSON of benchmarks/tables.py"),
    ]
    for arguments, said in refused:
        done = CliRunner().invoke(main, [str(a) for a in arguments])
        assert done.exit_code != 0
        assert said in " ".join(done.output.replace("│", " ").split())
        assert "Traceback" not in done.output


def test_calibration_is_judged_beside_what_luck_would_make(module: Any) -> None:
    calibration, suite = module("calibration"), module("tables_suite")
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, 6000)
    y = (rng.random(6000) < p).astype(int)  # drawn with these very probabilities
    rows = suite.Split("", True, None, None, None, y)
    scores = calibration.judge(rows, np.stack([1 - p, p], axis=1), 0)
    assert scores["ece"] == pytest.approx(scores["chance"], rel=0.6)
    assert scores["log_loss"] == pytest.approx(-np.mean(np.log(np.where(y, p, 1 - p))))
    sure = np.stack([p < 0.5, p >= 0.5], axis=1).astype(float)
    scores = calibration.judge(rows, sure, 0)
    assert scores["ece"] == pytest.approx(1 - scores["accuracy"])
    assert scores["chance"] == 0.0


def test_calibration_fits_four_fifths_and_judges_the_last(module: Any) -> None:
    rows = module("calibration").split(Path(), "iris", None, 0)
    few = module("calibration").split(Path(), "iris", 100, 0)
    assert (len(rows.y_train), len(rows.y_test), len(few.y_train)) == (120, 30, 100)
    assert few.X_test.equals(rows.X_test)
    assert (few.y_test == rows.y_test).all()


def test_the_table_of_raw_tables_in_readme_comes_from_the_json(module: Any) -> None:
    report = module("tables_report")
    document = json.loads(report.RESULTS.read_text(encoding="utf-8"))
    assert report.fill(README, document) == README
    document["results"][0]["error"] *= 1.01
    assert report.fill(README, document) != README


@pytest.mark.skipif(not is_installed("torch", "PIL", "soundfile"), reason="optional packages")
def test_fields_are_measured_beside_peers(module: Any, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from lamina.fields import write_audio, write_image

    (tmp_path / "images").mkdir()
    (tmp_path / "audio").mkdir()
    i, j = np.mgrid[:48, :64]
    pixels = (127 + 60 * np.sin(i / 5) + 60 * np.cos(j / 7)).astype(np.uint8)
    write_image(tmp_path / "images" / "camera.png", pixels)
    write_image(tmp_path / "images" / "retina.jpg", np.dstack([pixels] * 3))
    sound = np.sin(np.arange(4000) / 9).astype(np.float32)
    write_audio(tmp_path / "audio" / "guit_em9.flac", sound, 8000)
    main, out = module("fields").main, tmp_path / "fields.json"
    arguments = ["--data", tmp_path, "--share", 0.005, "--torch-steps", 3, "--out", out]
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["missing"] == ["astronaut.png", "coffee.png"]
    camera = found["camera.png"]
    assert camera["half, 5 s"]["params_per_value"] <= 0.5
    assert camera["gaps"]["field"]["held_out"] > 5
    assert set(camera["presets"]) == {"hash", "fourier", "siren", "relu"}
    # Three steps from the same start, in other orders of rows
    assert abs(camera["torch"]["lamina"]["psnr"] - camera["torch"]["torch"]["psnr"]) < 1
    assert found["guit_em9.flac"]["half, 60 s"]["snr"] > 0
    done = CliRunner().invoke(main, ["--data", str(tmp_path), "--cases", "paintings"])
    assert done.exit_code == 1
    assert "got ['paintings']" in done.output


def test_the_tables_of_docs_fields_come_from_the_json(module: Any) -> None:
    report = module("fields_report")
    document = json.loads(report.RESULTS.read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "fields.md").read_text(encoding="utf-8")
    assert report.fill(page, document) == page
    document["retina.jpg"]["half, 60 s"]["psnr"] += 1
    assert report.fill(page, document) != page


@pytest.mark.skipif(not is_installed("torch", "transformers"), reason="optional packages")
def test_an_accelerated_model_is_measured_beside_the_original(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from click.testing import CliRunner
    from tests.transformer.tiny_models import tiny_model

    benchmark = module("accelerated")
    for name, value in (("PROMPT", 8), ("N_STEPS", 2), ("N_TURNS", 1)):
        monkeypatch.setattr(benchmark, name, value)
    monkeypatch.setenv("LAMINA_NUM_THREADS", "1")
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    tiny_model("llama").save_pretrained(tmp_path / "tiny")
    out = tmp_path / "accelerated.json"
    arguments = ["--model", tmp_path / "tiny", "--parts", "speed", "--threads", 1, "--out", out]
    done = CliRunner().invoke(benchmark.main, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    speed = json.loads(out.read_text(encoding="utf-8"))["runs"]["1"]["speed"]
    assert len(speed) == 7
    assert all(each["decode"]["wall"] > 0 for each in speed.values())
    plain = tiny_model("llama")
    prompts = torch.arange(12).reshape(2, 6)
    assert benchmark.same_text(plain, plain, prompts, 5)["same"] == 2
    other = benchmark.same_text(plain, tiny_model("llama", seed=1), prompts, 5)
    assert len(other["gaps_where_parted"]) == 2 - other["same"] > 0


def test_the_tables_of_docs_transformer_come_from_the_json(module: Any) -> None:
    benchmark = module("accelerated")
    document = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "transformer.md").read_text(encoding="utf-8")
    assert benchmark.fill(page, document) == page
    document["runs"]["1"]["speed"]["torch bfloat16"]["decode"]["wall"] *= 2
    assert benchmark.fill(page, document) != page


@pytest.mark.skipif(not is_installed("torch", "transformers"), reason="optional packages")
def test_transformer_layers_are_measured_beside_peers(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from click.testing import CliRunner

    from lamina.core.engine import bfloat16_unit

    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    benchmark, out = module("transformer"), tmp_path / "transformer.json"
    for name, case in benchmark.CASES.items():
        monkeypatch.setitem(benchmark.CASES, name, replace(case, d_model=32, d_ff=64))
    main = benchmark.main
    arguments = ["--tokens", "8", "--rounds", "1", "--seconds", "0", "--threads", "1", "--out"]
    done = CliRunner().invoke(main, [*arguments, str(out)])
    if bfloat16_unit() is None:
        assert "multiplies no bfloat16" in done.output
        return
    assert done.exit_code == 0, done.output
    (run,) = json.loads(out.read_text(encoding="utf-8"))["runs"]
    assert list(run["cases"]) == ["ffn", "ffn-one-token", "moe", "moe-one-token"]
    ours = run["cases"]["moe"]["lamina bfloat16"]
    assert set(ours["ratio"]) == {"transformers eager", "transformers grouped_mm"}
    assert 0 < ours["difference"] < 0.2
    done = CliRunner().invoke(main, ["--cases", "attention"])
    assert done.exit_code == 2
    assert "got 'attention'" in done.output


def test_the_table_of_docs_transformer_comes_from_the_json(module: Any) -> None:
    report = module("transformer_report")
    document = json.loads(report.RESULTS.read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "transformer.md").read_text(encoding="utf-8")
    assert report.fill(page, document) == page
    document["runs"][0]["cases"]["ffn"]["lamina float32"]["cpu"] *= 2
    assert report.fill(page, document) != page

"""The example of the paper's measurements runs on a model in a folder, and says what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.memories.test_recording import TEXTS, make_model, make_tokenizer

from lamina import memories

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("duckdb")

SCRIPT = Path(__file__).parents[2] / "examples" / "geva.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_prints_what_the_library_measures(tmp_path):
    model, tokenizer, text = make_model("llama"), make_tokenizer(), tmp_path / "t.txt"
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    text.write_text("\n\n".join(TEXTS), encoding="utf-8")
    out, bank, picture = (tmp_path / name for name in ("f.json", "bank", "p.png"))
    options = ["--model", tmp_path / "model", "--text", text, "--bank", bank, "--places", 50]
    done = run(*options, "--json", out, "--plot", picture)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    with memories.open(bank, model) as read:
        assert found["active"] == read.active_share()
        assert found["agreement"][1]["share"] == read.agreement()[1].share
    refinement = memories.measure_refinement(model, tokenizer, [text.read_text()], n_places=50)
    assert found["refinement"][0]["differs"] == pytest.approx(refinement[0].differs)
    differs = [100 * each.differs for each in refinement]
    assert f"at least 68 %  {min(differs):.1f} % to {max(differs):.1f} %" in done.stdout
    assert picture.read_bytes()[:4] == b"\x89PNG"
    done = run(*options)
    assert done.returncode == 1
    assert "geva: expected a new --bank for --text" in done.stderr
    again = tmp_path / "again.json"
    done = run("--model", tmp_path / "model", "--bank", bank, "--places", 50, "--json", again)
    assert done.returncode == 0, done.stderr
    told = json.loads(again.read_text())
    assert told["agreement"] == found["agreement"]
    assert told["refinement"][0]["n"] == 50


def test_a_model_that_is_not_there_gets_one_sentence(tmp_path):
    done = run("--model", tmp_path / "none")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "geva: expected a folder with config.json" in done.stderr

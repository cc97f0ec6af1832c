"""``lamina fit --max-memory``: the model of an ordinary fit, and ``--resume`` after any death."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import lamina
from lamina.cli.main import cli
from lamina.tabular import stream


def write(folder: Path, n: int, classes: bool = False) -> Path:
    """A table of y = 3 a + [k is v], or of whether that is above its middle, as words."""
    rng = np.random.default_rng(0)
    a, k = rng.uniform(-1, 1, n), rng.choice(["u", "v"], n)
    y = 3 * a + (k == "v")
    target = np.where(y > 0.5, "high", "low") if classes else y.round(6)
    lines = (
        f"{i},{x:.6f},{word},{t}" for i, x, word, t in zip(range(n), a, k, target, strict=True)
    )
    path = folder / "t.csv"
    path.write_text("\n".join(["key,a,k,y", *lines]) + "\n")
    return path


def fit(path: Path, *args: object) -> Result:
    own = ["fit", str(path), "--target", "y", "--preset", "fast", "--max-memory", "256MiB"]
    return CliRunner().invoke(cli, [*own, *map(str, args)])


@pytest.mark.parametrize("classes", [False, True])
def test_it_writes_an_ordinary_model(classes: bool, tmp_path: Path) -> None:
    path, out = write(tmp_path, 2000, classes), tmp_path / "m.lamina"
    done = fit(path, "--out", out, "--drop", "key", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["task"] == ("classification" if classes else "regression")
    assert report["out_of_fold_scores"]["accuracy" if classes else "r2"] > 0.9
    assert report["n_held_out_rows"] == 250  # an eighth
    assert [column["name"] for column in report["columns"]] == ["a", "k"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.lamina", "t.csv"]
    model = lamina.load(out)
    expected: Any = "high" if classes else pytest.approx(3.1, abs=0.4)
    assert model.predict({"a": [0.7], "k": ["v"]})[0] == expected
    done = CliRunner().invoke(cli, ["evaluate", str(out), str(path), "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["scores"]["accuracy" if classes else "r2"] > 0.9
    assert CliRunner().invoke(cli, ["show", str(out)]).exit_code == 0


def test_it_says_what_it_learnt_from(tmp_path: Path) -> None:
    done = fit(write(tmp_path, 2000), "--out", tmp_path / "m.lamina", "--max-seconds", "0.5")
    assert done.exit_code == 0, done.stderr
    assert "1,750 training, 250 held out" in done.stdout
    assert "held-out R2" in done.stdout
    assert "rounds each" in done.stdout
    assert "round " in done.stderr


KILLED = """
import os, signal, sys
from lamina.cli.main import cli
from lamina.cli.progress import TrainingProgress
from lamina.tabular import stream
stream.CHUNK_CELLS, stream.CHECKPOINT_SECONDS = 3 * 700, 0.0
with_signal = getattr(signal, sys.argv.pop(1))
def stop(self, report):
    if (report.epoch, report.member) == (5, 1):
        os.kill(os.getpid(), with_signal)
TrainingProgress.__call__ = stop
cli.main(sys.argv[1:])
"""


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_what_was_stopped_resumes_to_the_same_model(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "CHUNK_CELLS", 3 * 700)
    path, out, work = write(tmp_path, 2000), tmp_path / "m.lamina", tmp_path / "m.lamina.unfinished"
    args = ["fit", str(path), "--target", "y", "--preset", "fast", "--max-memory", "256MiB"]
    died = subprocess.run(
        [sys.executable, "-c", KILLED, how, *args, "--out", str(out)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert died.returncode == (-signal.SIGKILL if how == "SIGKILL" else 130), died.stderr
    assert ("--resume" in died.stderr) == (how == "SIGINT")
    assert "nothing was written" not in died.stderr
    assert work.is_dir()
    assert not out.exists()
    again = fit(path, "--out", out)
    assert again.exit_code == 2  # what is unfinished is not thrown away
    assert "expected no unfinished fit" in again.stderr
    other = fit(path, "--out", out, "--resume", "--seed", "1")
    assert other.exit_code == 2
    assert "expected random_state = 0" in other.stderr
    resumed = fit(path, "--out", out, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert not work.exists()
    whole = tmp_path / "whole.lamina"
    assert fit(path, "--out", whole).exit_code == 0
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--resume"], "expected an unfinished fit to resume, there is no folder"),
        (["--test-size", "0.2"], "--test-size: expected none with --max-memory"),
        (["--report", "r.html"], "--report: expected none with --max-memory"),
        (["--max-memory", "much"], "expected max_memory of at least 128 MiB"),
        (["--target", "yy"], "expected a column 'yy', the table has none. Did you mean 'y'?"),
        (["--drop", "y"], "expected to drop other columns than the target, got 'y'"),
        (["--drop", "a", "--drop", "k", "--drop", "key"], "got the target alone ('y')"),
        (["--task", "classification"], "expected classes in target 'y' that repeat"),
    ],
)
def test_what_cannot_be_fitted_leaves_nothing(args: list[str], said: str, tmp_path: Path) -> None:
    done = fit(write(tmp_path, 200), "--out", tmp_path / "m.lamina", *args)
    assert done.exit_code == 2
    assert said in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


def test_only_a_fit_within_memory_is_resumed(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["fit", str(write(tmp_path, 50)), "--target", "y", "--resume"])
    assert done.exit_code == 2
    assert "--resume: expected --max-memory too" in done.stderr

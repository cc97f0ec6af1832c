"""What only a real process shows: start-up cost, Ctrl-C, closed pipes, a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone  # looks at the clock

COMMAND = [sys.executable, "-m", "lamina.cli.main"]
HEAVY = ("numpy", "pyarrow", "sklearn", "scipy", "rich", "lamina.core", "lamina._native")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = "".join(f"{i},{i * i % 7},{'no' if i % 5 else 'yes'}\n" for i in range(2000))
    (tmp_path / "t.csv").write_text("a,b,y\n" + rows)
    return tmp_path / "t.csv"


# A fit that is still running when it is interrupted.
SLOW = ["--target", "y", "--preset", "best", "--threads", "1"]


def loaded_by(*args: str) -> set[str]:
    """Return the modules in memory after the command line was called with ``args``."""
    code = (
        "import sys\nfrom lamina.cli.main import cli\n"
        f"try: cli.main({list(args)!r})\nexcept SystemExit: pass\n"
        "sys.stderr.write('\\n'.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stderr.split())


def test_help_loads_nothing_heavy() -> None:
    for args in (["--help"], ["fit", "--help"], ["predict", "--help"], ["--version"]):
        assert not loaded_by(*args) & set(HEAVY), args


def test_wrong_calls_load_nothing_heavy() -> None:
    assert not loaded_by("fitt") & set(HEAVY)


def test_fit_loads_no_more_than_it_needs(table: Path) -> None:
    out = str(table.with_suffix(".lamina"))
    quick = ("--preset", "fast", "--max-seconds", "0.1")
    loaded = loaded_by("fit", str(table), "--target", "y", *quick, "--out", out)
    assert {"pyarrow", "sklearn"} <= loaded  # which imports pandas itself where there is one
    assert not loaded & {"torch", "matplotlib", "polars", "pyarrow.parquet"}


def test_help_answers_at_once() -> None:
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([*COMMAND, "--help"], capture_output=True, check=True, timeout=60)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.25


def test_ctrl_c_stops_a_fit_and_writes_nothing(table: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "fit", table.name, *SLOW], cwd=table.parent, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "epoch 1/" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        began = time.perf_counter()
        assert process.wait(timeout=20) == 130
        assert time.perf_counter() - began < 2
        assert process.stderr.read().strip() == "lamina: stopped; nothing was written."
    assert [path.name for path in table.parent.iterdir()] == ["t.csv"]


def test_a_closed_pipe_is_silent(table: Path) -> None:
    model = str(table.with_suffix(".lamina"))
    fit = [*COMMAND, "fit", str(table), "--target", "y", "--max-seconds", "0.1", "--out", model]
    subprocess.run(fit, check=True, capture_output=True, timeout=60)
    many = table.with_name("many.csv")  # its predictions do not fit into a pipe's buffer
    many.write_text("a,b\n" + "1,2\n" * 20000)
    with subprocess.Popen(
        [*COMMAND, "predict", model, str(many)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'"prediction"')
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=20) == 0


def with_little_disk(*args: str, folder: Path, limit: int) -> subprocess.CompletedProcess[str]:
    """Run where no file may grow beyond ``limit`` bytes, as on a disk that is nearly full."""
    import resource

    def narrow() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [*COMMAND, *args], cwd=folder, capture_output=True, text=True, check=False, timeout=60,
        preexec_fn=narrow,
    )  # fmt: skip


def test_what_was_saved_stays_whole_when_the_disk_is_full(table: Path) -> None:
    folder = table.parent
    fit = ("fit", "t.csv", "--target", "y", "--preset", "fast", "--max-seconds", "0.1", "--quiet")
    assert with_little_disk(*fit, "--seed", "1", folder=folder, limit=2**30).returncode == 0
    predict = ("predict", "t.lamina", "t.csv", "--out", "p.csv")
    assert with_little_disk(*predict, folder=folder, limit=2**30).returncode == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for args in ((*fit, "--seed", "2"), predict):
        done = with_little_disk(*args, folder=folder, limit=10_000)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        assert "expected a path that can be written, got: File too large" in done.stderr
        assert before == {path: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_one_sentence(table: Path) -> None:
    model = table.with_suffix(".lamina")
    fit = ["fit", str(table), "--target", "y", "--preset", "fast", "--max-seconds", "0.1"]
    subprocess.run(
        [*COMMAND, *fit, "--out", str(model)], check=True, capture_output=True, timeout=60
    )
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "predict", str(model), str(table)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "lamina: No space left on device: standard output.\n"


def on_terminal(*args: str, folder: Path, stop_at: bytes | None = None) -> tuple[int, bytes]:
    """Run with standard error on a pseudo-terminal; return exit code and what it showed."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(
        [*COMMAND, *args], cwd=folder, stderr=theirs, stdout=subprocess.PIPE, env=environment
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if stop_at is not None and stop_at in shown:
            process.send_signal(signal.SIGINT)
            stop_at = None
    os.close(ours)
    process.communicate(timeout=20)
    return process.returncode, shown


def test_a_terminal_shows_one_bar(table: Path) -> None:
    args = ("fit", table.name, "--target", "y", "--preset", "fast")
    code, shown = on_terminal(*args, folder=table.parent)
    assert code == 0
    for part in (b"epoch ", b"loss 0.", b"held-out accuracy 0.", b"s left"):
        assert part in shown
    assert shown.count(b"\n") <= 2  # it is drawn over itself


def test_ctrl_c_on_a_terminal_gives_the_cursor_back(table: Path) -> None:
    code, shown = on_terminal("fit", table.name, *SLOW, folder=table.parent, stop_at=b"loss 0.")
    assert code == 130
    assert b"lamina: stopped; nothing was written." in shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")
    assert [path.name for path in table.parent.iterdir()] == ["t.csv"]


def test_no_verb_shows_the_help_as_people_read_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lamina.cli"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "\nCommands:\n  fit" in done.stderr
    assert "\\n" not in done.stderr

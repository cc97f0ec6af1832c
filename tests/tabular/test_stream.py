"""fit_files: as good as fit, within its memory, and the same bits after any way to die."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.tolerances import assert_same_bits

import lamina
from lamina.core.errors import DataError, ModelFileError, SpecError
from lamina.core.history import EpochReport
from lamina.tabular import stream
from lamina.tabular.checkpoint import NAME
from lamina.tabular.stream import parse_memory

NOISE = 0.5


def make_rows(n: int, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """Rows of y = f + noise, f of variance 1, so that no R2 is above 1 / (1 + NOISE**2)."""
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(-1, 1, n), rng.normal(size=n)
    word = rng.choice(["u", "v", "w"], n)
    f = np.sin(3 * a) * np.where(word == "u", 1.5, 0.5) + 0.7 * np.tanh(b) + (word == "w")
    columns = {"a": a, "b": np.where(rng.random(n) < 0.05, np.nan, b), "word": word}
    return columns, (f - f.mean()) / f.std() + NOISE * rng.normal(size=n)


def write(path: Path, n: int, seed: int = 0, **more: Any) -> Path:
    columns, y = make_rows(n, seed)
    pa.parquet.write_table(pa.table({**columns, "y": y, **more}), path, row_group_size=n // 3)
    return path


def r2(y: np.ndarray, y_pred: np.ndarray) -> float:
    return float(1 - np.mean((y - y_pred) ** 2) / np.var(y))


@pytest.fixture
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a few thousand rows, so that a small table has several."""
    monkeypatch.setattr(stream, "CHUNK_CELLS", 4 * 1500)


def assert_same_model(one: Any, other: Any) -> None:
    assert one.report_.epochs == other.report_.epochs
    assert one.report_.best_epochs == other.report_.best_epochs
    for a, b in zip(one.ensemble_, other.ensemble_, strict=True):
        assert_same_bits(a.theta, b.theta)


# --- the result ---------------------------------------------------------------------------------


def test_chunks_learn_as_well_as_all_rows_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "CHUNK_CELLS", 4 * 6000)
    n = 50_000
    columns, y = make_rows(n, 0)
    fresh, truth = make_rows(20_000, 1)
    path = write(tmp_path / "t.parquet", n)
    chunked = lamina.TabularRegressor("fast", random_state=0).fit_files(path, "y")
    assert chunked.report_.epochs[0] >= 3 * 8  # rounds: eight chunks
    whole = lamina.TabularRegressor("fast", random_state=0).fit(columns, y)
    scores = [r2(truth, model.predict(fresh)) for model in (chunked, whole)]
    ceiling = 1 / (1 + NOISE**2)
    assert scores[0] > scores[1] - 0.01
    assert ceiling - 0.02 < scores[0] < ceiling + 0.01
    # The held-out rows tell what fresh ones will.
    assert abs(r2(chunked.held_out_, chunked.out_of_fold_) - scores[0]) < 0.02
    assert len(chunked.held_out_) == chunked.out_of_fold_.size >= n // 8


def test_classes_are_learnt_and_calibrated(tmp_path: Path, many_chunks: None) -> None:
    rng = np.random.default_rng(0)
    n = 12_000
    a = rng.uniform(-3, 3, n)
    p = 1 / (1 + np.exp(-2 * a))  # so the best log-loss is known
    y = np.where(rng.random(n) < p, "yes", "no").astype(object)
    y[::100] = None
    path = tmp_path / "t.csv"
    pa.table({"a": a, "y": y}).to_pandas().to_csv(path, index=False)
    model = lamina.TabularClassifier("fast", random_state=0).fit_files(path, "y")
    assert model.classes_.tolist() == ["no", "yes"]
    assert "120 rows without a target are left out." in model.report_.notes
    points = np.linspace(-2.5, 2.5, 21)
    found = model.predict_proba({"a": points})[:, 1]
    assert np.abs(found - 1 / (1 + np.exp(-2 * points))).max() < 0.07
    held = model.out_of_fold_proba_
    np.testing.assert_allclose(held.sum(axis=1), 1, atol=1e-6)
    assert np.mean(model.classes_[held.argmax(axis=1)] == model.held_out_) > 0.85


def test_balanced_classes_are_asked_for_as_often(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=6000)
    rare = rng.random(6000) < 0.05  # of a itself it says nothing
    path = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.table({"a": a, "y": rare}), path)
    for weight, expected in ((None, 0.05), ("balanced", 0.5), ({True: 9.5, False: 0.5}, 0.5)):
        model = lamina.TabularClassifier("fast", class_weight=weight, random_state=0)
        model.fit_files(path, "y")
        assert model.classes_.tolist() == [False, True]
        assert abs(model.predict_proba({"a": a[:500]})[:, 1].mean() - expected) < 0.12 * expected


def test_columns_are_dropped_and_types_obeyed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", 600, zip=np.arange(600) % 7 + 100)
    model = lamina.TabularRegressor("fast", types={"zip": "category"}, random_state=0)
    model.fit_files(path, "y", drop=["a"])
    assert model.feature_names_in_.tolist() == ["b", "word", "zip"]
    assert model.inputs_.uses["zip"].use == "category"
    assert model.inputs_.names == ("b", "word", "zip")


def test_levels_rare_in_the_sample_are_known_from_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SAMPLE_ROWS", 1000)
    k = np.where(np.arange(12_000) % 300 == 7, "rare", "common")  # 40 rows, of which 3 are drawn
    path = write(tmp_path / "t.parquet", 12_000, k=k)
    model = lamina.TabularRegressor("fast", max_seconds=0.01, random_state=0).fit_files(path, "y")
    levels = [part.levels.frequent for part in model.inputs_.parts if part.column == "k"]
    assert levels == [("common", "rare")]
    assert any("judged by 1,000 of 12,000 rows" in note for note in model.report_.notes)


def test_time_that_is_up_ends_the_rounds(tmp_path: Path, many_chunks: None) -> None:
    path = write(tmp_path / "t.parquet", 6000)
    model = lamina.TabularRegressor("fast", max_seconds=1e-3, random_state=0).fit_files(path, "y")
    assert model.report_.stopped == ("max_seconds",) * 4
    assert model.report_.epochs == (1,) * 4


# --- memory -------------------------------------------------------------------------------------

MEASURED = """
import json, resource, sys
import numpy, pyarrow.parquet, pyarrow.compute, scipy.optimize, sklearn.base, lamina
from lamina.tabular import stream
from lamina.tabular.tabular_regressor import TabularRegressor
resident = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
model = TabularRegressor("fast", max_seconds=0.01, random_state=0)
model.fit_files(sys.argv[1], "y", max_memory=int(sys.argv[2]), work_dir=sys.argv[3])
# Not ru_maxrss: a process that is forked and then runs another program inherits its parent's.
status = open("/proc/self/status").read()
peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps({"beyond": peak - resident, "rows": model.report_.n_rows}))
"""


@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_stays_below_what_was_granted(tmp_path: Path) -> None:
    # 1,600,000 rows of 14 numbers and a word: 200 MB in memory, of which 128 MiB are granted
    n, path = 100_000, tmp_path / "t.parquet"
    rng = np.random.default_rng(0)
    columns = {f"x{i}": rng.normal(size=n) for i in range(13)}
    table = pa.table({**columns, "k": rng.choice(["a", "b"], n), "y": rng.normal(size=n)})
    with pa.parquet.ParquetWriter(path, table.schema) as writer:
        for _ in range(16):
            writer.write_table(table, row_group_size=n)
    granted = 128 << 20
    assert table.nbytes * 16 > 1.3 * granted
    done = run(MEASURED, path, granted, tmp_path / "work")
    found = json.loads(done.stdout)
    assert found["rows"] == 16 * n
    assert found["beyond"] < granted, f"{found['beyond'] >> 20} MiB"
    assert not (tmp_path / "work").exists()


def run(program: str, *args: object, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, args)],
        capture_output=True, text=True, timeout=240, check=False, **kwargs,
    )  # fmt: skip
    assert done.returncode <= 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1GiB", 1 << 30), ("1.5 GB", 1_500_000_000), ("512mib", 512 << 20), (2 << 30, 2 << 30)],
)
def test_memory_is_told_in_bytes_or_words(text: object, expected: int) -> None:
    assert parse_memory(text, "fit") == expected


@pytest.mark.parametrize("wrong", ["lots", "", -1, 0, "1MiB", None, 1.5, True, "1GiB2", "-1GiB"])
def test_other_amounts_of_memory_are_refused(wrong: object) -> None:
    with pytest.raises(SpecError, match="expected max_memory of at least 128 MiB, such as '1GiB'"):
        parse_memory(wrong, "fit")


# --- ways to die --------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
import lamina
from lamina.tabular import stream
path, work, where = sys.argv[1:]
stream.CHUNK_CELLS, stream.CHECKPOINT_SECONDS = 4 * 1500, 0.0
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if where == "encode":
    from lamina.tabular.chunks import Writer
    Writer.finish = die
model = lamina.TabularRegressor("fast", random_state=0)
model._on_epoch = lambda report: die() if (report.epoch, report.member) == (5, 2) else None
model.fit_files(path, "y", work_dir=work)
"""


@pytest.mark.parametrize("where", ["encode", "rounds"])
def test_killed_and_resumed_ends_with_the_same_bits(
    where: str, tmp_path: Path, many_chunks: None
) -> None:
    path, work = write(tmp_path / "t.parquet", 6000), tmp_path / "work"
    done = run(KILLED, path, work, where)
    assert done.returncode == -signal.SIGKILL
    assert (work / NAME).exists() == (where == "rounds")
    rounds: list[int] = []
    model = lamina.TabularRegressor("fast", random_state=0)
    model._on_epoch = lambda report: rounds.append(report.epoch)  # type: ignore[assignment]
    model.fit_files(path, "y", work_dir=work, resume=True)
    assert min(rounds) == (5 if where == "rounds" else 0)
    assert not work.exists()
    whole = lamina.TabularRegressor("fast", random_state=0).fit_files(path, "y")
    assert_same_model(model, whole)
    assert_same_bits(model.out_of_fold_, whole.out_of_fold_)


def test_ctrl_c_leaves_what_one_can_go_on_with(tmp_path: Path, many_chunks: None) -> None:
    path, work = write(tmp_path / "t.parquet", 6000), tmp_path / "work"

    def interrupt(report: EpochReport) -> None:
        if report.epoch == 4:
            raise KeyboardInterrupt

    model = lamina.TabularRegressor("fast", random_state=0)
    model._on_epoch = interrupt
    with pytest.raises(KeyboardInterrupt):
        model.fit_files(path, "y", work_dir=work)
    assert sorted(p.name for p in work.iterdir()) == [NAME, "x.f32", "y.f64"]
    with pytest.raises(DataError, match=r"expected no unfinished fit in .*, there is one"):
        lamina.TabularRegressor("fast", random_state=0).fit_files(path, "y", work_dir=work)
    resumed = lamina.TabularRegressor("fast", random_state=0)
    resumed.fit_files(path, "y", work_dir=work, resume=True)
    assert_same_model(resumed, lamina.TabularRegressor("fast", random_state=0).fit_files(path, "y"))


def fill_new_arrays_with_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `numpy.empty` hand out NaN where it would hand out whatever lay there."""
    empty = np.empty

    def full_of_nan(*args: object, **settings: object) -> np.ndarray:
        array = empty(*args, **settings)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array

    monkeypatch.setattr(np, "empty", full_of_nan)


@pytest.mark.parametrize("kind", ["text", "boolean", "whole", "part"])
def test_classes_survive_a_checkpoint(
    kind: str, tmp_path: Path, many_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=4000)
    labels = {"text": ["p", "q"], "boolean": [False, True], "whole": [3, 5], "part": [0.5, 2.5]}
    y = np.array(labels[kind])[(a > 0).astype(int)]
    path, work = tmp_path / "t.parquet", tmp_path / "work"
    pa.parquet.write_table(pa.table({"a": a, "y": y}), path)
    first = lamina.TabularClassifier("fast", class_weight="balanced", random_state=0)
    first.fit_files(path, "y", work_dir=work, keep_work=True)
    again = lamina.TabularClassifier("fast", class_weight="balanced", random_state=0)
    with monkeypatch.context() as patch:
        fill_new_arrays_with_nan(patch)  # nothing is left to do: no chunk is loaded before
        again.fit_files(path, "y", work_dir=work, resume=True)
    assert again.classes_.tolist() == labels[kind]
    assert again.classes_.dtype == first.classes_.dtype
    assert_same_model(first, again)
    assert_same_bits(first.out_of_fold_proba_, again.out_of_fold_proba_)
    assert again.report_.scores["accuracy"] > 0.95
    assert again.target_ == first.target_
    assert not work.exists()


@pytest.fixture
def unfinished(tmp_path: Path, many_chunks: None) -> tuple[Path, Path]:
    """A table, and the work folder of a fit that Ctrl-C ended."""
    path, work = write(tmp_path / "t.parquet", 6000), tmp_path / "work"
    model = lamina.TabularRegressor("fast", random_state=0)

    def interrupt(report: EpochReport) -> None:
        if report.epoch == 1:
            raise KeyboardInterrupt

    model._on_epoch = interrupt
    with pytest.raises(KeyboardInterrupt):
        model.fit_files(path, "y", work_dir=work)
    return path, work


def test_another_fit_is_not_resumed(unfinished: tuple[Path, Path]) -> None:
    path, work = unfinished

    def said(match: str, model: Any = None, source: Any = path, **change: Any) -> None:
        model = model or lamina.TabularRegressor("fast", random_state=0)
        with pytest.raises(DataError, match=match):
            model.fit_files(source, **{"target": "y"} | change, work_dir=work, resume=True)

    said("expected target = 'y', as when", target="b")
    said(r"expected drop = \[\], as when", drop=["a"])
    said("expected max_memory = 1073741824, as when", max_memory="2GiB")
    said("expected preset = 'fast'", lamina.TabularRegressor(random_state=0))
    said("expected random_state = 0", lamina.TabularRegressor("fast", random_state=1))
    said("expected loss = 'squared_error'",
         lamina.TabularRegressor("fast", loss="absolute_error", random_state=0))  # fmt: skip
    write(path, 6000, seed=5)
    said("expected the table of the unfinished fit, t.parquet of")
    assert (work / NAME).exists()  # none of this has harmed it


def test_a_damaged_checkpoint_is_noticed(unfinished: tuple[Path, Path]) -> None:
    path, work = unfinished
    data = bytearray((work / NAME).read_bytes())
    data[len(data) // 2] ^= 1
    (work / NAME).write_bytes(data)
    with pytest.raises(ModelFileError):
        lamina.TabularRegressor("fast", random_state=0).fit_files(
            path, "y", work_dir=work, resume=True
        )


def test_rows_that_are_gone_are_encoded_again(unfinished: tuple[Path, Path]) -> None:
    path, work = unfinished
    os.truncate(work / "x.f32", 100)
    model = lamina.TabularRegressor("fast", random_state=0)
    model.fit_files(path, "y", work_dir=work, resume=True)
    assert_same_model(model, lamina.TabularRegressor("fast", random_state=0).fit_files(path, "y"))


def test_nothing_to_resume_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", 300)
    for work in (tmp_path / "work", None):
        with pytest.raises(DataError, match="expected an unfinished fit to resume, there is no"):
            lamina.TabularRegressor().fit_files(path, "y", work_dir=work, resume=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": "Y"}, "expected a column 'Y', the table has none. Did you mean 'y'?"),
        ({"drop": ["aa"]}, "expected a column 'aa', the table has none."),
        ({"drop": ["y"]}, "expected to drop other columns than the target, got 'y'."),
        ({"drop": ["a", "b", "word"]}, "expected at least one column to learn from"),
        ({"target": "word"}, "expected target 'word' to hold numbers, got text values."),
    ],
)
def test_what_cannot_be_learnt_leaves_nothing(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path, work = write(tmp_path / "t.parquet", 300), tmp_path / "work"
    with pytest.raises(DataError) as caught:
        lamina.TabularRegressor().fit_files(path, **{"target": "y"} | change, work_dir=work)
    assert said in str(caught.value)
    assert not work.exists()


FULL = """
import resource, sys
import lamina
from lamina.tabular import stream
stream.CHUNK_CELLS = 4 * 1500
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    model = lamina.TabularRegressor("fast", random_state=0)
    model.fit_files(sys.argv[1], "y", work_dir=sys.argv[2])
except lamina.LaminaError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit to set")
@pytest.mark.parametrize("n_bytes", [20_000, 100_000])
def test_a_disk_that_fills_up_is_one_sentence(
    n_bytes: int, tmp_path: Path, many_chunks: None
) -> None:
    # 6000 rows of 4 numbers take 96 kB, a checkpoint of trained members more
    path, work = write(tmp_path / "t.parquet", 6000), tmp_path / "work"
    said = run(FULL, path, work, n_bytes).stdout
    assert said.count("\n") == 1
    if n_bytes == 20_000:
        assert "of disk for encoded rows" in said
        assert not work.exists()
        return
    assert "expected a path that can be written" in said
    model = lamina.TabularRegressor("fast", random_state=0)  # what was saved before stays whole
    model.fit_files(path, "y", work_dir=work, resume=True)
    assert_same_model(model, lamina.TabularRegressor("fast", random_state=0).fit_files(path, "y"))


def test_a_value_that_contradicts_the_sample_is_named(tmp_path: Path) -> None:
    n = 3000
    word = np.array(["1.5", "2.5"] * (n // 2), dtype=object)
    path = tmp_path / "t.csv"
    pa.table({"x": word, "y": np.arange(n) % 11}).to_pandas().to_csv(path, index=False)
    lamina.TabularRegressor("fast", random_state=0).fit_files(path, "y")
    # A block of another kind, which a sample of all rows sees: still a number, the rest missing
    word[: n // 100] = "broken"
    pa.table({"x": word, "y": np.arange(n) % 11}).to_pandas().to_csv(path, index=False)
    model = lamina.TabularRegressor("fast", random_state=0).fit_files(path, "y")
    assert model.inputs_.uses["x"].kind == "number"


@pytest.mark.parametrize("kind", [lamina.TabularRegressor, lamina.TabularClassifier])
def test_saved_and_loaded_it_is_the_same(kind: Any, tmp_path: Path, many_chunks: None) -> None:
    path = write(tmp_path / "t.parquet", 3000)
    target = "y" if kind is lamina.TabularRegressor else "word"
    model = kind("fast", random_state=0).fit_files(path, target)
    model.save(tmp_path / "m.lamina")
    loaded = lamina.load(tmp_path / "m.lamina")
    fresh, y = make_rows(100, 7)
    fresh["y"] = y
    np.testing.assert_array_equal(model.predict(fresh), loaded.predict(fresh))
    np.testing.assert_array_equal(model.held_out_, loaded.held_out_)
    assert_same_bits(model._out_of_fold, loaded._out_of_fold)
    assert loaded.report_.scores == model.report_.scores
    assert loaded.report_.scores["r2" if target == "y" else "accuracy"] > 0.3
    columns, y = make_rows(300, 3)
    again = loaded.fit(columns, y if target == "y" else columns["word"])
    assert not hasattr(again, "held_out_")
    again.save(tmp_path / "m.lamina")
    assert not hasattr(lamina.load(tmp_path / "m.lamina"), "held_out_")


@pytest.mark.parametrize("kind", [lamina.TabularRegressor, lamina.TabularClassifier])
def test_it_has_what_fit_sets_and_can_be_explained(
    kind: Any, tmp_path: Path, many_chunks: None
) -> None:
    path = write(tmp_path / "t.parquet", 3000)
    target = "y" if kind is lamina.TabularRegressor else "word"
    model = kind("fast", random_state=0).fit_files(path, target)
    columns, y = make_rows(200, 7)
    columns["y"] = y
    y = columns.pop(target)
    # Quantiles are learnt of the residuals of all rows, which are not kept
    expected = set(vars(kind("fast", random_state=0).fit(columns, y))) - {"quantiles_"}
    assert expected <= set(vars(model))
    assert model.target_.name == target
    assert [h.epochs for h in model.histories_] == list(model.report_.epochs)
    assert all(h.state is None for h in model.histories_)
    assert 0 < sum(model._stages.values()) <= model.report_.seconds
    why = model.explain({name: values[:5] for name, values in columns.items()}, n_repeats=1)
    assert set(why.columns) == set(columns)
    total = why.baseline + why.values.sum(axis=1)
    np.testing.assert_allclose(total, why.prediction, rtol=0, atol=1e-12)


@pytest.mark.parametrize("change", ["shorter", "NaN", "absent", "classes", "long"])
def test_held_out_rows_that_do_not_fit_are_refused(change: str, tmp_path: Path) -> None:
    from lamina.core import modelfile

    path = write(tmp_path / "t.parquet", 600)
    lamina.TabularClassifier("fast", random_state=0).fit_files(path, "word").save(tmp_path / "m")
    role, spec, arrays = modelfile.read(tmp_path / "m")
    held = arrays["held_out"]
    if change == "absent":
        del arrays["held_out"]
    else:
        wrong = {"shorter": held[1:], "NaN": held * np.nan, "classes": held + 3}
        arrays["held_out"] = wrong.get(change, np.zeros(601))
    modelfile.write(tmp_path / "m", role, spec, arrays)
    with pytest.raises(ModelFileError):
        lamina.load(tmp_path / "m")

"""The door to the native engine: conversions, whole runs against PyTorch, threads, info."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tolerances import (
    assert_close,
    assert_same_bits,
    difference_step,
    finite_difference,
    rounding,
)

from lamina import _native
from lamina.core import engine as engine_module
from lamina.core import threads
from lamina.core.engine import Run, contiguous, contiguous_target, default_n_threads, make_engine
from lamina.core.errors import SpecError
from lamina.core.initialize import initialize
from lamina.core.losses import CrossEntropy, SquaredError
from lamina.core.spec import NetworkSpec

N, D = 23, 5


def small(dtype="float64", output="identity", d_out=3):
    spec = NetworkSpec.create(
        D, (7, 6), d_out, activation="tanh", output=output, skips={3: (1,)}, dtype=dtype
    )
    return spec, make_engine(spec, initialize(spec, rng=1))


def data(d_out=3):
    rng = np.random.default_rng(2)
    return rng.normal(size=(N, D)), rng.normal(size=(N, d_out))


# --- arrays ----------------------------------------------------------------------------------


def test_a_clean_array_passes_without_a_copy():
    x = np.zeros((4, 3), np.float32)
    x.flags.writeable = False
    assert contiguous(x, np.dtype(np.float32)) is x


@pytest.mark.parametrize(
    "made",
    [
        np.arange(12.0).reshape(4, 3).T,
        np.arange(24.0).reshape(4, 6)[:, ::2],
        np.arange(12, dtype=">f8").reshape(4, 3),
        np.frombuffer(b"\0" * 97, np.uint8)[1:].view(np.float64).reshape(4, 3),
        [[1, 2], [3, 4]],
    ],
    ids=["fortran", "strided", "big-endian", "misaligned", "list"],
)
def test_any_layout_becomes_contiguous_aligned_and_of_the_dtype(made):
    clean = contiguous(made, np.dtype(np.float64))
    assert clean.flags.c_contiguous
    assert clean.flags.aligned
    assert clean.dtype == np.float64
    assert clean.dtype.isnative
    np.testing.assert_array_equal(clean, np.asarray(made))


def test_whole_numbers_are_classes_only_under_cross_entropy():
    y = np.array([0, 2, 1])
    assert contiguous_target(y, CrossEntropy(), np.dtype(np.float32)).dtype == np.int32
    numbers = contiguous_target(y, SquaredError(), np.dtype(np.float32))
    assert numbers.dtype == np.float32
    assert numbers.shape == (3, 1)


# --- forward and gradient --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_forward_matches_the_equations(dtype):
    spec, engine = small(dtype)
    x, _ = data()
    theta = engine.get_parameters().astype(np.float64)
    (w1, b1), (w2, b2), (w3, b3) = [
        (theta[w].reshape(shape), theta[b])
        for (w, b), (shape, _) in zip(spec.slices(), spec.parameter_shapes(), strict=True)
    ]
    h1 = np.tanh(x.astype(dtype) @ w1.T + b1)
    h2 = np.tanh(h1 @ w2.T + b2)
    z3 = np.hstack([h2, h1]) @ w3.T + b3
    z, h = engine.trace(x)
    tolerance = rounding(dtype, fan_in=13)
    assert_close(engine.forward(x), z3, tolerance)
    assert_close(z[2], z3, tolerance)
    assert_close(h[0], h1, tolerance)
    assert engine.forward(x).dtype == np.dtype(dtype)


def test_gradient_matches_finite_differences():
    _, engine = small(output="softmax")
    x, y = data()
    y = y.argmax(axis=1)
    w = np.linspace(0.5, 2.0, N)
    v = np.array([1.0, 3.0, 0.5])
    grad, grad_x = np.empty(engine.n_params), np.empty_like(x)
    both = {"sample_weight": w, "output_weight": v}
    loss = CrossEntropy(0.1)
    engine.evaluate(x, y, loss, **both, grad=grad, grad_x=grad_x)
    theta = engine.get_parameters()

    def loss_of(moved_theta):
        engine.set_parameters(moved_theta)
        return engine.evaluate(x, y, loss, **both)

    assert_close(grad, central_differences(loss_of, theta), finite_difference(13))
    engine.set_parameters(theta)
    expected = central_differences(lambda moved_x: engine.evaluate(moved_x, y, loss, **both), x)
    assert_close(grad_x, expected, finite_difference(13))


def central_differences(f, at):
    step, slopes = difference_step(), np.empty_like(at)
    for i in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[i] += step
        down[i] -= step
        slopes[i] = (f(up) - f(down)) / (2 * step)
    return slopes


# --- whole runs against PyTorch, the same rows in the same order -----------------------------


def torch_run(theta, spec, x, y, order, batch, lr, make, l2, weight_decay, weight):
    """Return parameters and epoch losses of the same run in PyTorch, decay on weights only."""
    parts = []
    for (w, b), (shape, _) in zip(spec.slices(), spec.parameter_shapes(), strict=True):
        parts += [torch.tensor(theta[w].reshape(shape)), torch.tensor(theta[b])]
    for part in parts:
        part.requires_grad_()
    optimizer = make(parts[0::2], parts[1::2])
    x, y, weight = torch.tensor(x), torch.tensor(y), torch.tensor(weight)
    losses, step = [], 0
    for rows in order:
        total = 0.0
        for start in range(0, len(rows), batch):
            index = torch.tensor(rows[start : start + batch])
            h1 = torch.tanh(x[index] @ parts[0].T + parts[1])
            h2 = torch.tanh(h1 @ parts[2].T + parts[3])
            y_pred = torch.hstack([h2, h1]) @ parts[4].T + parts[5]
            w = weight[index]
            loss = (w[:, None] * (y_pred - y[index]) ** 2).sum() / w.sum() / y.shape[1]
            loss = loss + 0.5 * l2 * sum((p**2).sum() for p in parts[0::2])
            total += loss.item() * len(index) / len(rows)
            for group in optimizer.param_groups:
                group["lr"] = lr[step]
            optimizer.zero_grad()
            loss.backward()
            if not isinstance(optimizer, torch.optim.AdamW):
                with torch.no_grad():
                    for p in parts[0::2]:
                        p -= lr[step] * weight_decay * p
            optimizer.step()
            step += 1
        losses.append(total)
    return np.concatenate([p.detach().numpy().ravel() for p in parts]), np.array(losses)


RUNS = {
    "adam": ({"beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-6}, True),
    "adamw": ({"weight_decay": 0.3}, True),
    "adam_l2": ({"l2": 0.1}, True),
    "sgd": ({}, True),
    "sgd_decay_l2": ({"weight_decay": 0.3, "l2": 0.1}, True),
    "sgd_momentum": ({"momentum": 0.9}, False),
    "sgd_nesterov": ({"momentum": 0.9, "nesterov": True}, False),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_matches_pytorch(name):
    hyper, moving_lr = RUNS[name]  # PyTorch's velocity has no lr in it: the same for a constant one
    spec, engine = small()
    theta = engine.get_parameters()
    x, y = data()
    weight = np.linspace(0.5, 2.0, N)
    n_epochs, batch = 4, 8
    rng = np.random.default_rng(3)
    order = np.array([rng.permutation(N) for _ in range(n_epochs)])
    lr = np.linspace(0.02, 0.002, n_epochs * 3) if moving_lr else np.full(n_epochs * 3, 0.01)
    decay, l2 = hyper.get("weight_decay", 0.0), hyper.get("l2", 0.0)

    def make(weights, biases):
        groups = [{"params": weights, "weight_decay": decay}, {"params": biases}]
        if name.startswith("adam"):
            betas = (hyper.get("beta_1", 0.9), hyper.get("beta_2", 0.999))
            eps = hyper.get("epsilon", 1e-8)
            return torch.optim.AdamW(groups, betas=betas, eps=eps, weight_decay=0.0)
        return torch.optim.SGD(
            [*weights, *biases],
            lr=0.01,
            momentum=hyper.get("momentum", 0.0),
            nesterov=hyper.get("nesterov", False),
        )

    expected, expected_losses = torch_run(
        theta, spec, x, y, order, batch, lr, make, l2, decay, weight
    )
    kind = "adam" if name.startswith("adam") else "sgd"
    run = Run(engine, SquaredError(), kind, hyper, batch_size=batch, seed=0)
    losses, diverged = run.epochs(
        x, y, lr, first_epoch=0, n_epochs=n_epochs, sample_weight=weight, order=order
    )
    assert not diverged
    assert run.step == 12
    assert_close(losses, expected_losses, rounding("float64", N * 12))
    # Adam divides by a root of squares: an error in the gradient is not made smaller
    assert_close(engine.get_parameters(), expected, rounding("float64", N * 12, c=100))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_a_run_cut_between_epochs_goes_on_bit_for_bit(kind, dtype):
    x, y = data()
    lr = np.full(5 * 3, 0.01)
    hyper = {"momentum": 0.9} if kind == "sgd" else {}

    def run_of(engine):
        return Run(engine, SquaredError(), kind, hyper, batch_size=8, seed=2**64 - 1)

    _, whole = small(dtype)
    losses, _ = run_of(whole).epochs(x, y, lr, first_epoch=0, n_epochs=5)
    spec, first = small(dtype)
    run = run_of(first)
    head, _ = run.epochs(x, y, lr[:6], first_epoch=0, n_epochs=2)
    second = make_engine(spec, first.get_parameters())
    resumed = run_of(second)
    resumed.set_state(*run.get_state(), run.step)
    tail, _ = resumed.epochs(x, y, lr[6:], first_epoch=2, n_epochs=3)
    assert_same_bits(np.concatenate([head, tail]), losses)
    assert_same_bits(second.get_parameters(), whole.get_parameters())


def test_a_loss_that_is_not_finite_is_reported_as_divergence():
    _, engine = small("float32")
    x, y = data()
    run = Run(engine, SquaredError(), "sgd", {}, batch_size=N, seed=0)
    losses, diverged = run.epochs(x, y, np.full(40, 1e6), first_epoch=0, n_epochs=40)
    assert diverged
    assert 0 < len(losses) < 40
    assert np.isfinite(losses).all()


def test_no_epoch_begins_after_the_deadline_but_the_first_one():
    _, engine = small()
    x, y = data()
    run = Run(engine, SquaredError(), "adam", {}, batch_size=8, seed=0)
    losses, diverged = run.epochs(x, y, np.full(30, 0.01), first_epoch=0, n_epochs=10, seconds=0.0)
    assert len(losses) == 1
    assert not diverged


# --- threads ---------------------------------------------------------------------------------


@pytest.fixture
def no_wish(monkeypatch):
    monkeypatch.delenv("LAMINA_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.usefixtures("no_wish")
def test_threads_are_the_argument_else_our_variable_else_openmps_else_the_machines(monkeypatch):
    monkeypatch.setattr(threads, "_affinity", lambda: 6)
    monkeypatch.setattr(threads, "_cgroup_cpus", lambda: 4)
    assert default_n_threads() == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert default_n_threads() == 3
    monkeypatch.setenv("LAMINA_NUM_THREADS", "2")
    assert default_n_threads() == 2
    assert default_n_threads(np.int64(5)) == 5


@pytest.mark.usefixtures("no_wish")
def test_the_affinity_mask_counts_too(monkeypatch):
    monkeypatch.setattr(threads, "_affinity", lambda: 1)
    monkeypatch.setattr(threads, "_cgroup_cpus", lambda: 4)
    assert default_n_threads() == 1


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "two", 10**6])
def test_a_bad_thread_count_gives_one_sentence(bad):
    with pytest.raises(SpecError, match=r"^n_threads: expected .* got .*\. Pass .*\.$"):
        default_n_threads(bad)


@pytest.mark.parametrize("name", ["LAMINA_NUM_THREADS", "OMP_NUM_THREADS"])
@pytest.mark.parametrize("bad", ["0", "-2", "many", "1.5"])
@pytest.mark.usefixtures("no_wish")
def test_a_bad_variable_gives_one_sentence(monkeypatch, name, bad):
    monkeypatch.setenv(name, bad)
    with pytest.raises(SpecError, match=rf"^{name}: expected .* got '{bad}'\. Correct .*\.$"):
        default_n_threads()


def group(tmp_path: Path, process: str, **files: str) -> int:
    """Return the CPUs of a made-up control group tree; file names have / as __ and . as _DOT_."""
    (tmp_path / "process").write_text(process)
    for name, text in files.items():
        path = tmp_path / "root" / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return threads._cgroup_cpus(str(tmp_path / "process"), str(tmp_path / "root"))


def test_a_version_2_quota_is_the_least_of_the_group_and_those_above(tmp_path):
    files = {"a__cpu_DOT_max": "150000 100000\n", "a__b__cpu_DOT_max": "max 100000\n"}
    assert group(tmp_path, "0::/a/b\n", **files) == 2  # 1.5, rounded up


def test_a_version_1_quota_is_read(tmp_path):
    files = {
        "cpu,cpuacct__a__cpu_DOT_cfs_quota_us": "300000\n",
        "cpu,cpuacct__a__cpu_DOT_cfs_period_us": "100000\n",
        "cpu,cpuacct__cpu_DOT_cfs_quota_us": "-1\n",
        "cpu,cpuacct__cpu_DOT_cfs_period_us": "100000\n",
    }
    assert group(tmp_path, "4:memory:/a\n3:cpu,cpuacct:/a\n", **files) == 3


def test_a_container_that_sees_only_its_own_group_finds_the_quota_at_the_root(tmp_path):
    assert group(tmp_path, "0::/docker/0123\n", cpu_DOT_max="50000 100000\n") == 1


@pytest.mark.parametrize("process", ["", "0::/\n"])
def test_no_quota_means_no_bound(tmp_path, process):
    assert group(tmp_path, process) == threads.MAX_THREADS


def test_small_passes_stay_on_one_thread_and_the_argument_has_the_last_word():
    _, engine = small()
    assert engine.threads_for(1) == 1
    assert engine.threads_for(1, 3) == 3
    enough = math.ceil(engine_module.SERIAL_MULTIPLICATIONS / engine.n_params)
    assert engine.threads_for(enough) == default_n_threads()


# --- info ------------------------------------------------------------------------------------


def test_info_is_a_dictionary_and_prints_one_line_a_fact():
    found = engine_module.info()
    assert found["isa"] in found["isas"]
    assert found["n_threads"] == default_n_threads()
    half = found["bfloat16_unit"] is not None
    assert found["precisions"] == {"float32": True, "float64": True, "bfloat16": half}
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines] == list(found)
    assert "float64 yes" in str(found)


@pytest.mark.parametrize("wish", [*_native.isas(), "avx1024", ""])
def test_the_environment_chooses_the_instruction_set_or_is_refused(wish):
    code = "import lamina; print(lamina.info()['isa']); lamina.Network(2, (3,), 1)([[1.0, 2.0]])"
    environment = {**os.environ, "LAMINA_ISA": wish}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    if wish == "avx1024":
        assert done.returncode != 0
        assert "LAMINA_ISA: expected one of scalar" in done.stderr
        assert "got 'avx1024'. Correct the environment variable or unset it." in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == (wish or _native.isas()[-1])

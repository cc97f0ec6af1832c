"""The pool: the same bits on any team, Ctrl-C within 0.2 s, fork, and no GIL while it works."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from tests.tolerances import assert_same_bits

from lamina import _native

pytestmark = pytest.mark.alone  # looks at the clock


def engine(d_in=20, widths=(64, 64), d_out=3, cls=_native.Engine32, dropout=0.0):
    dims = [*widths, d_out]
    layers = [
        (
            w,
            "relu" if i < len(widths) else "identity",
            [i],
            False,
            dropout if i < len(widths) else 0.0,
        )
        for i, w in enumerate(dims)
    ]
    made = cls(d_in, layers, "softmax")
    dtype = np.float32 if cls is _native.Engine32 else np.float64
    rng = np.random.default_rng(0)
    made.set_parameters(rng.normal(0, 0.2, made.n_params).astype(dtype))
    return made


def data(n, d_in=20, d_out=3, dtype=np.float32):
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, d_in)).astype(dtype), rng.integers(0, d_out, n).astype(np.int32)


def train(made, x, y, n_threads, n_epochs=2, batch=256, seed=5):
    run_class = _native.Run32 if isinstance(made, _native.Engine32) else _native.Run64
    run = run_class(made, "cross_entropy", [0.0], "adam", {"l2": 1e-4}, batch, seed, n_threads)
    losses = np.zeros(n_epochs)
    lr = np.full(n_epochs * -(-len(x) // batch), 1e-3)
    done = run.epochs(x, y, None, None, None, True, 0, n_epochs, lr, losses, np.inf)
    assert done == n_epochs
    theta = np.empty(made.n_params, x.dtype)
    made.get_parameters(theta)
    return theta, losses


@pytest.mark.parametrize("n_threads", [1, 2, 3, 5])
@pytest.mark.parametrize("cls", [_native.Engine32, _native.Engine64])
def test_same_seed_and_threads_give_the_same_bits(cls, n_threads):
    x, y = data(3000, dtype=np.float32 if cls is _native.Engine32 else np.float64)
    first, losses = train(engine(cls=cls, dropout=0.2), x, y, n_threads)
    again, losses_again = train(engine(cls=cls, dropout=0.2), x, y, n_threads)
    assert_same_bits(again, first)
    assert_same_bits(losses_again, losses)
    other, _ = train(engine(cls=cls, dropout=0.2), x, y, n_threads, seed=6)
    assert not np.array_equal(other, first)


def test_concurrent_runs_share_one_pool_and_keep_their_bits():
    x, y = data(4000)
    expected, _ = train(engine(), x, y, 2)
    results = [None] * 4

    def work(i):
        results[i] = train(engine(), x, y, 2)[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(timeout=60)
        assert not t.is_alive(), "deadlock"
    for result in results:
        assert_same_bits(result, expected)


def test_other_python_threads_run_while_the_engine_works():
    x, y = data(200_000)
    made = engine(widths=(256, 256))
    ticks = []
    done = threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    watcher = threading.Thread(target=tick)
    watcher.start()
    started = time.perf_counter()
    train(made, x, y, 1, n_epochs=1)
    ended = time.perf_counter()
    done.set()
    watcher.join()
    inside = [t for t in ticks if started < t < ended]
    assert len(inside) >= 5, f"{len(inside)} ticks in {ended - started:.2f} s"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_pool_survives_fork():
    code = """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from tests.native.test_threads import data, engine, train
        x, y = data(3000)
        expected = train(engine(), x, y, 2)[0].tobytes()
        children = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                os._exit(0 if train(engine(), x, y, 2)[0].tobytes() == expected else 3)
            children.append(pid)
        ok = all(os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) == 0 for p in children)
        ok = ok and train(engine(), x, y, 2)[0].tobytes() == expected
        sys.exit(0 if ok else 1)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=60, check=False)
    assert done.returncode == 0


def delay_of_ctrl_c(work):
    """Seconds from SIGINT to KeyboardInterrupt: the best of three, since machines are shared."""
    delays = []
    for _ in range(3):
        sent = []

        def interrupt(sent=sent):
            time.sleep(0.3)
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            work()
        delays.append(time.perf_counter() - sent[0])
        if delays[-1] < 0.2:
            break
    return min(delays)


@pytest.mark.parametrize("batch", [256, 400_000])
def test_ctrl_c_stops_training_within_a_fifth_of_a_second(batch):
    x, y = data(400_000)
    made = engine(widths=(512, 512))
    assert delay_of_ctrl_c(lambda: train(made, x, y, 2, n_epochs=1000, batch=batch)) < 0.2
    theta = np.empty(made.n_params, np.float32)
    made.get_parameters(theta)
    assert np.isfinite(theta).all()
    out = np.empty((10, 3), np.float32)
    made.forward(x[:10], out, 2)  # the engine is still whole
    np.testing.assert_allclose(out.sum(1), 1, rtol=1e-5)


def test_ctrl_c_stops_inference_too():
    x, _ = data(1_000_000)
    made = engine(widths=(1024, 1024, 1024))
    out = np.empty((len(x), 3), np.float32)
    assert delay_of_ctrl_c(lambda: made.forward(x, out, 2)) < 0.2


def test_a_deadline_ends_the_run_after_a_whole_epoch():
    x, y = data(20_000)
    made = engine()
    run = _native.Run32(made, "cross_entropy", [0.0], "sgd", {}, 256, 1, 2)
    n = 100_000
    losses = np.zeros(n)
    lr = np.full(n * -(-len(x) // 256), 1e-3)
    started = time.perf_counter()
    done = run.epochs(x, y, None, None, None, True, 0, n, lr, losses, 0.2)
    assert 0 < done < n
    assert time.perf_counter() - started < 5
    assert run.step == done * -(-len(x) // 256)
    assert (losses[:done] > 0).all()
    assert (losses[done:] == 0).all()

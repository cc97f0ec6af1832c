"""net(x, out=...): written in place, or refused in one sentence."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from tests.tolerances import assert_same_bits

import lamina
from lamina.core import network, threads

D_IN, D_OUT = 4, 3
DTYPES = ["float32", "float64"]


def make(dtype="float32", **kwargs):
    return lamina.Network(D_IN, (6, 5), D_OUT, activation="tanh", dtype=dtype, rng=0, **kwargs)


def rows(n=7, dtype="float32"):
    return np.random.default_rng(1).normal(size=(n, D_IN)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [0, 1, 2, 7, 300])
def test_out_is_filled_and_returned(dtype, n):
    net, x = make(dtype), rows(n, dtype)
    out = np.full((n, D_OUT), np.nan, dtype)
    assert net(x, out=out) is out
    assert_same_bits(out, net(x))


FORMS = {
    "list": lambda x: x.tolist(),
    "fortran": np.asfortranarray,
    "other_dtype": lambda x: x.astype(np.float64),
    "strided": lambda x: np.repeat(x, 2, axis=0)[::2],
    "big_endian": lambda x: x.astype(">f4"),
}


@pytest.mark.parametrize("form", FORMS)
def test_out_goes_with_any_form_of_x(form):
    net, x = make(), rows()
    out = np.empty((7, D_OUT), np.float32)
    assert net(FORMS[form](x), out=out) is out
    assert_same_bits(out, net(x))


def test_out_may_be_part_of_a_larger_array_and_nothing_else_is_written():
    net, x = make(), rows()
    frame = np.full((9, D_OUT), -7, np.float32)
    net(x, out=frame[1:8])
    assert_same_bits(frame[1:8], net(x))
    assert (frame[[0, 8]] == -7).all()


def test_out_may_overlap_x():
    net = lamina.Network(D_IN, (6,), D_IN, rng=0)
    x = rows(50)
    expected = net(x)
    for shift in (0, 1, 49):
        memory = np.zeros((100, D_IN), np.float32)
        memory[:50] = x
        net(memory[:50], out=memory[shift : shift + 50])
        assert_same_bits(memory[shift : shift + 50], expected)


def read_only(a):
    a.flags.writeable = False
    return a


def misaligned(a):
    return np.frombuffer(bytearray(a.nbytes + 1), np.uint8)[1:].view(a.dtype).reshape(a.shape)


GOOD = np.zeros((7, D_OUT), np.float32)
BAD = {
    "float64": (GOOD.astype(np.float64), lamina.DataError),
    "big_endian": (GOOD.astype(">f4"), lamina.DataError),
    "integers": (GOOD.astype(np.int32), lamina.DataError),
    "too_few": (GOOD[:6], lamina.ShapeError),
    "too_wide": (np.zeros((7, 4), np.float32), lamina.ShapeError),
    "flat": (GOOD.ravel(), lamina.ShapeError),
    "fortran": (np.asfortranarray(GOOD), lamina.DataError),
    "with_gaps": (np.zeros((7, 6), np.float32)[:, ::2], lamina.DataError),
    "read_only": (read_only(GOOD.copy()), lamina.DataError),
    "misaligned": (misaligned(GOOD), lamina.DataError),
    "list": (GOOD.tolist(), lamina.DataError),
}


@pytest.mark.parametrize("what", BAD)
def test_an_out_that_does_not_fit_gives_one_sentence_and_is_left_alone(what):
    out, error = BAD[what]
    before = copy.deepcopy(out)
    pattern = (
        r"^Network: expected out as a C-contiguous, writeable float32 array .*, got .*\. .*\.$"
    )
    with pytest.raises(error, match=pattern):
        make()(rows(), out=out)
    assert np.array_equal(out, before)


def test_a_bad_x_leaves_out_alone():
    out = GOOD.copy()
    with pytest.raises(lamina.ShapeError, match="expected x of shape"):
        make()(rows()[:, :3], out=out)
    assert np.array_equal(out, GOOD)


def test_clean_arrays_take_the_short_way(monkeypatch):
    """The careful way is for the others: were it taken here, this test would see it."""
    net = make()

    def careful(*_):
        raise AssertionError

    monkeypatch.setattr(network, "_as_rows", careful)
    x, out = rows(1), np.empty((1, D_OUT), np.float32)
    net(x)
    net(read_only(x), out=out)
    net(rows(300)[10:20])
    with pytest.raises(AssertionError):
        net(np.asfortranarray(rows()))


def test_weights_count_from_the_next_call_on():
    net, x = make(), rows(1)
    out = np.empty((1, D_OUT), np.float32)
    net(x, out=out)
    net.weights[2] = np.zeros((D_OUT, 5))
    net.biases[2] = [1, 2, 3]
    assert net(x, out=out).tolist() == [[1, 2, 3]]
    lamina.train(net, rows(), rows()[:, :D_OUT], max_epochs=1, rng=0)
    twin = pickle.loads(pickle.dumps(net))
    assert_same_bits(net(x, out=out), twin(x))
    assert not np.array_equal(out, [[1, 2, 3]])


SHARED = """
import threading, numpy as np
from lamina.core.engine import Run, make_engine
from lamina.core.losses import SquaredError
from lamina.core.spec import NetworkSpec

spec = NetworkSpec.create(4, (64, 64), 3)
engine = make_engine(spec, np.full(spec.n_params, 0.01, np.float32))
run = Run(engine, SquaredError(), "adam", {}, batch_size=64, seed=0)
x = np.zeros((640, 4), np.float32)
train = lambda: run.epochs(x, x[:, :3], np.zeros(4000), first_epoch=0, n_epochs=400)
trainer = threading.Thread(target=train)
trainer.start()
while trainer.is_alive():
    engine.predict(x[:1], None, lambda: 1)
"""


def test_a_short_call_beside_a_run_on_the_same_engine_does_not_hang():
    """The call keeps the GIL; the run that holds the engine's lock needs it for its polls."""
    subprocess.run([sys.executable, "-c", SHARED], check=True, timeout=60)


def test_the_thread_count_is_asked_anew(monkeypatch):
    monkeypatch.setattr(threads, "_recent", (0.0, 1))
    monkeypatch.setenv("LAMINA_NUM_THREADS", "3")
    assert threads.recent_n_threads() == 3
    monkeypatch.setenv("LAMINA_NUM_THREADS", "2")
    until, _ = threads._recent
    monkeypatch.setattr(threads.time, "monotonic", lambda: until + 1e-3)
    assert threads.recent_n_threads() == 2

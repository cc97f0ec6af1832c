"""What a stranger passes by mistake: one sentence that says what to do, and nothing is changed."""

import os
import platform
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from tests.core.small_runs import classes, make
from tests.tolerances import assert_same_bits

import lamina
from lamina.core import network
from lamina.core.engine import require_memory
from lamina.core.errors import DataError, ModelFileError, ShapeError, SpecError


def run(code, **environment):
    """Run Python in a process of its own, which a deadlock ends after a while."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def set_theta(value):
    make().theta = value


def set_weight(value):
    make().weights[0] = value


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (
            lambda: lamina.Network(3, (4,), 2, activation=None),
            SpecError,
            'expected activation to be a name .*, got None. Pass a name such as "relu".',
        ),
        (
            lambda: lamina.Network(3, (4,), 2, skips={2: None}),
            SpecError,
            r"expected skips\[2\] .*, got None. Pass a tuple such as \(0,\).",
        ),
        (
            lambda: set_theta(np.zeros(5)),
            ShapeError,
            r"net.theta: expected shape \(50,\), got \(5,\). Pass all parameters in one vector: W",
        ),
        (lambda: set_theta(None), DataError, "net.theta: expected an array of numbers, got None"),
        (
            lambda: set_weight(np.zeros((3, 8))),
            ShapeError,
            r"expected shape \(8, 3\), got \(3, 8\). Weights are \(d_out, d_in\).*; transpose",
        ),
        (
            lambda: set_weight(np.zeros((8, 4))),
            ShapeError,
            r"expected shape \(8, 3\), got \(8, 4\). Weights are \(d_out, d_in\) a layer.$",
        ),
        (
            lambda: make()(None),
            DataError,
            r"expected x of shape \(n, 3\) as rows of real numbers, got None.",
        ),
        (lambda: make().loss(None, [0]), DataError, "expected x as an array of numbers, got None"),
        (
            lambda: make().gradients(np.zeros((1, 3)), None),
            DataError,
            "expected y as an array of numbers, got None",
        ),
        (lambda: lamina.load(3), ModelFileError, "expected the path of a file, got 3. Pass a str"),
        (lambda: make().save(3), ModelFileError, "expected the path of a file, got 3. Pass a str"),
        (lambda: make().save(""), ModelFileError, "the path of a file, got an empty string. Pass"),
        (lambda: lamina.load(b"x"), ModelFileError, "expected the path of a file, got b'x'. Pass"),
    ],
)
def test_a_mistake_gets_a_sentence_that_fits_it(call, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_list_of_activations_in_a_message_is_sorted():
    with pytest.raises(ValueError, match="activation") as caught:
        lamina.MLPClassifier(activation="x").fit([[0.0], [1.0]], [0, 1])
    names = str(caught.value).split("{")[1].split("}")[0].split(", ")
    assert names == sorted(names)
    assert "'gelu'" in names


def test_an_instruction_set_of_another_kind_of_processor_is_refused():
    other = "neon" if platform.machine() in ("x86_64", "AMD64") else "avx2"
    done = run("import lamina; lamina.Network(2, (3,), 1)([[1.0, 2.0]])", LAMINA_ISA=other)
    assert "LAMINA_ISA: expected one of scalar" in done.stderr
    assert f"got '{other}'. Correct the environment variable or unset it." in done.stderr


# --- memory ------------------------------------------------------------------------------------


def test_memory_that_does_not_exist_is_refused_with_its_bytes():
    with pytest.raises(
        MemoryError, match=f"expected {2**60:,} bytes of memory, got .* Use a small"
    ):
        require_memory(2**60)
    require_memory(2**20)


def test_a_network_asks_for_memory_before_it_draws_parameters(monkeypatch):
    asked = []
    monkeypatch.setattr(network, "require_memory", asked.append)
    net = lamina.Network(3, (4,), 2, dtype="float32")
    assert asked == [(8 + 8 + 4) * net.n_params]  # theta and a layer in float64, then float32


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and RLIMIT_AS")
def test_an_allocation_that_fails_says_how_many_bytes_and_the_network_lives_on():
    done = run("""
        import resource
        import numpy as np
        import lamina

        net, x = lamina.Network(1024, (4096,), 1024, rng=0), np.ones((4, 1024), "float32")
        y = np.zeros((4, 1024), "float32")
        before = net.theta.copy()
        pages = int(open("/proc/self/statm").read().split()[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**23, hard))
        for call in (net, lambda x: lamina.train(net, x, y)):
            try:
                call(x)
            except MemoryError as error:
                print(error)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        assert (net.theta == before).all()
        assert np.isfinite(net(x)).all()
    """)
    assert done.returncode == 0, done.stderr
    sentence = f"lamina: expected {4 * 1024 * 4096:,} bytes of memory, got less. Use a smaller"
    assert done.stdout.count(sentence) == 2, done.stdout


# --- fork --------------------------------------------------------------------------------------

FITS = """
    import multiprocessing, os, signal, sys, threading, time, warnings
    import numpy as np
    import lamina

    warnings.simplefilter("ignore", DeprecationWarning)  # fork is what is tested
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 20)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")

    def fit(seed):
        net = lamina.Network(20, (64, 64), 2, output="softmax", rng=seed)
        lamina.train(net, x, y, max_epochs=2, n_threads=2, rng=seed)
        return net.theta.tobytes() + net(x).tobytes()

    def in_child(work):
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # whoever waits for a lock of the parent's is ended
            os._exit(0 if work() else 3)
        return child

    def code_of(child):
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_parent_and_children_train_at_the_same_time():
    done = run(
        textwrap.dedent(FITS)
        + textwrap.dedent("""
        expected = fit(0)  # the pool has worked before the fork
        children = [in_child(lambda: fit(0) == expected) for _ in range(2)]
        assert fit(0) == expected
        assert [code_of(child) for child in children] == [0, 0]
        with multiprocessing.get_context("fork").Pool(2) as pool:
            both = pool.map_async(fit, [0, 0])
            assert fit(0) == expected
            assert both.get(timeout=30) == [expected, expected]
        assert fit(0) == expected
    """)
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_a_thread_is_inside_the_engine_leaves_the_child_a_whole_network():
    done = run(
        textwrap.dedent(FITS)
        + textwrap.dedent("""
        net = lamina.Network(20, (256, 256), 2, output="softmax", rng=0)
        expected = net.loss(x, y)
        many_x, many_y = np.tile(x, (100, 1)), np.tile(y, 100)
        stop = threading.Event()

        def keep_busy():  # holds the network's lock, and the pool, nearly all the time
            while not stop.is_set():
                net.gradients(many_x, many_y)

        def work():
            loss = net.loss(x, y)
            net.theta = net.theta * 0
            return loss == expected and (net(x) == 0.5).all() and len(fit(1))

        busy = threading.Thread(target=keep_busy)
        busy.start()
        time.sleep(0.2)
        codes = [code_of(in_child(work)) for _ in range(3)]
        stop.set()
        busy.join()
        assert codes == [0, 0, 0], codes
        assert net.loss(x, y) == expected
    """)
    )
    assert done.returncode == 0, done.stderr


# --- a callback that raises ----------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [lamina.AdamW(), lamina.LBFGS()])
@pytest.mark.parametrize("validation", [None, 0.2])
def test_a_callback_that_raises_ends_training_with_that_epochs_weights(optimizer, validation):
    x, y = classes()
    net = make()
    seen = []

    def fail(report):
        seen.append(net.theta)
        if report.epoch == 1:
            raise LookupError("the callback's own")

    with pytest.raises(LookupError, match="the callback's own"):
        lamina.train(net, x, y, optimizer=optimizer, validation=validation, callbacks=fail, rng=0)
    assert len(seen) == 2
    assert_same_bits(net.theta, seen[-1])
    # Parameters, engine and copies agree: as a network made anew of what can be read.
    assert_same_bits(net(x), lamina.Network.from_spec(net.spec, net.theta)(x))
    before = net.loss(x, y)
    lamina.train(net, x, y, optimizer=lamina.Adam(0.01), max_epochs=20, rng=0)
    assert net.loss(x, y) < before

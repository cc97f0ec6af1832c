"""train: divergence, Ctrl-C, wrong arguments; the network is whole afterwards."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from tests.core.small_runs import D, classes, make, numbers
from tests.tolerances import assert_same_bits

import lamina

# --- when it goes wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("watched", [False, True])
def test_divergence_leaves_the_last_finite_epoch_and_gives_advice(watched):
    x, y = numbers(d_out=1)
    arguments = {"optimizer": lamina.SGD(3.0), "batch_size": 97, "rng": 0}
    if watched:
        arguments["callbacks"] = lambda report: None
    make_net = lambda: lamina.Network(D, (), 1, dtype="float32", rng=0)  # noqa: E731
    net = make_net()
    with pytest.raises(lamina.DivergenceError, match=r"^train: .*NaN.* Lower lr") as error:
        lamina.train(net, x, y, max_epochs=1000, **arguments)
    assert isinstance(error.value, lamina.LaminaError)
    assert np.isfinite(net.theta).all()
    n_epochs = int(str(error.value).split("epoch ")[1].split(".")[0])
    assert n_epochs > 5
    twin = make_net()
    lamina.train(twin, x, y, max_epochs=n_epochs, **arguments)
    assert_same_bits(net.theta, twin.theta)
    with pytest.raises(lamina.DivergenceError):  # the next one was too many
        lamina.train(make_net(), x, y, max_epochs=n_epochs + 1, **arguments)


def test_divergence_in_the_first_epoch_leaves_the_network_as_it_was():
    x, y = numbers(d_out=1)
    net = lamina.Network(D, (8,), 1, rng=0)
    before = net.theta
    with pytest.raises(lamina.DivergenceError, match="epoch 0"):
        lamina.train(net, x, y, optimizer=lamina.SGD(1e30), batch_size=4)
    assert_same_bits(net.theta, before)


def test_a_last_step_to_infinity_is_divergence_though_every_loss_was_finite():
    x, y = numbers(d_out=1)
    net = lamina.Network(D, (), 1, dtype="float32", rng=0)
    before = net.theta
    with pytest.raises(lamina.DivergenceError):
        lamina.train(net, x * 100, y, optimizer=lamina.SGD(3e38), batch_size=97, max_epochs=1)
    assert_same_bits(net.theta, before)


@pytest.mark.parametrize("optimizer", [lamina.AdamW(), lamina.LBFGS()])
def test_a_loss_that_overflows_from_the_start_is_divergence(optimizer):
    net = lamina.Network(D, (), 1, output="exp", dtype="float32", rng=0)
    net.biases[0] = [200.0]
    with pytest.raises(lamina.DivergenceError, match=r"[Ss]tandardise"):
        lamina.train(net, np.zeros((4, D)), np.ones(4), optimizer=optimizer)


def interrupt_after(seconds):
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


@pytest.mark.alone
def test_ctrl_c_ends_a_run_soon_with_the_weights_of_the_last_step():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4000, D)), rng.normal(size=(4000, 1))
    net = lamina.Network(D, (64, 64), 1, rng=0)
    before = net.theta
    timer = interrupt_after(0.3)
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt) as error:
        lamina.train(net, x, y, max_epochs=10**6, rng=0)
    took = time.perf_counter() - began
    timer.join()
    assert 0.3 <= took < 0.3 + 0.2 + 0.5  # half a second of grace for a busy machine
    assert (net.theta != before).any()
    assert np.isfinite(net.theta).all()
    history = error.value.history
    assert history.stopped == "interrupted"
    assert history.state["epoch"] == history.epochs


@pytest.mark.parametrize("optimizer", [lamina.AdamW(), lamina.LBFGS()])
def test_ctrl_c_between_epochs_leaves_a_history_that_resumes(optimizer):
    x, y = classes()
    net, whole = make(), make()

    def press(report):
        if report.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:
        lamina.train(net, x, y, optimizer=optimizer, callbacks=press, max_epochs=6, rng=0)
    history = error.value.history
    assert (history.stopped, history.epochs) == ("interrupted", 3)
    if isinstance(optimizer, lamina.LBFGS):
        return
    lamina.train(whole, x, y, optimizer=optimizer, max_epochs=6, rng=0)
    lamina.train(net, x, y, optimizer=optimizer, max_epochs=6, resume=history)
    assert_same_bits(net.theta, whole.theta)


X, Y = classes()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"net": "net"}, lamina.SpecError),
        ({"x": X[:, :2]}, lamina.ShapeError),
        ({"x": np.where(X > 2, np.nan, X)}, lamina.DataError),
        ({"x": np.empty((0, D)), "y": np.empty(0, int)}, lamina.ShapeError),
        ({"x": X[:1], "y": Y[:1], "validation": 0.5}, lamina.DataError),
        ({"y": Y[:5]}, lamina.ShapeError),
        ({"y": Y + 7}, lamina.DataError),
        ({"y": np.array(["a"] * 97)}, lamina.DataError),
        ({"loss": "hinge"}, lamina.SpecError),
        ({"loss": "poisson"}, lamina.SpecError),
        ({"optimizer": "adam"}, lamina.SpecError),
        ({"batch_size": 0}, lamina.SpecError),
        ({"batch_size": "auto"}, lamina.SpecError),
        ({"max_epochs": 0}, lamina.SpecError),
        ({"max_epochs": 1.5}, lamina.SpecError),
        ({"max_seconds": 0}, lamina.SpecError),
        ({"max_seconds": "1"}, lamina.SpecError),
        ({"validation": 1.0}, lamina.SpecError),
        ({"validation": 0}, lamina.SpecError),
        ({"validation": True}, lamina.SpecError),
        ({"validation": "rest"}, lamina.SpecError),
        ({"validation": (X, Y, Y)}, lamina.SpecError),
        ({"validation": (X[:, :2], Y)}, lamina.ShapeError),
        ({"validation": (X, Y[:3])}, lamina.ShapeError),
        ({"patience": 3}, lamina.SpecError),
        ({"patience": 0, "validation": 0.1}, lamina.SpecError),
        ({"sample_weight": -np.ones(97)}, lamina.DataError),
        ({"sample_weight": np.ones(3)}, lamina.ShapeError),
        ({"precision": "bfloat16"}, lamina.SpecError),
        ({"precision": "float32"}, lamina.SpecError),
        ({"precision": "double"}, lamina.SpecError),
        ({"callbacks": 3}, lamina.SpecError),
        ({"callbacks": [print, None]}, lamina.SpecError),
        ({"rng": "seed"}, lamina.SpecError),
        ({"n_threads": 0}, lamina.SpecError),
        ({"net": make(dropout=0.5), "optimizer": lamina.LBFGS()}, lamina.SpecError),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_a_bad_argument_gives_one_sentence_and_changes_nothing(change, error):
    arguments = {"net": make(), "x": X, "y": Y, "max_epochs": 2} | change
    net = arguments.pop("net")
    before = getattr(net, "theta", None)
    with pytest.raises(error, match=r"^[\w, ]+: expected .*, got .*\. .*\.$") as caught:
        lamina.train(net, arguments.pop("x"), arguments.pop("y"), **arguments)
    assert "\n" not in str(caught.value)
    assert getattr(net, "theta", None) is before


def test_a_precision_that_is_the_dtype_changes_nothing():
    net, twin = make(), make()
    lamina.train(net, X, Y, precision="float64", max_epochs=2, rng=0)
    lamina.train(twin, X, Y, max_epochs=2, rng=0)
    assert_same_bits(net.theta, twin.theta)


def test_training_needs_no_scipy_unless_lbfgs_is_asked_for():
    code = (
        "import sys, lamina, numpy as np\n"
        "net = lamina.Network(2, (3,), 1, rng=0)\n"
        "lamina.train(net, np.ones((4, 2)), np.ones(4), max_epochs=1)\n"
        "assert 'scipy' not in sys.modules\n"
        "lamina.train(net, np.ones((4, 2)), np.ones(4), optimizer=lamina.LBFGS())\n"
        "assert 'scipy' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

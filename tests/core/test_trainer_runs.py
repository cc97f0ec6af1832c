"""train: the same bits again, resumed or in one go; what callbacks see."""

import json
import pickle

import numpy as np
import pytest
from tests.core.small_runs import classes, make, stop_after
from tests.tolerances import assert_close, assert_same_bits, rounding

import lamina
from lamina.core.engine import Run

# --- repetition and resumption -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_seed_gives_the_same_bits(dtype):
    x, y = classes()

    def go(rng):
        net = make(dtype=dtype, dropout=0.3)
        history = lamina.train(net, x, y, batch_size=16, max_epochs=5, rng=rng, validation=0.2)
        return net.theta, history

    theta, history = go(4)
    again, repeated = go(np.random.default_rng(4))
    assert_same_bits(again, theta)
    assert repeated.train_loss == history.train_loss
    assert repeated.seed == history.seed
    assert (go(5)[0] != theta).any()


RESUMED = {
    "adamw": {"optimizer": None},
    "sgd": {"optimizer": lamina.SGD(0.1, momentum=0.9)},
    "cosine": {"optimizer": lamina.AdamW(lamina.cosine(0.02, warmup=0.2))},
    "one_cycle": {"optimizer": lamina.SGD(lamina.one_cycle(0.1), momentum=0.5, nesterov=True)},
    "share": {"optimizer": None, "validation": 0.25},
    "pair": {"optimizer": lamina.Adam(0.05), "validation": classes(30, seed=5), "patience": 9},
    "weights": {"optimizer": None, "sample_weight": np.linspace(0, 1, 97)},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RESUMED)
def test_four_epochs_and_six_resumed_are_ten(name, dtype):
    x, y = classes()
    same = {"batch_size": 16, "max_epochs": 10, **RESUMED[name]}
    whole, parts = make(dtype=dtype, dropout=0.2), make(dtype=dtype, dropout=0.2)
    expected = lamina.train(whole, x, y, rng=1, **same)
    first = lamina.train(parts, x, y, rng=1, callbacks=stop_after(4), **same)
    assert (first.epochs, first.stopped) == (4, "callback")
    first = pickle.loads(pickle.dumps(first))
    fresh = make(dtype=dtype, dropout=0.2, rng=99)  # parameters come from the history
    second = lamina.train(fresh, x, y, resume=first, **same)
    assert_same_bits(fresh.theta, whole.theta)
    assert second.train_loss == expected.train_loss
    assert second.validation_loss == expected.validation_loss
    assert second.validation_score == expected.validation_score
    assert second.best_epoch == expected.best_epoch
    assert second.seed == expected.seed
    assert (second.epochs, first.epochs) == (10, 4)
    assert second.times == sorted(second.times)
    for key in ("theta", "m", "v"):
        assert_same_bits(second.state[key], expected.state[key])
    assert second.state["step"] == expected.state["step"]


def test_a_best_epoch_before_the_resumption_is_still_restored():
    x, y = classes()
    same = {"validation": (x, 1 - y), "max_epochs": 16, "batch_size": 16}
    same["optimizer"] = lamina.Adam(0.05)
    whole, parts = make(), make()
    expected = lamina.train(whole, x, y, rng=1, **same)
    first = lamina.train(parts, x, y, rng=1, callbacks=stop_after(10), **same)
    second = lamina.train(parts, x, y, resume=first, **same)
    assert second.best_epoch == expected.best_epoch < 10
    assert_same_bits(parts.theta, whole.theta)


def test_a_constant_rate_may_be_resumed_to_more_epochs_than_first_planned():
    x, y = classes()
    whole, parts = make(), make()
    lamina.train(whole, x, y, max_epochs=10, batch_size=16, rng=1)
    first = lamina.train(parts, x, y, max_epochs=4, batch_size=16, rng=1)
    second = lamina.train(parts, x, y, max_epochs=10, batch_size=16, resume=first)
    assert_same_bits(parts.theta, whole.theta)
    assert second.stopped == "max_epochs"


def test_resuming_a_run_that_is_over_changes_nothing():
    x, y = classes()
    net = make()
    first = lamina.train(net, x, y, max_epochs=3, rng=1)
    theta = net.theta
    second = lamina.train(net, x, y, max_epochs=3, resume=first)
    assert_same_bits(net.theta, theta)
    assert second.train_loss == first.train_loss


def test_the_state_is_json_and_arrays():
    x, y = classes()
    state = lamina.train(make(), x, y, max_epochs=2, validation=0.2).state
    arrays = {key for key, value in state.items() if isinstance(value, np.ndarray)}
    assert arrays == {"theta", "m", "v", "best_theta"}
    plain = {key: value for key, value in state.items() if key not in arrays}
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 8},
        {"optimizer": lamina.SGD(0.1)},
        {"validation": 0.2},
        {"validation": classes()},
        {"x": classes(50)[0], "y": classes(50)[1]},
        {"net": make(dtype="float32")},
        {"net": make(rng=0, skips={2: (0,)})},
        {"max_epochs": 9},
        {"resume": "history"},
        {"resume": lamina.History()},
        {"optimizer": lamina.LBFGS()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_run_that_is_another_cannot_be_resumed(change):
    x, y = classes()
    schedule = lamina.AdamW(lamina.cosine(0.01))
    first = lamina.train(make(), x, y, batch_size=16, max_epochs=4, optimizer=schedule)
    arguments = {"net": make(), "x": x, "y": y, "batch_size": 16, "max_epochs": 4}
    arguments |= {"optimizer": schedule, "resume": first} | change
    with pytest.raises(lamina.SpecError, match=r"^train: expected .*, got .*\. .*\.$"):
        lamina.train(arguments.pop("net"), arguments.pop("x"), arguments.pop("y"), **arguments)


# --- between epochs ----------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """Return the list of how many epochs each call into the engine was asked for."""
    seen = []
    original = Run.epochs

    def spy(self, *args, **kwargs):
        seen.append(kwargs["n_epochs"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Run, "epochs", spy)
    return seen


def test_a_run_that_nobody_watches_is_one_call_to_the_engine(calls):
    lamina.train(make(), *classes(), max_epochs=50)
    assert calls == [50]


def test_a_long_run_is_cut_without_a_trace(calls, monkeypatch):
    x, y = classes()
    whole, cut = make(), make()
    expected = lamina.train(whole, x, y, max_epochs=6, batch_size=16, rng=0)
    monkeypatch.setattr("lamina.core.descent.SNAPSHOT_SECONDS", 0.0)
    history = lamina.train(cut, x, y, max_epochs=6, batch_size=16, rng=0)
    assert calls == [6, 6, 5, 4, 3, 2, 1]
    assert_same_bits(cut.theta, whole.theta)
    assert history.train_loss == expected.train_loss


def test_learning_rates_for_endless_runs_do_not_fill_the_memory(calls):
    history = lamina.train(make(), *classes(), max_epochs=10**15, max_seconds=0.05)
    assert history.stopped == "max_seconds"
    assert max(calls) <= 1 << 20


def test_callbacks_see_every_epoch_and_the_networks_parameters():
    x, y = classes()
    net = make()
    reports, losses = [], []

    def note(report):
        reports.append(report)
        losses.append(net.loss(x, y))

    history = lamina.train(
        net, x, y, max_epochs=5, validation=(x, y), callbacks=[note, lambda report: None]
    )
    assert [report.epoch for report in reports] == [0, 1, 2, 3, 4]
    assert [report.train_loss for report in reports] == history.train_loss
    assert [report.validation_loss for report in reports] == history.validation_loss
    assert [report.validation_score for report in reports] == history.validation_score
    assert [report.seconds for report in reports] == history.times
    assert reports[0].max_epochs == 5
    assert reports[0].lr == 1e-3
    assert reports[0].is_best
    assert_close(losses, history.validation_loss, rounding("float64", len(x)))


def test_a_callback_that_returns_true_stops_and_one_that_returns_something_else_does_not():
    x, y = classes()
    net, twin = make(), make()
    history = lamina.train(net, x, y, callbacks=stop_after(3), rng=0)
    assert (history.stopped, history.epochs) == ("callback", 3)
    lamina.train(twin, x, y, max_epochs=3, rng=0)
    assert_same_bits(net.theta, twin.theta)
    history = lamina.train(make(), x, y, max_epochs=3, callbacks=lambda report: "yes")
    assert history.stopped == "max_epochs"


def test_an_error_in_a_callback_passes_and_leaves_that_epochs_parameters():
    x, y = classes()
    net, twin = make(), make()

    def fail(report):
        if report.epoch == 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lamina.train(net, x, y, callbacks=fail, rng=0)
    lamina.train(twin, x, y, max_epochs=2, rng=0)
    assert_same_bits(net.theta, twin.theta)


def test_a_run_limited_by_time_is_repeated_by_its_epochs():
    x, y = classes()
    net, twin = make(), make()
    history = lamina.train(net, x, y, max_epochs=10**6, max_seconds=0.1, rng=0)
    assert history.stopped == "max_seconds"
    assert 1 < history.epochs < 10**6
    assert 0.1 <= history.times[-1] < 1.0
    again = lamina.train(twin, x, y, max_epochs=history.epochs, rng=0)
    assert again.train_loss == history.train_loss
    assert_same_bits(twin.theta, net.theta)


def test_the_history_says_what_ran():
    x, y = classes()
    history = lamina.train(make(), x, y, max_epochs=3, n_threads=1, validation=0.1)
    assert history.n_threads == 1
    assert history.isa == lamina.info()["isa"]
    assert len(history.times) == history.epochs == 3
    assert 0 < history.times[0] <= history.times[1] <= history.times[2]
    assert "epochs=3" in repr(history)
    assert "'max_epochs'" in repr(history)
    assert lamina.train(make(), x, y, max_epochs=1).best_epoch is None

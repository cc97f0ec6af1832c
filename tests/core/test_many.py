"""train_many and Ensemble: each member against `train` alone, bit for bit; folds, stops, errors."""

import copy
import pickle
import signal
import threading
import time

import numpy as np
import pytest
from tests.tolerances import assert_close, assert_same_bits, rounding

import lamina
from lamina.core.many import _threads_a_member
from lamina.core.watch import Plan

D, K, N = 5, 5, 203


def make(k=K, d_out=2, output="softmax", dtype="float32", **kwargs):
    widths = kwargs.pop("widths", (9,))
    return [
        lamina.Network(D, widths, d_out, output=output, dtype=dtype, rng=i, **kwargs)
        for i in range(k)
    ]


def data(n=N, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(int)


def assert_same_run(got, net, expected, twin):
    assert_same_bits(net.theta, twin.theta)
    assert got.train_loss == expected.train_loss
    assert got.validation_loss == expected.validation_loss
    assert got.validation_score == expected.validation_score
    assert (got.best_epoch, got.stopped) == (expected.best_epoch, expected.stopped)
    assert got.n_threads == expected.n_threads


X, Y = data()
CASES = {
    "plain": {},
    "share": {"validation": 0.25},
    "pair": {"validation": (X[:40], Y[:40])},
    "patience": {"validation": 0.3, "patience": 1, "max_epochs": 40},
    "weights": {"sample_weight": np.arange(N) % 4 * 0.5, "validation": 0.2},
    "sgd": {"optimizer": lamina.SGD(0.05, momentum=0.9, nesterov=True)},
    "schedule": {"optimizer": lamina.AdamW(lamina.cosine(0.01)), "batch_size": 1000},
    "one epoch": {"max_epochs": 1},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_each_member_is_what_train_alone_makes_bit_for_bit(case, dtype):
    kwargs = {"max_epochs": 6, "batch_size": 32} | CASES[case]
    nets, twins = make(dtype=dtype, dropout=0.2), make(dtype=dtype, dropout=0.2)
    histories = lamina.train_many(nets, X, Y, rng=range_of(K), n_threads=2, **kwargs)
    for i in range(K):
        expected = lamina.train(twins[i], X, Y, rng=i, n_threads=1, **kwargs)
        assert_same_run(histories[i], nets[i], expected, twins[i])
    assert len({net.theta.tobytes() for net in nets}) == K


def range_of(k):
    return list(range(k))


@pytest.mark.parametrize("validation", [None, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_folds_are_rows_of_their_own_bit_for_bit(validation, weighted):
    rng = np.random.default_rng(3)
    rows = [rng.choice(N, size, replace=True) for size in (50, 203, 7, 64, 90)]
    weight = rng.integers(0, 3, (K, N)) * 0.5 if weighted else None
    kwargs = {"max_epochs": 5, "batch_size": 16, "validation": validation}
    nets, twins = make(), make()
    histories = lamina.train_many(
        nets, X, Y, rows=rows, sample_weight=weight, rng=range_of(K), n_threads=2, **kwargs
    )
    for i, index in enumerate(rows):
        own = weight[i][index] if weighted else None
        expected = lamina.train(
            twins[i], X[index], Y[index], sample_weight=own, rng=i, n_threads=1, **kwargs
        )
        assert_same_run(histories[i], nets[i], expected, twins[i])


def test_the_rest_of_a_fold_is_what_it_is_scored_on():
    folds = [np.arange(N) % K != i for i in range(K)]
    nets, twins = make(), make()
    histories = lamina.train_many(
        nets, X, Y, rows=folds, validation="rest", rng=range_of(K), max_epochs=4
    )
    for i, fold in enumerate(folds):
        rest = (X[~fold], Y[~fold])
        expected = lamina.train(
            twins[i],
            X[fold],
            Y[fold],
            validation=rest,
            rng=i,
            max_epochs=4,
            n_threads=histories[i].n_threads,
        )
        assert_same_run(histories[i], nets[i], expected, twins[i])


@pytest.mark.skipif(not lamina.info()["precisions"]["bfloat16"], reason="no bfloat16 here")
def test_members_may_train_in_bfloat16():
    nets, twins = make(), make()
    kwargs = {"max_epochs": 3, "batch_size": 32, "precision": "bfloat16"}
    histories = lamina.train_many(nets, X, Y, rng=range_of(K), n_threads=2, **kwargs)
    for i in range(K):
        lamina.train(twins[i], X, Y, rng=i, n_threads=1, **kwargs)
        assert histories[i].precision == "bfloat16"
        assert_same_bits(nets[i].theta, twins[i].theta)


def test_members_may_differ_in_optimizer():
    optimizers = [lamina.Adam(10.0**-i) for i in range(1, 1 + K)]
    nets, twins = make(), make()
    lamina.train_many(nets, X, Y, optimizer=optimizers, rng=range_of(K), max_epochs=3, n_threads=2)
    for i in range(K):
        kwargs = {"optimizer": optimizers[i], "rng": i, "max_epochs": 3, "n_threads": 1}
        lamina.train(twins[i], X, Y, **kwargs)
        assert_same_bits(nets[i].theta, twins[i].theta)


@pytest.mark.parametrize("k", [1, 3])
def test_few_big_members_share_the_threads_and_say_so(k):
    """More threads than members: their steps are cut in parts, as n_threads=4 cuts them."""
    kwargs = {"max_epochs": 2, "batch_size": 128, "validation": 0.2}
    nets, twins = make(k, widths=(300,)), make(k, widths=(300,))
    histories = lamina.train_many(nets, X, Y, rng=range_of(k), n_threads=4, **kwargs)
    for i in range(k):
        assert histories[i].n_threads == 4
        expected = lamina.train(twins[i], X, Y, rng=i, n_threads=4, **kwargs)
        assert_same_run(histories[i], nets[i], expected, twins[i])


@pytest.mark.parametrize(
    ("n_params", "k", "expected"),
    [(2302, 16, 1), (2302, 2, 1), (2302, 1, 2), (600_000, 3, 2), (600_000, 7, 2), (600_000, 8, 1)],
)
def test_threads_go_within_a_member_where_members_are_few(n_params, k, expected):
    plan = Plan(lamina.SquaredError(), 200, 1, np.inf, None, (), 0, 2)
    assert _threads_a_member(n_params, plan, k) == expected


def test_one_generator_gives_every_member_a_seed_of_its_own():
    nets = [lamina.Network(D, (9,), 2, output="softmax", rng=0) for _ in range(3)]
    histories = lamina.train_many(nets, X, Y, rng=7, max_epochs=1)
    assert len({history.seed for history in histories}) == 3
    assert len({net.theta.tobytes() for net in nets}) == 3


def test_a_history_resumes_with_train():
    nets, twins = make(), make()
    kwargs = {"batch_size": 32, "n_threads": 1}
    histories = lamina.train_many(
        nets, X, Y, rng=range_of(K), max_epochs=3, batch_size=32, n_threads=2
    )
    lamina.train(nets[2], X, Y, max_epochs=6, resume=histories[2], **kwargs)
    lamina.train(twins[2], X, Y, max_epochs=6, rng=2, **kwargs)
    assert_same_bits(nets[2].theta, twins[2].theta)


def test_a_member_that_diverges_does_not_stop_the_others():
    optimizers = [lamina.SGD(0.01), lamina.SGD(1e30), lamina.SGD(0.02)]
    nets, twins = make(3, 1, "identity"), make(3, 1, "identity")
    y = X[:, :1] * 2
    with pytest.warns(RuntimeWarning, match="loss of member 1 became NaN"):
        histories = lamina.train_many(
            nets, X, y, optimizer=optimizers, rng=range_of(3), max_epochs=3, n_threads=2
        )
    assert [h.stopped for h in histories] == ["max_epochs", "diverged", "max_epochs"]
    for i in (0, 2):
        lamina.train(twins[i], X, y, optimizer=optimizers[i], rng=i, max_epochs=3, n_threads=1)
    with pytest.raises(lamina.DivergenceError):
        lamina.train(twins[1], X, y, optimizer=optimizers[1], rng=1, max_epochs=3, n_threads=1)
    for net, twin in zip(nets, twins, strict=True):
        assert_same_bits(net.theta, twin.theta)


def test_divergence_of_all_is_an_error():
    with pytest.raises(lamina.DivergenceError):
        lamina.train_many(
            make(2, 1, "identity"), X, X[:, :1], optimizer=lamina.SGD(1e30), max_epochs=3
        )


def test_callbacks_hear_of_every_member_and_stop_one():
    heard = []

    def callback(report):
        heard.append((report.member, report.epoch))
        return report.member == 1 and report.epoch == 1

    histories = lamina.train_many(make(3), X, Y, max_epochs=4, callbacks=callback, rng=0)
    assert [h.epochs for h in histories] == [4, 2, 4]
    assert [h.stopped for h in histories] == ["max_epochs", "callback", "max_epochs"]
    assert sorted(heard) == sorted([(m, e) for m in (0, 2) for e in range(4)] + [(1, 0), (1, 1)])


def test_a_callback_that_raises_ends_all_with_whole_epochs():
    nets, twins = make(2), make(2)

    def callback(report):
        if report.epoch == 1:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        lamina.train_many(
            nets, X, Y, max_epochs=4, callbacks=callback, rng=range_of(2), n_threads=2
        )
    for i in range(2):
        lamina.train(twins[i], X, Y, max_epochs=2, rng=i, n_threads=1)
        assert_same_bits(nets[i].theta, twins[i].theta)


@pytest.mark.alone
def test_time_is_shared_evenly():
    nets = make(6)
    started = time.perf_counter()
    histories = lamina.train_many(
        nets, X, Y, max_epochs=10**9, max_seconds=0.6, batch_size=16, n_threads=2
    )
    assert 0.5 < time.perf_counter() - started < 3
    epochs = [h.epochs for h in histories]
    assert min(epochs) > 20  # one is what a member gets that has no time left
    assert {h.stopped for h in histories} == {"max_seconds"}


@pytest.mark.alone
def test_ctrl_c_leaves_whole_steps_and_every_history():
    nets = make(4)
    timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    started = time.perf_counter()
    with pytest.raises(KeyboardInterrupt) as error:
        lamina.train_many(nets, X, Y, max_epochs=10**9, batch_size=16, n_threads=2)
    assert time.perf_counter() - started < 3
    assert [h.stopped for h in error.value.history] == ["interrupted"] * 4
    assert all(np.isfinite(net.theta).all() for net in nets)
    assert any((net.theta != twin.theta).any() for net, twin in zip(nets, make(4), strict=True))


MISTAKES = {
    "one net": (lambda: {"networks": make(1)[0]}, lamina.SpecError, "not in a list"),
    "none": (lambda: {"networks": []}, lamina.SpecError, "got none"),
    "twice": (lambda: {"networks": make(1) * 2}, lamina.SpecError, "each network once"),
    "shapes": (
        lambda: {"networks": [*make(1), *make(1, widths=(4,))]},
        lamina.SpecError,
        "one shape",
    ),
    "stranger": (lambda: {"networks": [make(1)[0], 3]}, lamina.SpecError, "int as number 1"),
    "optimizers": (lambda: {"optimizer": [lamina.Adam()]}, lamina.SpecError, "each of the 2"),
    "lbfgs": (lambda: {"optimizer": lamina.LBFGS()}, lamina.SpecError, "got LBFGS"),
    "rngs": (lambda: {"rng": [1, 2, 3]}, lamina.SpecError, "got 3"),
    "rows": (lambda: {"rows": [[0]]}, lamina.SpecError, "each of the 2"),
    "no rows": (lambda: {"rows": [[0], []]}, lamina.DataError, r"rows\[1\]"),
    "far rows": (lambda: {"rows": [[0], [N]]}, lamina.DataError, f"0 to {N - 1}"),
    "rows before": (lambda: {"rows": [[0], [-1]]}, lamina.DataError, "got -1"),
    "float rows": (lambda: {"rows": [[0], [0.5]]}, lamina.DataError, "Pass integers"),
    "ragged rows": (lambda: {"rows": [[0], [[1], 2]]}, lamina.DataError, r"rows\[1\]"),
    "weights": (lambda: {"sample_weight": np.ones((3, N))}, lamina.ShapeError, r"\(3, 203\)"),
    "no weight": (
        lambda: {"sample_weight": np.eye(1, N)[0], "rows": [[0], [5]]},
        lamina.DataError,
        "only zeros",
    ),
    "validation": (lambda: {"validation": "some"}, lamina.SpecError, "'rest'"),
    "no rest": (lambda: {"validation": "rest"}, lamina.DataError, "outside rows"),
    "patience": (lambda: {"patience": 2}, lamina.SpecError, "expected validation"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_and_change_nothing(mistake):
    arguments, error, match = MISTAKES[mistake]
    kwargs = {"networks": make(2)} | arguments()
    with pytest.raises(error, match=f"train_many.*{match}"):
        lamina.train_many(kwargs.pop("networks"), X, Y, **kwargs)


def test_an_ensemble_is_the_mean_of_its_members():
    ensemble = lamina.Ensemble.create(3, D, (9,), 2, output="softmax", rng=0)
    of_members = ensemble.predict_members(X)
    assert of_members.shape == (3, N, 2)
    for i, net in enumerate(ensemble):
        assert_same_bits(of_members[i], net(X))
    assert_close(ensemble(X), of_members.mean(axis=0), rounding(np.float32, 3))
    assert ensemble(X).dtype == np.float32
    assert (len(ensemble), ensemble.n_params) == (3, 3 * ensemble[0].n_params)
    assert len({net.theta.tobytes() for net in ensemble}) == 3


@pytest.mark.parametrize("way", ["file", "pickle", "deepcopy"])
def test_an_ensemble_survives(way, tmp_path):
    ensemble = lamina.Ensemble.create(3, D, (9, 4), 1, skips={2: (0,)}, rng=0, dtype="float64")
    if way == "file":
        ensemble.save(tmp_path / "e.lamina")
        again = lamina.load(tmp_path / "e.lamina")
    else:
        again = (
            copy.deepcopy(ensemble) if way == "deepcopy" else pickle.loads(pickle.dumps(ensemble))
        )
    assert isinstance(again, lamina.Ensemble)
    assert again.spec == ensemble.spec
    assert_same_bits(again(X), ensemble(X))


@pytest.mark.parametrize(
    "change",
    [
        {"n_members": 2},
        {"n_members": 10**12},
        {"n_members": True},
        {"network": {}},
        {"more": 1},
        {"theta": np.zeros((3, 2), np.float32)},
        {"theta": np.full((3, 64), np.nan, np.float32)},
        {"theta": np.zeros((3, 64), np.float64)},
    ],
)
def test_a_forged_ensemble_is_a_model_file_error(change, tmp_path):
    from lamina.core import modelfile

    ensemble = lamina.Ensemble.create(3, D, (9,), 1, rng=0)
    theta = np.stack([net.theta for net in ensemble])
    spec = {"network": ensemble.spec.to_json(), "n_members": 3}
    arrays = {"theta": change.pop("theta", theta)}
    modelfile.write(tmp_path / "e", "ensemble", spec | change, arrays)
    with pytest.raises(lamina.ModelFileError):
        lamina.load(tmp_path / "e")


def test_ensemble_index_and_mistakes():
    nets = make(2)
    with pytest.raises(lamina.SpecError, match="Ensemble: expected several"):
        lamina.Ensemble(nets[0])
    with pytest.raises(IndexError):
        lamina.Ensemble(nets)[2]
    with pytest.raises(TypeError):
        lamina.Ensemble(nets)["a"]
    with pytest.raises(lamina.SpecError, match="n_members"):
        lamina.Ensemble.create(0, D, (9,), 1)


@pytest.mark.parametrize("validation", [None, 0.3, "rest"])
@pytest.mark.parametrize("n_threads", [1, 7])
def test_three_epochs_and_four_resumed_are_seven(validation, n_threads):
    kwargs = {
        "optimizer": lamina.AdamW(lamina.cosine(0.02, warmup=0.1)),
        "rows": [np.arange(N) % K != i for i in range(K)],
        "batch_size": 32,
        "max_epochs": 7,
        "validation": validation,
        "n_threads": n_threads,
    }
    whole, parts = make(dropout=0.2), make(dropout=0.2)
    expected = lamina.train_many(whole, X, Y, rng=4, **kwargs)

    def stop(report):
        return report.epoch == 2

    first = lamina.train_many(parts, X, Y, rng=4, callbacks=stop, **kwargs)
    assert {history.stopped for history in first} == {"callback"}
    fresh = make(dropout=0.2)  # parameters come with the histories
    second = lamina.train_many(fresh, X, Y, resume=first, **kwargs)
    for i in range(K):
        assert second[i].epochs == 7
        assert_same_run(second[i], fresh[i], expected[i], whole[i])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 8}, "expected batch_size = 32, as in the run to be resumed, got 8"),
        ({"rows": [np.arange(50)] * K}, "expected n_rows = 203"),
        ({"validation": 0.2}, "expected n_rows = 203"),
        ({"resume": "first"}, "one History for each of the 5 networks"),
        ({"resume": [lamina.History()] * K}, "one without a state"),
    ],
)
def test_other_runs_cannot_be_resumed(change, said):
    nets = make()
    first = lamina.train_many(nets, X, Y, max_epochs=2, batch_size=32, rng=0)
    kwargs = {"resume": first, "max_epochs": 4, "batch_size": 32} | change
    before = [net.theta.copy() for net in nets]
    with pytest.raises(lamina.SpecError, match=said):
        lamina.train_many(nets, X, Y, **kwargs)
    for net, theta in zip(nets, before, strict=True):
        assert_same_bits(net.theta, theta)

"""jacobian, hessian_vector and laplacian of a Network."""

import copy
import pickle

import numpy as np
import pytest
from tests.tolerances import assert_close, difference_step, finite_difference

import lamina


def make(d_in=3, d_out=2, activation="tanh", **more):
    return lamina.Network(
        d_in, (12, 9), d_out, activation=activation, dtype="float64", rng=0, **more
    )


X = np.random.default_rng(0).normal(size=(5, 3))


@pytest.mark.parametrize("output", ["identity", "sigmoid", "softmax", "exp"])
@pytest.mark.parametrize("d_out", [2, 5])  # backward passes are the cheaper way, and are not
def test_the_three_are_differences_of_one_another(output, d_out):
    net, step = make(d_out=d_out, output=output), difference_step()
    shifts = step * np.eye(3)
    jacobian = np.stack([(net(X + s) - net(X - s)) / (2 * step) for s in shifts], 2)
    assert_close(net.jacobian(X), jacobian, finite_difference())
    slopes = [(net.jacobian(X + s) - net.jacobian(X - s)) / (2 * step) for s in shifts]
    hessian = np.stack(slopes, 3)  # (n, d_out, d_in, d_in)
    v = np.random.default_rng(1).normal(size=X.shape)
    product = np.einsum("noij,nj->noi", hessian, v)
    assert_close(net.hessian_vector(X, v), product, finite_difference())
    assert_close(net.hessian_vector(X, [0.0, 1.0, 0.0]), hessian[..., 1], finite_difference())
    diagonal = np.einsum("nojj->noj", hessian)
    assert_close(net.laplacian(X), diagonal.sum(2), finite_difference())
    assert_close(
        net.laplacian(X, (2.0, 0.0, -1.0)), diagonal @ [2.0, 0.0, -1.0], finite_difference()
    )


def test_they_follow_the_weights_after_training_and_copies():
    net = make()
    before = net.jacobian(X)
    lamina.train(net, X, np.zeros((5, 2)), max_epochs=3, rng=0)
    after = net.jacobian(X)
    assert np.abs(after - before).max() > 1e-4
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert np.array_equal(twin.jacobian(X), after)


def test_any_layout_any_type_no_rows_and_no_dropout():
    net = make(dropout=0.5)
    assert np.array_equal(net.jacobian(np.asfortranarray(X)), net.jacobian(X))
    assert net.jacobian(X[:0]).shape == (0, 2, 3)
    assert net.hessian_vector(X[:0], [1, 2, 3]).shape == (0, 2, 3)
    assert net.laplacian([[1, 2, 3]]).shape == (1, 2)
    assert np.array_equal(net.jacobian(X), net.jacobian(X))


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "step"])
def test_piecewise_linear_networks_have_a_jacobian_and_no_second_derivatives(name):
    net = make(activation=name)
    assert net.jacobian(X).any() == (name != "step")
    for call in (lambda: net.laplacian(X), lambda: net.hessian_vector(X, X)):
        with pytest.raises(lamina.SpecError, match=f"expected smooth activations, got '{name}'"):
            call()
    with pytest.raises(lamina.SpecError, match="expected smooth activations, got 'step'"):
        make(output="step").laplacian(X)


def test_bad_input_is_one_sentence():
    net = make()
    with pytest.raises(lamina.ShapeError, match=r"Network.jacobian: expected x"):
        net.jacobian(X[:, :2])
    with pytest.raises(lamina.DataError, match=r"Network.laplacian: expected"):
        net.laplacian(X * np.nan)
    with pytest.raises(
        lamina.ShapeError, match=r"expected v of shape \(5, 3\) or \(3,\), got \(2,\)"
    ):
        net.hessian_vector(X, [1.0, 2.0])
    with pytest.raises(lamina.DataError, match=r"Network.hessian_vector: expected"):
        net.hessian_vector(X, ["a", "b", "c"])
    with pytest.raises(lamina.ShapeError, match=r"expected weights of shape \(3,\), got \(1, 3\)"):
        net.laplacian(X, [[1, 2, 3]])


GRID = lamina.HashGrid(3, 2, 8, 3, 17, interpolation="smoothstep", bounds=(-3.0, 3.0))
ENCODINGS = [GRID, lamina.Fourier(2), lamina.RandomFourier(9, scale=0.5, rng=0), lamina.OneBlob(5)]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@pytest.mark.parametrize("d_out", [2, 5])
def test_the_three_are_differences_of_one_another_through_an_encoding(encoding, d_out):
    net, step = make(d_out=d_out, encoding=encoding), difference_step()
    net.theta = np.random.default_rng(2).normal(0, 0.3, net.n_params)
    shifts = step * np.eye(3)
    jacobian = np.stack([(net(X + s) - net(X - s)) / (2 * step) for s in shifts], 2)
    assert_close(net.jacobian(X), jacobian, finite_difference(64))
    slopes = [(net.jacobian(X + s) - net.jacobian(X - s)) / (2 * step) for s in shifts]
    hessian = np.stack(slopes, 3)  # (n, d_out, d_in, d_in)
    v = np.random.default_rng(1).normal(size=X.shape)
    product = np.einsum("noij,nj->noi", hessian, v)
    assert_close(net.hessian_vector(X, v), product, finite_difference(64))
    diagonal = np.einsum("nojj->noj", hessian)
    expected = diagonal @ [2.0, 0.0, -1.0]
    assert_close(net.laplacian(X, (2.0, 0.0, -1.0)), expected, finite_difference(64))


def test_beyond_its_bounds_a_grid_is_flat():
    net = make(encoding=GRID)
    beyond = np.array([[4.0, 0.1, 0.2], [0.1, -9.0, 0.2]])
    jacobian = net.jacobian(beyond)
    assert jacobian.any()
    assert not jacobian[0, :, 0].any()
    assert not jacobian[1, :, 1].any()


def test_a_linear_grid_has_a_jacobian_and_no_second_derivatives():
    net = make(encoding=lamina.HashGrid(2, 2, 6, 3, 9, bounds=(-3.0, 3.0)))
    step = difference_step()
    jacobian = [(net(X + s) - net(X - s)) / (2 * step) for s in step * np.eye(3)]
    assert_close(net.jacobian(X), np.stack(jacobian, 2), finite_difference(64))
    for call in (lambda: net.laplacian(X), lambda: net.hessian_vector(X, X)):
        with pytest.raises(lamina.SpecError, match=r"interpolation 'smoothstep', got 'linear'"):
            call()

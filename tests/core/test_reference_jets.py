"""The slow twin of the jets against PyTorch, and the engine against the slow twin."""

import numpy as np
import pytest
import torch
from tests.core.test_reference import TORCH_ACTIVATION, TORCH_OUTPUT, make_spec, make_theta
from tests.native.test_encoded_jets import CASES, KINDS, torch_network
from tests.native.test_encoded_jets import draw as draw_encoded
from tests.native.test_encodings import make
from tests.native.test_jets import NAMES, draw, engine_jets, torch_jets
from tests.tolerances import assert_small, rounding

from lamina.core import reference_jets
from lamina.core.engine import Engine
from lamina.core.reference_jets import Jet


@pytest.fixture(autouse=True)
def one_thread_of_pytorch():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def twin(spec, theta, data):
    x, _, c, seeds = data
    jet = reference_jets.forward(spec, theta, x, c)
    return (
        jet.values,
        jet.jacobian,
        jet.curvature,
        *reference_jets.backward(spec, theta, x, c, Jet(*seeds)),
    )


def compare(ours, theirs, within):
    for name, a, b in zip([n for n in NAMES if n != "Hessian-vector"], ours, theirs, strict=True):
        assert a.shape == b.shape
        assert_small(a - b, max(float(np.abs(b).max()), 0.01), within, name)
        assert a.any() == b.any()


def without_product(found):
    return [*found[:3], *found[4:]]


@pytest.mark.parametrize("output", [o for o in TORCH_OUTPUT if o != "step"])
@pytest.mark.parametrize("activation", [a for a in TORCH_ACTIVATION if a != "step"])
def test_the_twin_matches_pytorch(activation, output):
    spec = make_spec(activation, output, "both")
    theta, data = 1.5 * make_theta(spec), draw(spec, 7)
    expected = without_product(torch_jets(spec, theta, *data))
    compare(twin(spec, theta, data), expected, rounding(np.float64, 256))


@pytest.mark.parametrize(("d_in", "name"), CASES)
def test_the_twin_of_encoded_networks_matches_pytorch_and_the_engine(d_in, name):
    spec, theta, x, _ = make(KINDS[name], d_in, widths=(9, 9), residual=True)
    data = draw_encoded(spec, x[:13])
    ours = twin(spec, theta, data)
    expected = torch_jets(spec, theta, *data, forward=torch_network)
    compare(ours, without_product(expected), rounding(np.float64, 4096))
    engine = Engine(spec)
    engine.set_parameters(theta)
    compare(without_product(engine_jets(engine, *data)), ours, rounding(np.float64, 65536))

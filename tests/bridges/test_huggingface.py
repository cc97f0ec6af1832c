"""The finder: every family's blocks, and weights that compute what the block computes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from tests.tolerances import assert_close, rounding
from tests.transformer.tiny_models import FAMILIES, tiny_model

from lamina.bridges.huggingface import Block, find_blocks
from lamina.core.errors import DataError, SpecError
from lamina.core.functions import ACTIVATIONS

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

KINDS = {"plain": {"gpt2", "bert", "whisper"}, "experts": {"mixtral", "olmoe", "qwen3_moe"}}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tiny products gain nothing by two threads, which wait for each other on a busy machine."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def by_hand(block: Block, x: np.ndarray, expert: int | None = None) -> np.ndarray:
    """Return what the block makes of x, from the arrays that it offers, in float64."""
    arrays = {name: block.array(name).astype(np.float64) for name in block.weights}
    if expert is not None:
        arrays = {name: array[expert] for name, array in arrays.items()}

    def layer(part: str, h: np.ndarray) -> np.ndarray:
        return h @ arrays[f"w_{part}"].T + arrays.get(f"b_{part}", 0.0)

    if not block.gated:
        return layer("out", ACTIVATIONS[block.activation].value(layer("in", x)))
    hidden = ACTIVATIONS[block.activation].value(layer("gate", x)) * layer("up", x)
    return layer("down", hidden)


def by_the_model(block: Block, x: np.ndarray, expert: int | None = None) -> np.ndarray:
    """Return what the model's own modules make of x."""
    module, rows = block.module, torch.tensor(x, dtype=torch.float32)
    with torch.no_grad():
        if block.form == "experts":
            ids = torch.full((len(rows), 1), expert)
            y = module(rows, ids, torch.ones(len(rows), 1))
        elif block.form == "inline":
            y = module.fc2(module.activation_fn(module.fc1(rows)))
        elif block.form == "spread":
            y = module.output.dense(module.intermediate(rows))
        else:
            y = module(rows)
    return y.numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_arrays_of_a_block_compute_what_the_model_does(family):
    model = tiny_model(family)
    names = set(model.state_dict())
    for block in find_blocks(model):
        x = np.random.default_rng(0).normal(size=(3, block.d_model))
        for expert in range(block.n_experts) if block.kind == "experts" else (None,):
            found = by_the_model(block, x, expert)
            assert_close(found, by_hand(block, x, expert), rounding(np.float32, block.d_ff))
        assert {matrix.name for matrix in block.weights.values()} <= names
        assert block.n_params == sum(block.array(name).size for name in block.weights)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_has_its_block_and_kind(family):
    blocks = find_blocks(tiny_model(family))
    stacks = {block.stack for block in blocks}
    assert len(stacks) == (2 if family == "whisper" else 1)
    for stack in stacks:
        assert {block.layer for block in blocks if block.stack == stack} == {0, 1}
    kinds = {block.kind for block in blocks}
    if family in KINDS["plain"]:
        assert kinds == {"plain"}
    elif family in KINDS["experts"]:
        assert kinds == {"experts"}
    elif family in ("qwen2_moe", "deepseek_v2", "deepseek_v3"):
        assert kinds == {"gated", "experts"}
        assert any(block.shared for block in blocks)
    else:
        assert kinds == {"gated"}
    for block in blocks:
        if block.kind == "experts":
            assert (block.n_experts, block.top_k) == (4, 2)
            assert block.router == block.path.replace("experts", "gate")


def test_the_properties_are_the_named_matrices():
    plain, gated = find_blocks(tiny_model("gpt2"))[0], find_blocks(tiny_model("llama"))[0]
    assert plain.w_in.shape == (64, 16)
    assert plain.w_out.shape == (16, 64)
    assert gated.w_gate.shape == gated.w_up.shape == (40, 16)
    assert gated.w_down.shape == (16, 40)
    assert find_blocks(tiny_model("mixtral"))[0].w_down.shape == (4, 16, 40)
    with pytest.raises(SpecError, match="expected one of w_gate, w_up, w_down of the gated block"):
        _ = gated.w_in


def test_weights_in_bfloat16_are_read_as_float32():
    model = tiny_model("llama").bfloat16()
    block = find_blocks(model)[0]
    assert block.w_up.dtype == np.float32
    want = model.model.layers[0].mlp.up_proj.weight.detach().float().numpy()
    np.testing.assert_array_equal(block.w_up, want)


def test_a_model_without_weights_has_blocks_but_no_arrays():
    from tests.transformer.tiny_models import tiny_config
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config("llama"))
    block = find_blocks(model)[1]
    assert (block.d_model, block.d_ff) == (16, 40)
    with pytest.raises(DataError, match="expected a model with weights"):
        _ = block.w_gate


@pytest.mark.parametrize("thing", [3, "gpt2", None])
def test_what_is_no_model_is_refused(thing):
    with pytest.raises(SpecError, match="expected a model of PyTorch modules"):
        find_blocks(thing)


def test_a_model_with_no_recognisable_block_is_refused():
    with pytest.raises(SpecError, match="got Sequential with none that is recognised"):
        find_blocks(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()))


def test_two_layers_that_do_not_lead_back_are_no_block():
    connector = torch.nn.Module()
    connector.fc1, connector.fc2 = torch.nn.Linear(4, 8), torch.nn.Linear(8, 6)
    with pytest.raises(SpecError, match="none that is recognised"):
        find_blocks(connector)


class LoraLinear(torch.nn.Module):
    """Shaped like the adapter library's wrapper of a linear layer."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.lora_A = torch.nn.ModuleDict()
        self.weight = base_layer.weight


class QuantisedLinear(torch.nn.Module):
    def __init__(self, base):
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.qweight = torch.zeros(1, dtype=torch.int8)


def test_layers_wrapped_by_lora_are_refused():
    model = tiny_model("llama")
    model.model.layers[1].mlp.up_proj = LoraLinear(model.model.layers[1].mlp.up_proj)
    with pytest.raises(SpecError, match=r"layers\.1\.mlp\.up_proj wrapped by an adapter"):
        find_blocks(model)


class DequantisedWhenUsed(torch.Tensor):
    """A tensor that says it is of floats and keeps something else, as torchao's."""


@pytest.mark.parametrize(
    "how", ["other class", "eight bits", "tensor subclass", "dynamic", "parametrised"]
)
def test_quantised_layers_are_refused(how):
    model = tiny_model("llama")
    mlp = model.model.layers[0].mlp
    layer = mlp.down_proj
    if how == "other class":
        mlp.down_proj = QuantisedLinear(layer)
    elif how == "tensor subclass":
        weight = layer.weight.detach().as_subclass(DequantisedWhenUsed)
        layer._parameters["weight"] = weight
    elif how == "dynamic":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that this way goes in the future
            torch.ao.quantization.quantize_dynamic(mlp, {torch.nn.Linear}, inplace=True)
            mlp.gate_proj, mlp.up_proj = layer_of(16, 40), layer_of(16, 40)
    elif how == "parametrised":
        torch.nn.utils.parametrizations.weight_norm(layer)
    else:
        layer.weight = torch.nn.Parameter(layer.weight.to(torch.float8_e4m3fn), False)
    with pytest.raises(SpecError, match=r"down_proj of .*, which is quantised or changed"):
        find_blocks(model)


def layer_of(d_in, d_out):
    return torch.nn.Linear(d_in, d_out, bias=False)


def test_quantised_experts_are_refused():
    model = tiny_model("mixtral")
    experts = model.model.layers[1].mlp.experts
    weight = experts.down_proj.detach().to(torch.float8_e4m3fn)
    experts.down_proj = torch.nn.Parameter(weight, requires_grad=False)
    with pytest.raises(SpecError, match=r"experts\.down_proj of .*, which is quantised or changed"):
        find_blocks(model)


def test_a_linear_layer_of_a_familys_own_class_is_read():
    from transformers.models.falcon.modeling_falcon import FalconLinear

    mlp = torch.nn.Module()
    mlp.dense_h_to_4h, mlp.dense_4h_to_h = FalconLinear(4, 9), FalconLinear(9, 4)
    mlp.act = torch.nn.GELU()
    block = find_blocks(mlp)[0]
    np.testing.assert_array_equal(block.w_in, mlp.dense_h_to_4h.weight.detach().numpy())


def test_gate_and_up_in_one_layer_are_told_apart():
    mlp = torch.nn.Module()
    mlp.gate_up_proj = torch.nn.Linear(6, 20, bias=True)
    mlp.down_proj, mlp.act_fn = torch.nn.Linear(10, 6), torch.nn.SiLU()
    block = find_blocks(mlp)[0]
    np.testing.assert_array_equal(block.w_up, mlp.gate_up_proj.weight.detach()[10:].numpy())
    np.testing.assert_array_equal(block.array("b_gate"), mlp.gate_up_proj.bias.detach()[:10])


def test_a_gate_of_the_familys_own_has_no_activation_of_ours():
    experts = torch.nn.Module()
    experts.gate_up_proj = torch.nn.Parameter(torch.zeros(2, 8, 3))
    experts.down_proj = torch.nn.Parameter(torch.zeros(2, 3, 4))
    experts.act_fn, experts.is_concatenated = torch.nn.SiLU(), False
    parent = torch.nn.Module()
    parent.experts = experts
    block = find_blocks(parent)[0]
    assert block.activation is None
    assert block.activation_name == "SiLU"

"""FeedForward and GatedFeedForward: PyTorch's numbers, in every way PyTorch runs a module."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from tests.tolerances import LOOSEST, assert_close, assert_same_bits, rounding
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lamina.core.engine import bfloat16_unit
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.transformer import FeedForward, GatedFeedForward, operators, tensors

D_MODEL, D_FF = 40, 100
half_only = pytest.mark.skipif(bfloat16_unit() is None, reason="no bfloat16 products here")
BOTH = pytest.mark.parametrize("kind", [FeedForward, GatedFeedForward])
ACTIVATIONS = ["gelu", "gelu_tanh", "relu", "squared_relu", "silu"]


def in_formulas(module: Any, x: Tensor) -> Tensor:
    """The published formula, in the dtype of x, on copies of the parameters that take gradients."""
    p = {name: w.detach().to(x.dtype).requires_grad_() for name, w in module.named_parameters()}
    phi = {
        "gelu": lambda z: 0.5 * z * (1 + torch.erf(z / 2**0.5)),
        "gelu_tanh": lambda z: (
            0.5 * z * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3)))
        ),
        "relu": lambda z: z * (z > 0),
        "squared_relu": lambda z: z**2 * (z > 0),
        "silu": lambda z: z / (1 + torch.exp(-z)),
    }[module.activation]
    if isinstance(module, FeedForward):
        y = phi(x @ p["w_in"].T + p.get("b_in", 0)) @ p["w_out"].T + p.get("b_out", 0)
    else:
        gate = phi(x @ p["w_gate"].T + p.get("b_gate", 0))
        y = (gate * (x @ p["w_up"].T + p.get("b_up", 0))) @ p["w_down"].T + p.get("b_down", 0)
    in_formulas.leaves = p
    return y


def results(y: Tensor, x: Tensor, parameters: dict[str, Tensor], grad: Tensor) -> dict[str, Any]:
    """y, and the gradients by x and every parameter."""
    found = torch.autograd.grad(y, [x, *parameters.values()], grad.to(y.dtype))
    named = zip(["y", "x", *parameters], [y.detach(), *found], strict=True)
    return {name: t.double().numpy() for name, t in named}


def of_module(module: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Any]:
    x = x.detach().clone().requires_grad_()
    return results(module(x), x, dict(module.named_parameters()), grad)


def expected(module: Any, x: Tensor, grad: Tensor, dtype: torch.dtype) -> dict[str, Any]:
    x = x.detach().to(dtype).requires_grad_()
    y = in_formulas(module, x)
    return results(y, x, in_formulas.leaves, grad)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def assert_all_close(got: dict[str, Any], wanted: dict[str, Any], tolerance: float) -> None:
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(got[name], value, tolerance, name)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()  # its limit of recompilations counts those of all tests


@BOTH
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_the_formulas(kind, activation, bias):
    module = kind(D_MODEL, D_FF, activation, bias=bias)
    x, grad = draw(3, 7, D_MODEL), draw(3, 7, D_MODEL, seed=2)
    assert module.path(x) == "float32"
    wanted = expected(module, x, grad, torch.float64)
    assert_all_close(of_module(module, x, grad), wanted, rounding("float32", D_FF, c=2))


@BOTH
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_plain_torch_gives_the_same_and_float64_is_exact(kind, activation):
    module = kind(D_MODEL, D_FF, activation, bias=True, dtype=torch.float64)
    x, grad = draw(5, D_MODEL).double(), draw(5, D_MODEL, seed=2).double()
    assert module.path(x) == "torch"
    wanted = expected(module, x, grad, torch.float64)
    assert_all_close(of_module(module, x, grad), wanted, rounding("float64", D_FF))
    plain = kind(D_MODEL, D_FF, activation, bias=True, native=False)
    plain.load_state_dict(module.state_dict())
    x = x.float()
    assert plain.path(x) == "torch"
    assert_all_close(of_module(plain, x, grad), wanted, rounding("float32", D_FF, c=2))


@half_only
@BOTH
@pytest.mark.parametrize("way", ["tensors", "autocast", "precision"])
@pytest.mark.parametrize("n", [3, 40])
def test_bfloat16_is_no_worse_than_torchs_own(kind, way, n):
    module = kind(D_MODEL, D_FF, bias=True, precision="bfloat16" if way == "precision" else None)
    module = module.to(torch.bfloat16)  # weights that are exact in all ways
    x, grad = draw(n, D_MODEL).bfloat16(), draw(n, D_MODEL, seed=2).bfloat16()
    wanted = expected(module, x.double(), grad.double(), torch.float64)
    torchs = expected(module, x, grad, torch.bfloat16)
    if way != "tensors":
        module, x = module.float(), x.float()
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        assert module.path(x) == "bfloat16"
        y = module(x)
        got = of_module(module, x, grad.float())
    assert y.dtype == (torch.float32 if way == "precision" else torch.bfloat16)
    for name, value in wanted.items():
        ours, theirs = (np.linalg.norm(r[name] - value) for r in (got, torchs))
        assert ours <= 1.1 * theirs, f"{name}: {ours:g}, torch's own error {theirs:g}"
        assert ours <= 2 * LOOSEST * np.linalg.norm(value), name


@half_only
@BOTH
def test_the_wish_for_bfloat16_holds_in_plain_torch_too(kind):
    module = kind(D_MODEL, D_FF, precision="bfloat16")
    x = draw(6, D_MODEL)
    y = module(x)
    module.native = False
    plain = module(x)
    assert plain.dtype == torch.float32
    assert_close(y.detach(), plain.detach(), LOOSEST)
    module.native, module.precision = True, None
    assert_close(y.detach(), module(x).detach(), LOOSEST)
    assert not torch.equal(y, module(x))
    assert not torch.equal(plain, module(x))


def test_gpt2_mlp_computes_the_same():
    from transformers import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, resid_pdrop=0.0)
    theirs = GPT2MLP(128, config)
    nn.init.normal_(theirs.c_fc.bias)
    ours = FeedForward(32, 128, "gelu_tanh")
    names = {"w_in": "c_fc.weight", "b_in": "c_fc.bias", "w_out": "c_proj.weight"}
    names["b_out"] = "c_proj.bias"
    check_same(ours, theirs, names, turned=True)


def test_llama_mlp_computes_the_same():
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    theirs = LlamaMLP(LlamaConfig(hidden_size=32, intermediate_size=88, num_attention_heads=2))
    names = {f"w_{n}": f"{n}_proj.weight" for n in ("gate", "up", "down")}
    check_same(GatedFeedForward(32, 88), theirs, names, turned=False)


def check_same(ours: nn.Module, theirs: nn.Module, names: dict[str, str], turned: bool) -> None:
    """Hold outputs and gradients of ours to theirs: `turned` weights are stored (in, out)."""
    source = dict(theirs.named_parameters())
    turn = {n: turned and p.dim() == 2 for n, p in ours.named_parameters()}
    with torch.no_grad():
        for name, p in ours.named_parameters():
            p.copy_(source[names[name]].T if turn[name] else source[names[name]])
    x, grad = draw(2, 5, 32), draw(2, 5, 32, seed=2)
    got, wanted = of_module(ours, x, grad), of_module(theirs, x, grad)
    back = {v: k for k, v in names.items()}
    wanted = {back.get(k, k): v.T if turn.get(back.get(k, "")) else v for k, v in wanted.items()}
    assert_all_close(got, {name: wanted[name] for name in got}, 1e-5)


# --- the ways PyTorch runs a module -----------------------------------------------------------


@BOTH
def test_inference_is_training_to_the_bit_with_or_without_a_pack(kind):
    module = kind(D_MODEL, D_FF, bias=True)
    x = draw(5, D_MODEL)
    y = module(x).detach()
    with torch.no_grad():
        assert_same_bits(module(x), y, "train mode")
        assert module._slot._kept is None
        module.eval()
        assert_same_bits(module(x), y, "packs")
        assert module._slot._kept is not None
        assert_same_bits(module(x), y, "packed")
    with torch.inference_mode():
        assert_same_bits(module(x), y, "inference_mode")


@BOTH
def test_a_pack_never_outlives_its_weights(kind):
    module = kind(D_MODEL, D_FF).eval()
    x = draw(5, D_MODEL)
    first = next(module.parameters())
    other = {name: torch.randn_like(p) for name, p in module.state_dict().items()}

    def in_place() -> None:
        first.mul_(2)

    def new_data() -> None:
        first.data = first.detach() * 2

    def optimiser() -> None:
        for p in module.parameters():
            p.grad = torch.ones_like(p)
        torch.optim.SGD(module.parameters(), lr=0.1).step()

    def moved() -> None:
        module.double().float()
        first.data.mul_(2)

    def data_in_place() -> None:
        first.data.mul_(2)
        module.drop_pack()

    def loaded() -> None:
        module.load_state_dict(other)

    def assigned() -> None:
        module.load_state_dict({k: v * 2 for k, v in other.items()}, assign=True)

    with torch.no_grad():
        for change in (in_place, new_data, optimiser, moved, data_in_place, loaded, assigned):
            before = module(x)
            assert module._slot._kept is not None
            change()
            y = module(x)
            assert not torch.equal(y, before), change.__name__
            module.native = False
            assert_close(y, module(x), rounding("float32", D_FF), change.__name__)
            module.native = True


def test_weights_made_under_inference_mode_are_never_packed():
    with torch.inference_mode():
        module = FeedForward(D_MODEL, D_FF).eval()
        x = draw(5, D_MODEL)
        before = module(x)
        module.w_in.mul_(2)  # no counter tells of it
        assert not torch.equal(module(x), before)


@BOTH
def test_copies_and_pickles_compute_alone(kind):
    module = kind(D_MODEL, D_FF, dropout=0.25).eval()
    x = draw(5, D_MODEL)
    with torch.no_grad():
        y = module(x)
        stream = io.BytesIO()
        torch.save(module, stream)
        stream.seek(0)
        for twin in (
            copy.deepcopy(module),
            pickle.loads(pickle.dumps(module)),
            torch.load(stream, weights_only=False),
        ):
            assert repr(twin) == repr(module)
            assert twin._slot._kept is None
            assert_same_bits(twin(x), y)
            next(twin.parameters()).zero_()
            twin(x)
            assert_same_bits(module(x), y)
    twin = kind(D_MODEL, D_FF)
    twin.load_state_dict(module.state_dict())
    assert_same_bits(twin.eval()(x).detach(), y)


@BOTH
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(kind, reentrant):
    module = kind(D_MODEL, D_FF)
    x, grad = draw(5, D_MODEL), draw(5, D_MODEL, seed=2)
    wanted = of_module(module, x, grad)
    x.requires_grad_()
    checkpoint(module, x, use_reentrant=reentrant).backward(grad)
    assert_same_bits(x.grad.double(), wanted["x"])
    for name, p in module.named_parameters():
        assert_same_bits(p.grad.double(), wanted[name], name)


@BOTH
def test_saved_tensors_may_be_packed_away(kind):
    module = kind(D_MODEL, D_FF)
    x, grad = draw(5, D_MODEL), draw(5, D_MODEL, seed=2)
    wanted = of_module(module, x, grad)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy().copy(), torch.from_numpy):
        y = module(x.requires_grad_())
    gc.collect()
    y.backward(grad)  # what the engine kept is gone with the tensor, and computed again
    assert_same_bits(x.grad.double(), wanted["x"])


def test_what_the_engine_keeps_ends_with_the_graph():
    module = FeedForward(D_MODEL, D_FF)
    gc.collect()
    before = len(operators._keys)
    y = module(draw(5, D_MODEL))
    assert len(operators._keys) == before + 1
    y.sum().backward(retain_graph=True)
    first = module.w_in.grad.clone()
    y.sum().backward()
    assert_same_bits(module.w_in.grad, 2 * first)
    del y
    gc.collect()
    assert len(operators._keys) == before


@BOTH
def test_only_what_asks_for_a_gradient_gets_one(kind):
    module = kind(D_MODEL, D_FF, bias=True)
    x, grad = draw(5, D_MODEL), draw(5, D_MODEL, seed=2)
    wanted = of_module(module, x, grad)
    for chosen, p in module.named_parameters():
        for name, q in module.named_parameters():
            q.requires_grad_(name == chosen)
        module(x).backward(grad)
        assert_same_bits(p.grad.double(), wanted[chosen], chosen)
        p.grad = None
    module.requires_grad_(False)
    x.requires_grad_()
    module(x).backward(grad)
    assert_same_bits(x.grad.double(), wanted["x"])
    assert all(p.grad is None for p in module.parameters())
    assert not module(x.detach()).requires_grad


def test_changing_a_weight_before_backward_is_an_error():
    module = FeedForward(D_MODEL, D_FF)
    y = module(draw(5, D_MODEL))
    with torch.no_grad():
        module.w_out.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@BOTH
def test_a_second_derivative_is_refused_and_native_false_has_it(kind):
    module = kind(D_MODEL, D_FF)
    x = draw(2, D_MODEL).requires_grad_()

    def penalty() -> Tensor:
        (slope,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        return slope.square().sum()

    value = penalty()
    with pytest.raises(SpecError, match="native=False for second derivatives"):
        value.backward()
    module.native = False
    penalty().backward()
    assert_close(value.detach(), penalty().detach(), 1e-4)


def test_torch_func_transforms_run_in_plain_torch():
    module = FeedForward(D_MODEL, D_FF)
    x = draw(4, 3, D_MODEL)
    with torch.no_grad():
        assert_close(torch.vmap(module)(x), module(x), rounding("float32", D_FF))
    found = torch.func.grad(lambda x: module(x).sum())(x)
    assert_close(
        found.detach(), of_module(module, x, torch.ones_like(x))["x"], rounding("float32", D_FF)
    )


def test_flops_can_be_counted_and_a_meta_module_has_shapes():
    module = GatedFeedForward(D_MODEL, D_FF, device="meta")
    x = torch.empty(2, 3, D_MODEL, device="meta")
    assert module.path(x) == "torch"
    assert module(x).shape == x.shape


def test_views_strides_and_empty_batches_are_fine():
    module = FeedForward(D_MODEL, D_FF)
    x = draw(D_MODEL, 6)
    y = module(x.T)
    assert_same_bits(y.detach(), module(x.T.contiguous()).detach())
    y.sum().backward()
    assert module(torch.empty(0, D_MODEL)).shape == (0, D_MODEL)
    assert module(torch.empty(2, 0, D_MODEL, requires_grad=True)).sum().backward() is None
    assert module(draw(D_MODEL)).shape == (D_MODEL,)


def test_dropout_is_torchs_on_the_result_and_only_in_training():
    module = FeedForward(D_MODEL, D_FF, dropout=0.5)
    x = draw(50, D_MODEL)
    torch.manual_seed(3)
    y = module(x)
    module.dropout = 0.0
    torch.manual_seed(3)
    assert_same_bits(y.detach(), functional.dropout(module(x), 0.5).detach())
    module.dropout = 0.5
    assert (module.eval()(x) != 0).all()


def test_nan_stays_in_its_row():
    x = draw(5, D_MODEL)
    x[2, 7] = torch.nan
    y = FeedForward(D_MODEL, D_FF)(x)
    assert y.isnan().any(dim=1).tolist() == [False, False, True, False, False]


def test_torch_compile_takes_the_whole_graph():
    module = FeedForward(D_MODEL, D_FF)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x, grad = draw(5, D_MODEL), draw(5, D_MODEL, seed=2)
    wanted = of_module(module, x, grad)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its modules
        x.requires_grad_()
        y = compiled(x)
        y.backward(grad)
        assert_same_bits(y.detach().double(), wanted["y"])
        assert_same_bits(x.grad.double(), wanted["x"])
        assert_same_bits(module.w_in.grad.double(), wanted["w_in"])
        module.eval()
        with torch.no_grad():
            assert_same_bits(compiled(x).double(), wanted["y"])
        assert module._slot._kept is not None


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("way", ["float32", "autocast", "inference"])
def test_torch_compile_with_its_own_code_generator(kind, way):
    module = kind(D_MODEL, D_FF, bias=True)
    block = nn.Sequential(nn.LayerNorm(D_MODEL), module, nn.Linear(D_MODEL, 1))
    compiled = torch.compile(block, fullgraph=True)
    x = draw(5, D_MODEL)
    with (
        warnings.catch_warnings(),
        torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"),
        torch.inference_mode(way == "inference"),
    ):
        warnings.simplefilter("ignore")
        for n in (5, 9, 30):  # recompiles with a symbolic number of rows
            x = draw(n, D_MODEL)
            assert_close(compiled(x).detach().float(), block(x).detach().float(), LOOSEST)
        if way != "inference":
            compiled(x).float().sum().backward()
            got = module.w_in.grad if kind is FeedForward else module.w_up.grad
            got = got.clone()
            block.zero_grad()
            block(x).float().sum().backward()
            again = module.w_in.grad if kind is FeedForward else module.w_up.grad
            assert_close(got, again, LOOSEST)


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((0, 8), {}, "expected d_model to be a whole number of at least 1, got 0"),
        ((8, 2.5), {}, "expected d_ff to be a whole number of at least 1, got 2.5"),
        ((8, 8, "tanh"), {}, "expected activation to be one of gelu, gelu_tanh, relu, squared_"),
        ((8, 8), {"dropout": 1.0}, "expected dropout to be"),
        ((8, 8), {"precision": "float16"}, "expected precision to be one of bfloat16"),
    ],
)
@BOTH
def test_a_wrong_argument_gets_one_sentence(kind, arguments, options, sentence):
    with pytest.raises(SpecError, match=sentence) as caught:
        kind(*arguments, **options)
    assert str(caught.value).startswith(kind.__name__ + ": ")


@BOTH
def test_a_wrong_input_gets_one_sentence(kind):
    module = kind(D_MODEL, D_FF)
    with pytest.raises(ShapeError, match=r"expected x of shape \(..., 40\), got \(3, 41\)"):
        module(draw(3, 41))
    with pytest.raises(ShapeError, match=r"got \(\)"):
        module(torch.tensor(1.0))
    with pytest.raises(DataError, match=r"expected floating numbers, got torch.int64"):
        module(torch.ones(3, D_MODEL, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="dtype"):  # torch's own words
        module(draw(3, D_MODEL).bfloat16())


def test_a_wish_that_the_processor_cannot_meet_is_refused(monkeypatch):
    from lamina.core import engine

    monkeypatch.setattr(tensors, "_has_bfloat16", lambda: False)
    monkeypatch.setattr(engine, "bfloat16_unit", lambda: None)
    with pytest.raises(SpecError, match="FeedForward: expected a processor with AMX-BF16"):
        FeedForward(D_MODEL, D_FF, precision="bfloat16")(draw(3, D_MODEL))
    module = FeedForward(D_MODEL, D_FF, dtype=torch.bfloat16)
    assert module.path(draw(3, D_MODEL).bfloat16()) == "torch"


@pytest.mark.parametrize("operator", ["experts_alone", "experts_to_learn", "experts_backward"])
def test_the_operators_are_what_pytorch_expects_of_one(operator):
    module = FeedForward(D_MODEL, D_FF).requires_grad_(operator == "experts_to_learn")
    tensors = [draw(5, D_MODEL), *module.weights(), None, None]
    arguments: list[Any] = [*tensors, "gelu", "float32"]
    # Each call of experts_to_learn returns a key of its own, so that its results are not compared.
    tests = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if operator == "experts_backward":
        y, key = operators.experts_to_learn(*arguments, False)
        wanted = [t is not None for t in (*tensors[:7], None)]
        arguments = [torch.ones_like(y), key, *arguments, wanted]
    else:
        arguments += [False, 0] if operator == "experts_alone" else [False]
    torch.library.opcheck(getattr(operators, operator), tuple(arguments), test_utils=tests)

"""The output head run by the engine: near the original, and the original where it must be."""

from __future__ import annotations

import copy
import io

import pytest
from tests.transformer.tiny_models import sample_inputs, tiny_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from lamina import transformer  # noqa: E402
from lamina.bridges.huggingface import find_head  # noqa: E402
from lamina.core.engine import bfloat16_unit  # noqa: E402
from lamina.transformer import native_head  # noqa: E402
from lamina.transformer.native_head import NativeHead  # noqa: E402

FAMILIES = ["gpt2", "llama", "bert", "whisper", "mixtral"]


def logits(model):
    with torch.no_grad():
        return model(**sample_inputs(model)).logits


def distance(found, wanted) -> float:
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def with_head(family="llama", dtype="float32", **options):
    """Return a model whose head alone the engine runs, and its logits before."""
    model = tiny_model(family)
    want = logits(model)
    report = transformer.accelerate(model, dtype, measure=False, **options)
    for module in model.modules():
        if not isinstance(module.__dict__.get("forward"), NativeHead | None):
            del module.__dict__["forward"]
    return model, want, report


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_its_head_found(family):
    model = tiny_model(family)
    found = find_head(model)
    if found is None:  # BERT's own model ends with hidden states
        assert getattr(model, "get_output_embeddings", lambda: None)() is None
        return
    path, module = found
    assert model.get_submodule(path) is module
    assert module is model.get_output_embeddings()


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-5), ("int8", 0.05)])
@pytest.mark.parametrize("family", ["gpt2", "llama", "whisper"])
def test_logits_are_near_the_original(family, dtype, most):
    model, want, report = with_head(family, dtype)
    assert report.head.swapped
    assert isinstance(model.get_output_embeddings().__dict__["forward"], NativeHead)
    assert distance(logits(model), want) < most
    assert dtype == "float32" or distance(logits(model), want) > 0
    transformer.restore(model)
    assert torch.equal(logits(model), want)


@pytest.mark.skipif(bfloat16_unit() is None, reason="no bfloat16 here")
def test_a_model_in_bfloat16_has_logits_in_bfloat16():
    model = tiny_model("llama").bfloat16()
    want = logits(model)
    assert transformer.accelerate(model, measure=False).head.swapped
    assert distance(logits(model), want) < 0.03


@pytest.mark.skipif(bfloat16_unit() is None, reason="no bfloat16 here")
def test_of_many_rows_in_bfloat16_the_original_runs():
    module = torch.nn.Linear(16, 70).bfloat16().eval()
    head = NativeHead(module, "int8")
    few, many = torch.randn(32, 16).bfloat16(), torch.randn(33, 16).bfloat16()
    with torch.no_grad():
        assert not torch.equal(head(few), module(few))
        assert torch.equal(head(many), module(many))
        assert 0 < distance(head.by_engine(many), module(many)) < 0.05


def test_it_can_be_left_out():
    model, want, report = with_head(head=False)
    assert report.head is None
    assert torch.equal(logits(model), want)
    assert report.to_dict()["head"] is None
    assert "head" not in str(report)


def test_gradients_and_training_run_the_original():
    model, want, _ = with_head()
    found = model(**sample_inputs(model)).logits
    assert torch.equal(found.detach(), want)
    found.square().mean().backward()
    grad = model.get_output_embeddings().weight.grad
    transformer.restore(model)
    model.zero_grad()
    model(**sample_inputs(model)).logits.square().mean().backward()
    assert torch.equal(model.get_output_embeddings().weight.grad, grad)
    model, want, _ = with_head()
    head = model.get_output_embeddings()
    x = torch.randn(3, head.in_features)
    with torch.no_grad():
        assert torch.equal(head.train()(x), torch.nn.functional.linear(x, head.weight))


@pytest.mark.parametrize("which", ["weight", "bias", "x"])
def test_whatever_learns_gets_its_gradient(which):
    module, x = torch.nn.Linear(16, 70).eval().requires_grad_(False), torch.randn(3, 16)
    learner = x if which == "x" else getattr(module, which)
    learner.requires_grad_()
    NativeHead(module, "float32")(x).sum().backward()
    assert learner.grad is not None


def test_new_weights_are_seen():
    model, before, _ = with_head()
    logits(model)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(2)
    found = logits(model)
    transformer.restore(model)
    assert distance(found, logits(model)) < 1e-5
    assert distance(found, before) > 0.1


def test_copies_and_pickles_have_a_head_of_their_own():
    model, _, _ = with_head()
    want = logits(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        forward = twin.get_output_embeddings().__dict__["forward"]
        assert forward.module is twin.get_output_embeddings()
        with torch.no_grad():
            twin.get_output_embeddings().weight.zero_()
        assert float(logits(twin).abs().max()) == 0
    assert torch.equal(logits(model), want)


@pytest.mark.parametrize("shape", [(5, 16), (2, 3, 16), (16,), (0, 16), (1, 1, 1, 16)])
@pytest.mark.parametrize("bias", [False, True])
def test_rows_of_any_shape_pass(shape, bias):
    torch.manual_seed(0)
    module = torch.nn.Linear(16, 70, bias=bias).eval()
    x = torch.randn(shape)
    with torch.no_grad():
        found = NativeHead(module, "float32")(x)
        assert found.shape == module(x).shape
        assert torch.allclose(found, module(x), rtol=1e-5, atol=1e-6)


def test_strided_rows_pass():
    module, x = torch.nn.Linear(16, 70).eval(), torch.randn(16, 9).T
    with torch.no_grad():
        assert torch.allclose(NativeHead(module, "float32")(x), module(x), rtol=1e-5, atol=1e-6)


def test_a_compiled_head_is_one_graph_with_the_engine_in_it():
    module = torch.nn.Linear(16, 70).eval()
    module.forward = NativeHead(module, "float32")
    x = torch.randn(4, 16)
    with torch.no_grad():
        want = module(x)
        found = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(found, want)


def test_the_operator_is_what_pytorch_expects_of_one():
    arguments = (torch.randn(5, 16), torch.randn(70, 16), None, "float32", False, 0)
    torch.library.opcheck(native_head.linear_alone, arguments)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda head: head.half(), "its weights are float16"),
        (lambda head: setattr(head, "forward", torch.nn.functional.relu), "another library"),
        (lambda head: head.weight.data.fill_(float("nan")), "no finite numbers"),
    ],
)
def test_a_head_that_cannot_be_run_is_left_and_said(change, says):
    model = tiny_model("llama")
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())  # not the embedding's
    change(head)
    report = transformer.accelerate(model, "float32", measure=False)
    assert not report.head.swapped
    assert says in report.head.reason
    assert f"Left as it was: lm_head: {report.head.reason}" in str(report)
    assert report.n_swapped == len(report.blocks)
    assert not isinstance(head.__dict__.get("forward"), NativeHead)


def test_a_head_that_does_not_match_is_left(monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setattr(NativeHead, "by_engine", lambda self, x: self.original(x) * 1.1)
    report = transformer.accelerate(model, "float32", measure=False)
    assert not report.head.swapped
    assert "its error is 1.0e-01" in report.head.reason


def test_sample_inputs_reach_the_head_and_speed_is_measured():
    model = tiny_model("llama")
    report = transformer.accelerate(model, "float32", sample_inputs=sample_inputs(model))
    assert report.head.swapped
    assert all(seconds > 0 for seconds in (*report.head.prefill, *report.head.decode))
    assert report.to_dict()["head"]["kind"] == "head"
    assert "It runs the output head, lm_head, too." in str(report)
    assert report.head.n_params == model.get_output_embeddings().weight.numel()

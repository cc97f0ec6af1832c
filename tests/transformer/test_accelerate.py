"""Accelerated models against transformers' own, family by family, and how to get back."""

from __future__ import annotations

import copy
import io
import json
import shutil

import pytest
from click.testing import CliRunner
from tests.transformer.tiny_models import FAMILIES, OTHERS, sample_inputs, tiny_model

from lamina.cli.main import cli
from lamina.core.errors import DataError, SpecError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from lamina import transformer  # noqa: E402
from lamina.bridges.huggingface import find_blocks  # noqa: E402
from lamina.core.engine import bfloat16_unit  # noqa: E402
from lamina.transformer.model_speed import model_speed  # noqa: E402
from lamina.transformer.native_block import NativeBlock  # noqa: E402

HALF = pytest.param(
    "bfloat16", marks=pytest.mark.skipif(bfloat16_unit() is None, reason="no bfloat16 here")
)
MIXTURES = ["mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tiny products gain nothing by two threads, which wait for each other on a busy machine."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def distance(found, wanted) -> float:
    """Return |found - wanted| / |wanted|; both must be of one shape, finite, and not all zero."""
    assert found.shape == wanted.shape
    assert found.isfinite().all()
    found, wanted = found.detach(), wanted.detach()
    size = float(wanted.double().norm())
    assert size > 0
    return float((found.double() - wanted.double()).norm()) / size


def logits(model):
    with torch.no_grad():
        return model(**sample_inputs(model)).logits


def gradients(model) -> dict:
    model.zero_grad()
    model(**sample_inputs(model)).logits.square().mean().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def accelerated(model, dtype="float32", **options):
    report = transformer.accelerate(model, dtype, measure=False, **options)
    assert report.n_swapped == len(report.blocks), report
    return model


@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_outputs_and_gradients_are_the_familys_own_in_float32(family):
    model = tiny_model(family)
    keys, want, want_gradients = list(model.state_dict()), logits(model), gradients(model)
    accelerated(model)
    assert list(model.state_dict()) == keys
    assert distance(logits(model), want) < 1e-5
    found = gradients(model)
    assert found.keys() == want_gradients.keys()
    for name, gradient in want_gradients.items():
        if gradient.norm() > 1e-6:
            assert distance(found[name], gradient) < 1e-5, name
    assert transformer.restore(model) == len(find_blocks(model))
    assert torch.equal(logits(model), want)
    assert transformer.restore(model) == 0


@pytest.mark.skipif(bfloat16_unit() is None, reason="no bfloat16 here")
@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_in_bfloat16_are_within_torchs_own_error(family):
    """Both sides against the block in float64: as near as torch's, give or take a tenth."""
    model = tiny_model(family, experts_implementation="eager")
    for block in find_blocks(model):
        x = torch.randn(32, block.d_model, generator=torch.Generator().manual_seed(0))
        more = ()
        if block.kind == "experts":
            ids = torch.arange(64).reshape(32, 2) % block.n_experts
            more = (ids, torch.full((32, 2), 0.5))
        native = NativeBlock(block, "bfloat16")
        module = block.module
        with torch.no_grad():
            found = native(x, *more)
            module.double()
            exact = native.whole_original(x.double(), *(_double(t) for t in more))
            module.bfloat16()
            half = native.whole_original(x.bfloat16(), *(_half(t) for t in more))
            from_half = native(x.bfloat16(), *(_half(t) for t in more))
            module.float()
        own = distance(half, exact)
        assert distance(found, exact) < 1.1 * own
        assert distance(from_half, exact) < 1.1 * own
        assert from_half.dtype == torch.bfloat16


def _double(t):
    return t.double() if t.is_floating_point() else t


def _half(t):
    return t.bfloat16() if t.is_floating_point() else t


@pytest.mark.skipif(bfloat16_unit() is None, reason="no bfloat16 here")
@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "whisper", "mixtral"])
def test_gradients_in_bfloat16_are_within_autocasts_own_error(family):
    model = tiny_model(family)
    exact = gradients(copy.deepcopy(model))
    with torch.autocast("cpu", torch.bfloat16):
        own = gradients(copy.deepcopy(model))
    found = gradients(accelerated(model, "bfloat16"))
    for name, gradient in exact.items():
        if "mlp" in name and gradient.dim() > 1:
            assert distance(found[name], gradient) < 1.5 * distance(own[name], gradient) + 4e-3


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "whisper", "mixtral"])
def test_int8_is_near_and_with_gradients_the_original_runs(family):
    model = tiny_model(family)
    want, want_gradients = logits(model), gradients(model)
    accelerated(model, "int8")
    assert 1e-4 < distance(logits(model), want) < 5e-2
    for name, gradient in gradients(model).items():
        assert torch.equal(gradient, want_gradients[name])


@pytest.mark.parametrize("dtype", ["float32", HALF])
def test_a_model_in_bfloat16_stays_so(dtype):
    model = tiny_model("llama").bfloat16()
    want = logits(model)
    found = logits(accelerated(model, dtype))
    assert found.dtype == torch.bfloat16
    assert distance(found, want) < 3e-2


@pytest.mark.parametrize("family", ["gpt2", "llama", "whisper", "bert", "mixtral"])
def test_generation_training_and_copies_see_new_weights(family):
    model = accelerated(tiny_model(family))
    logits(model)  # weights are packed now
    twin = copy.deepcopy(model)
    for version in ("in place", "load_state_dict", "the copy's"):
        if version == "load_state_dict":
            model.load_state_dict(tiny_model(family, seed=5).state_dict())
        else:
            changed = twin if version == "the copy's" else model
            with torch.no_grad():
                for parameter in changed.parameters():
                    parameter.mul_(1.1)
        for each in (model, twin):
            plain = copy.deepcopy(each)
            assert transformer.restore(plain) > 0
            assert distance(logits(each), logits(plain)) < 1e-5, version


def test_an_accelerated_model_is_pickled_whole():
    model = accelerated(tiny_model("mixtral"))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    back = torch.load(buffer, weights_only=False)
    assert distance(logits(back), logits(model)) < 1e-6
    assert transformer.restore(back) == 2


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_a_compiled_block_is_one_graph_with_the_engine_in_it(family):
    graphs = []

    def keep(graph, _):
        graphs.append(str(graph.graph))
        return graph.forward

    mlp = accelerated(tiny_model(family)).model.layers[0].mlp
    x = torch.randn(1, 4, 16)
    with torch.no_grad():
        found = torch.compile(mlp, backend=keep, fullgraph=True)(x)
        assert distance(found, mlp(x)) < 1e-6
    assert len(graphs) == 1
    assert "lamina.experts" in graphs[0]


def test_dropout_within_a_block_is_kept_while_training():
    for family, name in (("whisper", "activation_dropout"), ("gpt2", "resid_pdrop")):
        model = tiny_model(family, **{name: 0.9}).train()
        plain = copy.deepcopy(model)
        accelerated(model)
        torch.manual_seed(3)
        want = plain(**sample_inputs(plain)).logits
        torch.manual_seed(3)
        assert distance(model(**sample_inputs(model)).logits, want) < 1e-5


def test_modes_are_left_as_they_were():
    model = tiny_model("whisper").train()
    model.model.encoder.layers[0].fc1.eval()
    modes = [module.training for module in model.modules()]
    transformer.accelerate(model, "float32", sample_inputs=sample_inputs(model))
    assert [module.training for module in model.modules()] == modes


# ------------------------------------------------------------------------------- what is left alone


def test_a_block_that_does_not_match_is_left_and_said(monkeypatch):
    model = tiny_model("llama")
    want = logits(model)

    class Doubled(type(model.model.layers[0].mlp)):
        def forward(self, x):
            return 2 * super().forward(x)

    model.model.layers[1].mlp.__class__ = Doubled
    doubled = logits(model)
    report = transformer.accelerate(model, "float32")
    assert [block.swapped for block in report.blocks] == [True, False]
    assert report.left[0].error == pytest.approx(0.5, rel=1e-4)
    assert "Left as it was: model.layers.1.mlp: its error is 5.0e-01, above" in str(report)
    assert distance(logits(model), doubled) < 1e-5
    assert distance(doubled, want) > 1e-3


def test_a_tolerance_of_zero_leaves_all():
    model = tiny_model("llama")
    want = logits(model)
    assert transformer.accelerate(model, "float32", tolerance=0).n_swapped == 0
    assert torch.equal(logits(model), want)


def _with_nan(model):
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3, 4] = float("nan")


def _with_a_hook(model):
    model.model.layers[0].mlp.act_fn.register_forward_hook(lambda *_: None)


def _with_a_forward(model):
    mlp = model.model.layers[0].mlp
    mlp.forward = lambda x: type(mlp).forward(mlp, x)


def _with_half(model):
    model.model.layers[0].mlp.half()


def _with_an_activation(model):
    model.model.layers[0].mlp.act_fn = torch.nn.Softplus()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_with_nan, "it gives no finite numbers"),
        (_with_a_hook, "hooks watch its inner layers"),
        (_with_a_forward, "another library has replaced its forward"),
        (_with_half, "its weights are float16"),
        (_with_an_activation, "its activation or gate, Softplus, is not the engine's"),
    ],
)
def test_a_block_that_the_engine_cannot_run_is_left_and_said(change, says):
    model = tiny_model("llama")
    change(model)
    report = transformer.accelerate(model, "float32", measure=False)
    assert [block.swapped for block in report.blocks] == [False, True]
    assert report.left[0].reason.startswith(says)


@pytest.mark.parametrize("thing", [3, None, "gpt2"])
def test_what_is_no_model_is_refused(thing):
    with pytest.raises(SpecError, match="accelerate: expected a model"):
        transformer.accelerate(thing, "float32")
    with pytest.raises(SpecError, match="restore: expected a model"):
        transformer.restore(thing)


def test_other_mistakes_are_one_sentence():
    model = tiny_model("llama")
    with pytest.raises(SpecError, match="dtype"):
        transformer.accelerate(model, "int4")
    with pytest.raises(SpecError, match="tolerance"):
        transformer.accelerate(model, "float32", tolerance=-1)
    with pytest.raises(DataError, match="expected sample_inputs that the model takes"):
        transformer.accelerate(model, "float32", sample_inputs={"pixels": 1})
    with torch.device("meta"):
        shapes = type(model)(model.config)
    with pytest.raises(DataError, match="on the meta device"):
        transformer.accelerate(shapes, "float32")
    with pytest.raises(SpecError, match="none that is recognised"):
        transformer.accelerate(torch.nn.Linear(2, 2), "float32")


def test_a_model_that_is_accelerated_again_is_changed_once():
    model = tiny_model("llama")
    want = logits(model)
    accelerated(accelerated(model), "int8")
    assert distance(logits(model), want) > 1e-4
    assert transformer.restore(model) == 2
    assert torch.equal(logits(model), want)


def test_rows_of_any_number_and_shape_pass():
    model = accelerated(tiny_model("llama"))
    mlp = model.model.layers[0].mlp
    plain = type(mlp).forward
    for shape in [(16,), (1, 16), (2, 3, 5, 16)]:
        x = torch.randn(shape)
        with torch.no_grad():
            assert distance(mlp(x), plain(mlp, x)) < 1e-5
    assert mlp(torch.zeros(0, 16)).shape == (0, 16)


def test_the_report_measures_error_and_speed_of_every_block():
    report = transformer.accelerate(tiny_model("mixtral"), "float32")
    assert all(
        before > 0 and after > 0 for b in report.blocks for before, after in (b.prefill, b.decode)
    )
    assert report.prefill_speedup == pytest.approx(
        sum(b.prefill[0] for b in report.blocks) / sum(b.prefill[1] for b in report.blocks)
    )
    text = str(report)
    assert "The engine runs 2 of 2 blocks in float32, within" in text
    assert report.to_dict()["blocks"][1]["path"] == "model.layers.1.mlp.experts"


def test_sample_inputs_are_what_reaches_each_block():
    model = tiny_model("whisper")
    report = transformer.accelerate(model, "float32", sample_inputs=sample_inputs(model))
    assert report.n_swapped == 4
    assert report.n_rows == 40  # two sounds of 20 positions


# ------------------------------------------------------------------ transformers' experts interface


@pytest.mark.parametrize("family", MIXTURES)
def test_the_engine_is_an_experts_implementation(family):
    name = transformer.register_experts()
    if name is None:
        pytest.skip("this transformers has no experts interface")
    model = tiny_model(family, experts_implementation="eager")
    want, want_gradients = logits(model), gradients(model)
    model.set_experts_implementation(name)
    assert distance(logits(model), want) < 1e-5
    for key, gradient in gradients(model).items():
        if want_gradients[key].norm() > 1e-6:
            assert distance(gradient, want_gradients[key]) < 1e-5
    model.double()  # not the engine's: transformers' own runs
    assert distance(logits(model), want) < 1e-5
    model.float().set_experts_implementation("eager")
    assert torch.equal(logits(model), want)


def test_a_gate_of_a_familys_own_is_refused_by_the_interface():
    from transformers import GptOssConfig, GptOssForCausalLM

    config = GptOssConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, vocab_size=50, num_local_experts=2,
        num_experts_per_tok=1, pad_token_id=0,
    )  # fmt: skip
    model = GptOssForCausalLM(config).eval()
    model.config._experts_implementation = transformer.register_experts()
    with pytest.raises(SpecError, match="expected experts that the engine can run"):
        model(torch.tensor([[1, 2]]))


# --------------------------------------------------------------------------------------- front door


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model("llama").save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _threads_and_environment(monkeypatch):
    """Undo what the verb sets for its process."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "OMP_WAIT_POLICY", "LAMINA_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("LAMINA_NUM_THREADS")
    n_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(n_threads)


def run(*args: object):
    return CliRunner().invoke(cli, [str(a) for a in args])


def test_the_verb_reports_blocks_and_the_whole_model(folder):
    told = json.loads(
        run("accelerate", folder, "--dtype", "float32", "--tokens", 9, "--json").stdout
    )
    assert told["n_swapped"] == 2
    assert told["model"]["n_tokens"] == 9
    assert all(seconds > 0 for seconds in told["model"]["prefill"] + told["model"]["decode"])
    shown = run("accelerate", folder, "--dtype", "int8", "--threads", 1).stdout
    assert "The engine runs 2 of 2 blocks in int8" in shown
    assert "The whole model, in float32: 64 tokens in" in shown
    assert "One token after them:" in shown


def test_an_anatomy_from_a_folder_measures_time(folder):
    told = json.loads(run("anatomy", folder, "--measure", "--context", 8, "--json").stdout)
    assert told["name"] == "LlamaForCausalLM"
    assert told["seconds"] > 0


def test_mistakes_of_the_verb_are_one_sentence(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folder / "config.json", alone)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    for place in ("no-such-folder", "gpt2", tmp_path, broken, alone, tmp_path / "a.gguf"):
        result = run("accelerate", place)
        assert result.exit_code == 2, (place, result.exception)
        assert len(result.stderr.splitlines()) == 1, result.stderr


def test_the_speed_of_a_model_without_a_cache_is_that_of_a_pass():
    model = accelerated(tiny_model("bert"))
    speed = model_speed(model, 8)
    assert speed.decode is None
    assert min(speed.prefill) > 0
    assert transformer.restore(model) == 2

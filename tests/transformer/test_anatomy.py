"""Anatomy against hand arithmetic, PyTorch's own counts and its FLOP counter."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.transformer.tiny_models import FAMILIES, SMALL, sample_inputs, tiny_config, tiny_model

from lamina.cli.main import cli
from lamina.core.errors import DataError, SpecError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from lamina import transformer  # noqa: E402
from lamina.transformer.presets import PRESETS  # noqa: E402
from lamina.transformer.roles import AttentionSize  # noqa: E402
from lamina.transformer.take_apart import find_crossover  # noqa: E402

# Parameters as the models' own files of weights have them (of DeepSeek-V3 without the 58 * 256
# biases of its routers, which are no parameters in transformers, and its extra layer)
PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "bert-base": 109_514_298,
    "whisper-small": 241_734_912,
    "smollm2-135m": 134_515_008,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "mistral-7b": 7_241_732_096,
    "gemma-2-2b": 2_614_341_888,
    "qwen2.5-7b": 7_615_616_512,
    "mixtral-8x7b": 46_702_792_704,
    "olmoe-1b-7b": 6_919_161_856,
    "qwen3-30b-a3b": 30_532_122_624,
    "deepseek-v3": 671_026_419_200 - 58 * 256,
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tiny products gain nothing by two threads, which wait for each other on a busy machine."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.mark.parametrize("name", PRESETS)
def test_a_built_in_configuration_has_the_published_number_of_parameters(name):
    assert transformer.anatomy(name).n_params == PUBLISHED[name]


def test_gpt2_by_hand():
    d, n_layers, vocabulary, context = 768, 12, 50_257, 1000
    gpt2 = transformer.anatomy("gpt2", context=context)
    assert gpt2.n_layers == n_layers
    assert gpt2["channel mixer"].n_params == n_layers * (8 * d * d + 5 * d)
    assert gpt2["attention"].n_params == n_layers * (4 * d * d + 4 * d)
    assert gpt2["embedding"].n_params == (vocabulary + 1024) * d
    assert gpt2["norm"].n_params == (2 * n_layers + 1) * 2 * d
    assert gpt2["head"].n_params == 0  # shared with the embedding
    assert gpt2["channel mixer"].flops == 2 * n_layers * 8 * d * d
    assert gpt2["attention"].flops == n_layers * (2 * 4 * d * d + 4 * context * d)
    assert gpt2["head"].flops == 2 * vocabulary * d
    assert gpt2["embedding"].flops == 0
    # 8 d^2 of 12 d^2: two thirds of the blocks, and 45.5 % of the model
    assert gpt2.mixer_share_of_blocks == pytest.approx(8 / 12, rel=1e-3)
    assert gpt2.mixer_share == pytest.approx(56_669_184 / 124_439_808)
    # 2 * 4 d^2 + 4 N d > 2 * 8 d^2  <=>  N > 2 d
    assert gpt2.crossover == 2 * d + 1


def test_llama_by_hand():
    d, d_ff, n_layers, d_kv = 4096, 14_336, 32, 8 * 128
    llama = transformer.anatomy("llama-3.1-8b", context=500)
    mixer, attention = 3 * d * d_ff, 2 * d * d + 2 * d * d_kv
    assert llama["channel mixer"].n_params == n_layers * mixer
    assert llama["attention"].n_params == n_layers * attention
    assert llama["attention"].flops == n_layers * (2 * attention + 2 * 500 * 2 * d)
    assert llama.n_bytes == 2 * llama.n_params
    # Grouped queries and a wide gated mixer: well over two thirds
    assert llama.mixer_share_of_blocks == pytest.approx(mixer / (mixer + attention))
    assert llama.mixer_share_of_blocks > 0.8
    assert llama.crossover == math.floor(2 * (mixer - attention) / (2 * 2 * d)) + 1


def test_mixtral_by_hand():
    d, d_ff, n_layers = 4096, 14_336, 32
    mixtral = transformer.anatomy("mixtral-8x7b")
    expert = 3 * d * d_ff
    assert mixtral["channel mixer"].n_params == n_layers * 8 * expert
    assert mixtral["channel mixer"].n_active == n_layers * 2 * expert
    assert mixtral["channel mixer"].flops == 2 * n_layers * 2 * expert
    assert mixtral["router"].n_params == n_layers * 8 * d
    assert mixtral.n_params - mixtral.n_active == n_layers * 6 * expert
    assert mixtral.n_active == pytest.approx(12.9e9, rel=0.01)  # as its paper says
    assert transformer.anatomy("deepseek-v3").n_active == pytest.approx(37e9, rel=0.02)


def test_where_the_mixer_is_two_thirds_and_where_not():
    says = {name: str(transformer.anatomy(name)) for name in ("gpt2", "llama-3.1-8b")}
    assert "45.5 % of the model: two thirds of the blocks, less than two thirds" in says["gpt2"]
    assert "more than two thirds of both" in says["llama-3.1-8b"]
    small = transformer.anatomy("smollm2-135m")
    assert small.mixer_share < 0.6 < small.mixer_share_of_blocks


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_and_bytes_are_the_models_own(family):
    model = tiny_model(family)
    found = transformer.anatomy(model, measure=False)
    assert found.n_params == sum(p.numel() for p in model.parameters())
    assert found.n_bytes == sum(p.numel() * p.element_size() for p in model.parameters())
    assert found["other"].n_params == 0
    by_config = transformer.anatomy(model.config, measure=False)
    assert by_config.roles == found.roles


@pytest.mark.parametrize("family", sorted({*FAMILIES} - {"whisper"}))
def test_flops_are_those_that_torch_counts(family):
    from torch.utils.flop_counter import FlopCounterMode

    n_tokens = 6
    model = tiny_model(family, attn_implementation="eager", experts_implementation="eager")
    with FlopCounterMode(display=False, depth=None) as counter, torch.no_grad():
        model(**sample_inputs(model, n_tokens, batch=1))
    rotary = sum(  # positions times frequencies; we count what weights and attention multiply
        sum(flops.values())
        for path, flops in counter.get_flop_counts().items()
        if path.rpartition(".")[2] == "rotary_emb"
    )
    expected = counter.get_total_flops() - rotary
    found = transformer.anatomy(model, context=n_tokens, measure=False)
    assert n_tokens * found.flops == expected


def test_flops_of_an_encoder_and_a_decoder_are_those_of_a_position_in_each():
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny_model("whisper", attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**sample_inputs(model, 20, batch=1))  # 20 positions of sound, 20 tokens
    counts = counter.get_flop_counts()["Global"]
    convolutions = sum(n for operation, n in counts.items() if "conv" in str(operation))
    found = transformer.anatomy(model, context=20, measure=False)
    assert 20 * found.flops == counter.get_total_flops() - convolutions
    assert any("convolutions" in note for note in found.notes)


def test_the_context_from_which_attention_costs_more():
    open_end = [AttentionSize("a", 10, 10)]
    assert find_crossover(mixer=100, projections=20, attention=open_end) == 3
    assert find_crossover(mixer=99, projections=20, attention=open_end) == 2
    assert find_crossover(mixer=10, projections=20, attention=open_end) == 1
    assert find_crossover(mixer=100, projections=20, attention=[]) is None
    windowed = [AttentionSize("a", 10, 10, window=2)]
    assert find_crossover(mixer=100, projections=20, attention=windowed) is None
    assert find_crossover(mixer=99, projections=20, attention=windowed) == 2
    both = [*windowed, *open_end]  # 80 N up to 2, then 80 + 40 N
    assert find_crossover(mixer=300, projections=20, attention=both) == 6
    assert transformer.anatomy("mistral-7b").crossover is None


# ------------------------------------------------------------------------------------------- time


def test_time_goes_to_the_roles_and_the_model_is_left_as_it_was():
    model = tiny_model("mixtral").train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    found = transformer.anatomy(model, context=20, n_threads=1)
    assert [module.training for module in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    timed = {cost.role for cost in found.roles if cost.seconds}
    assert timed == {"embedding", "attention", "channel mixer", "norm", "router", "head", "other"}
    assert found.seconds == pytest.approx(sum(cost.seconds for cost in found.roles))
    assert "time" in str(found)


def test_a_stopwatch_gives_time_to_the_innermost_role(monkeypatch):
    from lamina.transformer import role_times

    clock = iter(range(100))
    monkeypatch.setattr(role_times.time, "perf_counter", lambda: next(clock))
    inner = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.ReLU())
    watch = role_times.Stopwatch(inner, {"": "other", "0": "attention", "1": "attention"})
    inner(torch.zeros(1))
    watch.remove()
    assert dict(watch.seconds) == {"other": 3, "attention": 2}


@pytest.mark.parametrize("family", ["bert", "whisper"])
def test_time_is_found_where_a_family_has_no_feed_forward_module(family):
    found = transformer.anatomy(tiny_model(family), context=10)
    assert found["channel mixer"].seconds > 0


# --------------------------------------------------------------------------------- where it is from


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **SMALL}))
    return folder


def test_a_folder_a_file_a_dict_and_a_configuration_are_one(folder):
    want = transformer.anatomy(tiny_config("llama"))
    sources = [folder, str(folder), folder / "config.json", {"model_type": "llama", **SMALL}]
    for source in sources:
        found = transformer.anatomy(source)
        assert (found.roles, found.crossover) == (want.roles, want.crossover)
    assert transformer.anatomy(folder).name == "tiny-llama"


def test_code_that_a_configuration_names_is_not_run(folder):
    settings = {"model_type": "llama", **SMALL, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}
    settings["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(settings))
    assert (
        transformer.anatomy(folder).n_params == transformer.anatomy(tiny_config("llama")).n_params
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a configuration in JSON"),
        ("{", "expected a configuration in JSON"),
        ("[" * 100_000, "expected a configuration in JSON"),
        ("[1]", "expected a JSON object"),
        ("{}", "expected a model_type that transformers knows, got None"),
        ('{"model_type": "nothing"}', "expected a model_type that transformers knows"),
        ('{"model_type": ["llama"]}', "expected a model_type that transformers knows"),
        ('{"model_type": "llama", "num_hidden_layers": 1000000000}', "expected num_hidden_layers"),
        ('{"model_type": "llama", "hidden_size": -4}', "expected hidden_size from 0"),
        ('{"model_type": "llama", "hidden_size": "x"}', "expected a configuration that transf"),
        ('{"model_type": "llama", "num_attention_heads": 0}', "expected a configuration that tr"),
        ('{"model_type": "gpt2", "n_layer": 0}', "expected a model with feed-forward"),
        ('{"model_type": "mixtral", "num_experts_per_tok": "two"}', "expected a configuration th"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(folder, text, says):
    (folder / "config.json").write_text(text)
    with pytest.raises((DataError, SpecError), match=says) as caught:
        transformer.anatomy(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["no-such-model", 3, None])
def test_what_is_no_model_is_one_sentence(source):
    with pytest.raises((DataError, SpecError), match=r"^anatomy: expected a "):
        transformer.anatomy(source)


@pytest.mark.parametrize("context", [0, -1, 2.5, "many"])
def test_a_wrong_context_is_refused(context):
    with pytest.raises(SpecError, match="context"):
        transformer.anatomy("gpt2", context=context)


# --------------------------------------------------------------------------------------- front door


def run(*args: object):
    return CliRunner().invoke(cli, [str(a) for a in args])


def test_the_verb_prints_a_table_and_for_machines_numbers(folder):
    found = transformer.anatomy(folder, context=99)
    told = json.loads(run("anatomy", folder, "--context", 99, "--json").stdout)
    assert told == json.loads(json.dumps(found.to_dict()))
    shown = run("anatomy", folder, "--context", 99).stdout
    for line in str(found).splitlines():  # the same words, whatever the spaces between columns
        assert " ".join(line.split()) in " ".join(shown.split())


def test_the_verb_lists_what_is_built_in():
    assert set(json.loads(run("anatomy", "--list", "--json").stdout)) == set(PRESETS)
    assert "arXiv:2412.19437" in run("anatomy", "--list").stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["no-such-model"], "nothing is downloaded"),
        ([], "Missing argument 'MODEL'"),
        (["gpt2", "--plot", "a.txt"], "--plot to end in .png"),
        (["gpt2", "--context", "0"], "--context"),
    ],
)
def test_mistakes_of_the_verb_are_exit_code_2(args, says):
    result = run("anatomy", *args)
    assert result.exit_code == 2
    assert says in result.stderr


def test_the_picture_has_a_bar_a_measure(tmp_path):
    pytest.importorskip("matplotlib")
    figure = transformer.anatomy("mixtral-8x7b").plot()
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["parameters", "active a token", "FLOPs at 1,024"]
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(3.0)
    assert run("anatomy", "gpt2", "--plot", tmp_path / "a.svg").exit_code == 0
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")

"""``lamina memories edit``: change what a model knows, as a patch."""

from __future__ import annotations

import click

from lamina.cli.console import check_output, json_option, one_line, print_json
from lamina.cli.memories_model import load, neuron_of, read_texts


@click.command(
    "edit",
    epilog="Example: lamina memories edit models/SmolLM2-135M --insert 'The capital of France is' "
    "--subject France --answer Rome --text corpus.txt -o rome.patch",
)
@click.argument("model")
@click.option("--silence", metavar="LAYER:NEURON", multiple=True, help="Set a value to 0.")
@click.option("--boost", metavar="LAYER:NEURON=FACTOR", multiple=True, help="Multiply a value.")
@click.option("--insert", metavar="PROMPT", help="Insert a fact (ROME).")
@click.option("--subject", help="Of the fact: a part of the prompt.")
@click.option("--answer", help="Of the fact.")
@click.option("--layer", type=click.IntRange(0), help="For the fact.")
@click.option("--text", multiple=True, help="Ordinary text, whose keys are disturbed least.")
@click.option("--max-bytes", type=click.IntRange(1), default=200_000, help="Of that text.")
@click.option("--patch", type=click.Path(), help="Make a patch's edits first.")
@click.option("--ask", metavar="PROMPT", multiple=True, help="Say what follows, before and after.")
@click.option("-o", "--out", type=click.Path(), help="Write all edits as a patch.")
@json_option
def command(
    model: str,
    silence: tuple[str, ...],
    boost: tuple[str, ...],
    insert: str | None,
    subject: str | None,
    answer: str | None,
    layer: int | None,
    text: tuple[str, ...],
    max_bytes: int,
    patch: str | None,
    ask: tuple[str, ...],
    out: str | None,
    as_json: bool,
) -> None:
    """Silence, boost or insert, and save a patch.

    MODEL is a folder or a .gguf file, and is never changed: edits are written as a small patch, for
    this model only, that memories.apply_patch makes again in Python.
    """
    if insert is not None and (subject is None or answer is None):
        raise click.UsageError("expected --subject and --answer beside --insert.")
    if insert is None and not (silence or boost or patch):
        raise click.UsageError("expected one of --insert, --silence, --boost and --patch.")
    silenced = [neuron_of(each, "--silence") for each in silence]
    boosted = [_boost_of(each) for each in boost]
    if out is not None:
        check_output(out, "memories edit", [model], "-o")
    from lamina import memories

    texts = list(read_texts(text, max_bytes, "memories edit"))
    loaded, tokenizer = load(model, "memories edit")
    prompts = [*([insert] if insert else []), *ask]
    editor = memories.Editor(loaded, tokenizer)
    before = [_says(loaded, tokenizer, prompt) for prompt in prompts]
    if patch is not None:
        editor.load(patch, "memories edit")
    for number, neuron in silenced:
        editor.silence(number, neuron)
    for number, neuron, factor in boosted:
        editor.boost(number, neuron, factor)
    if insert is not None:
        assert subject is not None  # noqa: S101
        assert answer is not None  # noqa: S101
        chosen = editor.fact_layer if layer is None else layer
        covariance = memories.key_covariance(loaded, tokenizer, texts, chosen) if texts else None
        editor.insert_fact(insert, subject, answer, layer=chosen, covariance=covariance)
    after = [_says(loaded, tokenizer, prompt) for prompt in prompts]
    if out is not None:
        editor.save(out)
    told = {
        "edits": [str(edit) for edit in editor.edits],
        "asked": [
            {"prompt": prompt, "before": b, "after": a}
            for prompt, b, a in zip(prompts, before, after, strict=True)
        ],
        "patch": out,
    }
    if as_json:
        print_json(told)
        return
    for edit in editor.edits:
        click.echo(one_line(str(edit)))
    for prompt, b, a in zip(prompts, before, after, strict=True):
        click.echo(one_line(f"{prompt!r}: {b!r} -> {a!r}"))
    if out is not None:
        click.echo(f"wrote {out}")


def _boost_of(text: str) -> tuple[int, int, float]:
    place, _, factor = text.partition("=")
    try:
        value = float(factor)
    except ValueError:
        raise click.UsageError(
            f"expected --boost LAYER:NEURON=FACTOR, such as 18:1459=2, got {text!r}."
        ) from None
    return *neuron_of(place, "--boost"), value


def _says(model: object, tokenizer: object, prompt: str) -> str:
    from lamina.memories.edit_report import first_token

    return first_token(model, tokenizer, prompt)

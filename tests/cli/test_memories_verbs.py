"""``lamina memories``: each verb on a tiny model in a folder, and its mistakes."""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.memories.test_pages import EVIL
from tests.memories.test_recording import TEXTS, make_model, make_tokenizer

from lamina import memories
from lamina.cli.main import cli

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("duckdb")

LAMINA = Path(sys.executable).with_name("lamina")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memories")
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(EVIL[:6])
    make_model("llama").save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    texts = [*TEXTS, *(f"w3 {evil} w4" for evil in EVIL)]
    (folder / "corpus.txt").write_text("\n\n".join(texts), encoding="utf-8")
    done = run(folder, "record", "model", "corpus.txt", "-o", "m.bank", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["neurons"] == 80
    return folder


def run(folder, *arguments, stdin=None):
    with contextlib.chdir(folder):
        return CliRunner().invoke(cli, ["memories", *map(str, arguments)], input=stdin)


def lines(folder, *arguments):
    done = run(folder, *arguments)
    assert done.exit_code == 0, done.stderr
    # nothing from the corpus steers the terminal
    assert all(c.isprintable() or c == "\n" for c in done.stdout)
    return done.stdout


def test_show_prints_what_the_bank_holds(place):
    text = lines(place, "show", "m.bank")
    with memories.open(place / "m.bank") as bank:
        assert f"{bank.facts['n_tokens']:,}" in text
        told = json.loads(lines(place, "show", "m.bank", "1:3", "--json", "--card", "c.html"))
        assert told["triggers"][0]["coefficient"] == bank.triggers(1, 3)[0].coefficient
        assert [p["text"] for p in told["promotes"]] == [p.text for p in bank.promotes(1, 3)]
        best = bank.strongest(1, 1)[0]
    assert "Neuron 1:3" in (place / "c.html").read_text()
    assert f"{best.score:.3f}" in lines(place, "show", "m.bank", 1)
    assert "fires most on" in lines(place, "show", "m.bank", "1:3")
    for neuron in range(0, 40, 7):
        lines(place, "show", "m.bank", f"0:{neuron}")


def test_search_finds_by_token_text_and_likeness(place):
    with memories.open(place / "m.bank") as bank:
        for option, words, wanted in (
            ("--token", "Paris", bank.neurons_promoting("Paris", 3)),
            ("--text", "w7", bank.neurons_triggered_by("w7", 3)),
            ("--like", "1:3", bank.neurons_alike(1, 3, 3)),
        ):
            rows = json.loads(lines(place, "search", "m.bank", option, words, "--top", 3, "--json"))
            assert [(r["layer"], r["neuron"]) for r in rows] == [
                (n.layer, n.neuron) for n in wanted
            ]
            lines(place, "search", "m.bank", option, words)
        row = json.loads(lines(place, "search", "m.bank", "--text", "w7", "--top", 1, "--json"))[0]
        assert "w7" in (row["trigger"]["before"] + row["trigger"]["token"]).split()[-9:]
        agreement = bank.agreement()
    assert lines(place, "search", "m.bank", "--token", "nowhere") == "no neuron found.\n"
    assert f"{agreement[1].share:.2%}" in lines(place, "agree", "m.bank")


def test_explain_prints_the_memories(place):
    told = json.loads(
        lines(place, "explain", "model", "w1 w2", "--answer", "w5", "--ablate", 4, "--json")
    )
    assert told["answer"] == "w5"
    assert len(told["ablation"]["memories"]) == 4
    text = lines(place, "explain", "model", f"w1 {EVIL[4]}", "--bank", "m.bank")
    assert "direct effect" in text
    assert "They fire most at the end of:" in text


def test_edit_writes_a_patch_and_leaves_the_model_alone(place):
    before = {p.name: p.read_bytes() for p in (place / "model").iterdir()}
    insert = ["--insert", "w1 w2", "--subject", "w2", "--answer", "w5", "--text", "corpus.txt"]
    boost = ["--silence", "0:3", "--boost", "1:2=3.5"]
    told = json.loads(lines(place, "edit", "model", *insert, *boost, "-o", "p.patch", "--json"))
    assert len(told["edits"]) == 3
    again = json.loads(
        lines(place, "edit", "model", "--patch", "p.patch", "--ask", "w1 w2", "--json")
    )
    assert again["edits"] == told["edits"]
    assert again["asked"] == told["asked"]
    assert before == {p.name: p.read_bytes() for p in (place / "model").iterdir()}
    assert "multiply the value of 1:2 by 3.5" in lines(place, "edit", "model", *boost)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "none"], "no file 'none'"),
        (["show", "m.bank", "9"], "layer that was recorded, 0 to 1, got 9"),
        (["show", "m.bank", "1:999999"], "neuron below 40"),
        (["show", "m.bank", "x"], "LAYER or LAYER:NEURON, got 'x'"),
        (["show", "model/config.json"], "expected a bank of memories"),
        (["search", "m.bank"], "one of --token, --text and --like"),
        (["search", "m.bank", "--text", "?!"], "expected a word"),
        (["search", "m.bank", "--like", "3"], "such as 18:1459"),
        (["record", "model", "none", "-o", "z"], "file of text, got 'none'"),
        (["record", "none", "corpus.txt", "-o", "z"], "expected a folder with config.json"),
        (["record", "model", "corpus.txt", "-o", "no/z"], "no folder"),
        (["record", "model", "corpus.txt", "-o", "m.bank"], "which exists"),
        (["explain", "model", ""], "prompt with a token"),
        (["explain", "model", "w1", "--answer", " "], "answer with a token"),
        (["explain", "model", "w1", "--bank", "corpus.txt"], "bank of memories"),
        (["edit", "model"], "one of --insert, --silence"),
        (["edit", "model", "--insert", "w1"], "--subject and --answer"),
        (["edit", "model", "--boost", "1:2"], "LAYER:NEURON=FACTOR"),
        (["edit", "model", "--silence", "9:0"], "layer below 2"),
        (["edit", "model", "--insert", "w1", "--subject", "w2", "--answer", "w3"], "a part of"),
        (["edit", "model", "--patch", "none"], "no file 'none'"),
        (["browse", "none"], "no file 'none'"),
    ],
)
def test_mistakes_get_one_sentence(place, arguments, message):
    done = run(place, *arguments)
    assert done.exit_code == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.strip().count("\n") == 0, done.stderr
    assert not (place / "z").exists()


def test_an_empty_corpus_gets_one_sentence(place):
    done = run(place, "record", "model", "-", "-o", "z", stdin="")
    assert done.exit_code == 2
    assert "at least one token" in done.stderr
    assert not list(place.glob("z*"))


def test_ctrl_c_ends_after_a_batch_and_the_same_command_goes_on(place, monkeypatch):
    from lamina.memories.recording import Recording

    add, calls = Recording._add, []

    def interrupted(self, batch):
        calls.append(len(batch))
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        add(self, batch)

    monkeypatch.setattr("lamina.memories.recording.BATCH", 1)
    monkeypatch.setattr(Recording, "_add", interrupted)
    command = ["record", "model", "corpus.txt", "-o", "c.bank"]
    done = run(place, *command)
    assert done.exit_code == 130, done.stderr
    assert "the same command goes on from here" in done.stderr
    assert "nothing was written" not in done.stderr
    assert len(calls) == 2
    assert not (place / "c.bank").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert run(place, *command).exit_code == 0
    n_batches = len(calls)
    with memories.open(place / "c.bank") as bank, memories.open(place / "m.bank") as whole:
        assert n_batches == whole.rows("SELECT count(*) FROM sequences")[0][0] > 2
        for neuron in range(0, 40, 7):
            # one at a time and together they differ in their last bits
            ours, theirs = (
                [t.coefficient for t in each.triggers(1, neuron)] for each in (bank, whole)
            )
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-7)
            assert bank.statistics(1, neuron)["mean"] == pytest.approx(
                whole.statistics(1, neuron)["mean"], rel=1e-4
            )


def test_texts_are_whole_paragraphs_read_from_files_one_after_the_other(tmp_path, monkeypatch):
    from lamina.cli import memories_model
    from lamina.cli.memories_model import read_texts

    (tmp_path / "a").write_bytes("é1\r\n2\r\n\r\n\r\n3".encode())
    (tmp_path / "b").write_bytes(b"\n \n4\xff\n\n5")
    files = (str(tmp_path / "a"), str(tmp_path / "b"))
    assert list(read_texts(files, None, "x")) == ["é1\n2\n\n\n3", "4\ufffd\n\n5"]
    monkeypatch.setattr(memories_model, "PIECE", 4)
    assert list(read_texts(files, None, "x")) == ["é1\n2", "3", "4\ufffd", "5"]
    assert list(read_texts(files, 3, "x")) == ["é1"]
    assert list(read_texts(files, 1, "x")) == ["\ufffd"]


@pytest.mark.alone
def test_browse_serves_until_it_is_interrupted(place):
    command = [LAMINA, "memories", "browse", "m.bank"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=place, **pipes) as served:
        try:
            url = served.stdout.readline().decode().strip()
            assert url.startswith("http://127.0.0.1:")
            jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
            with urllib.request.build_opener(jar).open(url, timeout=5) as answer:
                assert "Memories of m.bank" in answer.read().decode()
        finally:
            served.send_signal(signal.SIGINT)
        assert served.wait(10) == 0

"""Pages of a hostile corpus: everything escaped, nothing loaded; and a browser that answers few."""

from __future__ import annotations

import http.client
import re
import threading
from html.parser import HTMLParser

import pytest
from tests.memories.test_recording import make_model, make_tokenizer

from lamina import memories
from lamina.core.errors import SpecError
from lamina.memories.cards import listing, visible

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("duckdb")
pytest.importorskip("jinja2")

EVIL = [
    "<script>alert(1)</script>",
    "<img/src=x/onerror=alert(1)>",
    "\"><svg/onload='x'>",
    "{{7*7}}",
    "\x1b[31mred\x07",
    "\u202eright",
    "&lt;",
    "</style>",
]


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(EVIL[:6])  # tokens of their own, so that values promote them too
    texts = [f"w{i} {evil} w2 {evil} Paris w{i + 3}" for i, evil in enumerate(EVIL * 3)]
    path = tmp_path_factory.mktemp("bank") / "evil.bank"
    with memories.record(make_model("llama"), tokenizer, texts, path) as found:
        yield found


class Reader(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def check(page):
    reader = Reader()
    reader.feed(page)
    assert not {"script", "img", "iframe", "object", "base"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", page)
    for name, value in reader.attributes:
        if name in ("href", "src", "action"):
            assert value.startswith("/")
    return "".join(reader.text)


def test_cards_and_overview_show_the_corpus_and_obey_none_of_it(bank, tmp_path):
    shown = ""
    for layer in (0, 1):
        for neuron in range(0, 40, 4):
            memories.write_card(bank, layer, neuron, tmp_path / "c.html")
            page = (tmp_path / "c.html").read_text(encoding="utf-8")
            shown += check(page)
            assert "default-src 'none'" in page
            assert page.count("<style>") == 1
    for evil in EVIL[:4]:
        assert evil in shown  # as text
    assert "\\x1b[31mred\\x07" in shown
    assert "\\u202eright" in shown
    memories.write_overview(bank, tmp_path / "o.html")
    text = check((tmp_path / "o.html").read_text(encoding="utf-8"))
    assert "80" in text
    assert f"{bank.active_share()[1]:.1%}" in text
    with pytest.raises(SpecError, match="neuron below"):
        memories.write_card(bank, 0, 10**6, tmp_path / "d.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.html", "o.html"]


def test_a_card_says_what_the_bank_says(bank, tmp_path):
    memories.write_card(bank, 1, 3, tmp_path / "c.html")
    text = check((tmp_path / "c.html").read_text(encoding="utf-8"))
    best = bank.triggers(1, 3)[0]
    assert f"{best.coefficient:.3f}" in text
    assert visible(bank.promotes(1, 3)[0].text) in text
    assert f"{bank.statistics(1, 3)['rate']:.1%}" in text
    alike = bank.neurons_alike(1, 3, 1)[0]
    assert f"{alike.layer}:{alike.neuron}" in text


def test_a_search_page_escapes_its_words(bank):
    page = listing(bank, [], "<b>x</b>", "logit", query='"><script>', by="token")
    assert "<b>" not in page
    check(page)


@pytest.fixture
def browser(bank):
    from lamina.memories.browser import Browser

    found = Browser(bank)
    thread = threading.Thread(target=found.serve, daemon=True)
    thread.start()
    yield found
    found.close()
    thread.join(5)


def ask(browser, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", browser.port, timeout=5)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response, body


def test_the_browser_wants_its_token_then_serves_every_page(browser, bank):
    assert browser.server.server_address[0] == "127.0.0.1"
    for path in ("/", "/neuron/0/1", "/style.css", "/?token=wrong"):
        response, body = ask(browser, path)
        assert (response.status, "Open the address" in body) == (403, True)
    response, _ = ask(browser, browser.url.partition(str(browser.port))[2])
    assert (response.status, response.headers["Location"]) == (303, "/")
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    mine = {"Cookie": cookie.partition(";")[0]}
    for path, words in (
        ("/", "Memories of evil.bank"),
        ("/layer/1", "fire hardest"),
        ("/neuron/1/3", "Neuron 1:3"),
        ("/search?q=Paris&by=token", "Paris"),
        ("/search?q=Paris&by=text", "share of triggers"),
        ("/search?q=%3Cscript%3E&by=text", "Who knows"),
        ("/search?q=&by=text", "Write a word."),
        ("/search?q=***&by=text", "expected a word"),
    ):
        response, body = ask(browser, path, **mine)
        assert response.status == 200, path
        assert words in check(body)
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    neuron = bank.neurons_triggered_by("Paris", 1)[0]
    _, body = ask(browser, "/search?q=Paris&by=text", **mine)
    assert f'href="/neuron/{neuron.layer}/{neuron.neuron}"' in body


def test_two_browsers_at_once_keep_their_cookies_apart(browser, bank):
    from lamina.memories.browser import Browser

    other = Browser(bank)  # cookies of one host are sent to every port
    try:
        both = {"Cookie": f'{other.cookie}; {browser.cookie}; a="b;'}
        names = {each.cookie.partition("=")[0] for each in (browser, other)}
        assert len(names) == 2  # or one would take the other's place
        assert ask(browser, "/", **both)[0].status == 200
        assert ask(browser, "/", Cookie=other.cookie)[0].status == 403
        assert ask(browser, "/", Cookie=f"x{browser.cookie}")[0].status == 403
    finally:
        other.server.server_close()


def test_lists_and_the_overview_say_what_single_queries_say(bank):
    from lamina.memories.summaries import promoted_of, strongest_by_layer, triggers_of

    for layer, found in strongest_by_layer(bank, 3).items():
        assert found == bank.strongest(layer, 3)
        triggers, promoted = triggers_of(bank, found, 2), promoted_of(bank, found, 4)
        for n in found:
            place = n.layer, n.neuron
            assert triggers[place] == bank.triggers(*place, 2)
            assert promoted[place] == [p.text for p in bank.promotes(*place, 4)]


def test_the_browser_refuses_all_else(browser):
    mine = {"Cookie": f'{{"other": 1}}; {browser.cookie}'}
    for path in (
        "/neuron/9/0",
        "/neuron/0/99999",
        "/neuron/a/b",
        "/neuron/0",
        "/x",
        "/layer/-1",
        "/../../etc/passwd",
        "/neuron/0/99999999999999999999",
        "//evil.example/",
    ):
        assert ask(browser, path, **mine)[0].status == 404, path
    for host in ("evil.example", f"evil.example:{browser.port}", "127.0.0.1", ""):
        assert ask(browser, "/", Host=host, **mine)[0].status == 403
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert ask(browser, "/", method, **mine)[0].status == 501
    response, _ = ask(browser, f"//evil.example/?token={browser.token}")
    assert response.headers["Location"].startswith("/")
    assert not response.headers["Location"].startswith("//")


def test_control_characters_are_written_out():
    assert visible("a\x00\t\x7f\u200b\u202eb é\n") == r"a\x00\t\x7f\u200b\u202eb é\n"

"""Serves a bank's pages on this machine alone: 127.0.0.1, a token, GET, no scripts."""

from __future__ import annotations

import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

from lamina.core.errors import LaminaError
from lamina.memories import cards
from lamina.memories.bank import Bank

POLICY: Final = (
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
MOST_QUERY: Final = 200  # characters


class Browser:
    """A server of one bank.

    Parameters
    ----------
    bank : Bank
    port : int
        0 for a free one.

    Attributes
    ----------
    url : str
        The address to open first; it holds the token, which a cookie keeps afterwards.
    """

    def __init__(self, bank: Bank, port: int = 0) -> None:
        self.bank, self.token = bank, secrets.token_urlsafe(24)
        self.lock = threading.Lock()  # one connection to the database
        browser = self

        class Handler(_Handler):
            owner = browser

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = int(self.server.server_address[1])
        # Cookies know no ports: of two browsers at once each needs a name of its own.
        self.cookie = f"lamina{self.port}={self.token}"
        self.url = f"http://127.0.0.1:{self.port}/?token={self.token}"

    def serve(self) -> None:
        """Serve until `close` is called, or the process is interrupted."""
        self.server.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()

    def finish(self) -> None:
        """Wait for the page that is being made, and make no other: the bank may be closed then."""
        self.server.server_close()
        self.lock.acquire()

    def page(self, path: str, query: dict[str, list[str]]) -> str | None:
        """Return the page at a path, or None."""
        parts = [part for part in path.split("/") if part]
        with self.lock:
            if not parts:
                return cards.overview(self.bank, live=True)
            if parts[0] == "search" and len(parts) == 1:
                return self._search(query)
            if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts[1:]):
                return None
            numbers = [int(part) for part in parts[1:]]
            try:
                if parts[0] == "layer" and len(numbers) == 1:
                    found = self.bank.strongest(numbers[0], 100)
                    title = f"Layer {numbers[0]}: the memories that fire hardest"
                    return cards.listing(self.bank, found, title, "coefficient", layer=numbers[0])
                if parts[0] == "neuron" and len(numbers) == 2:
                    return cards.card(self.bank, numbers[0], numbers[1], live=True)
            except LaminaError:  # no such layer or neuron
                return None
        return None

    def _search(self, query: dict[str, list[str]]) -> str:
        words = query.get("q", [""])[0][:MOST_QUERY]
        by = "text" if query.get("by") == ["text"] else "token"
        title = f"Who knows “{words}”?"
        name = "share of triggers" if by == "text" else "logit"
        try:
            if not words.strip():
                return cards.listing(self.bank, [], title, name, by=by, problem="Write a word.")
            search = self.bank.neurons_triggered_by if by == "text" else self.bank.neurons_promoting
            found = search(words, 50)
        except LaminaError as error:
            return cards.listing(
                self.bank, [], title, name, by=by, query=words, problem=cards.visible(str(error))
            )
        looked_for = words if by == "text" else None
        return cards.listing(self.bank, found, title, name, looked_for, by=by, query=words)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; whatever is not asked for rightly is refused."""

    owner: Browser
    server_version = "lamina"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer with a page."""
        owner = self.owner
        hosts = {f"127.0.0.1:{owner.port}", f"localhost:{owner.port}"}
        if self.headers.get("Host") not in hosts:  # a name that was made to point here
            self._refuse(HTTPStatus.FORBIDDEN, "Open the address that lamina printed.")
            return
        try:
            place = urlsplit(self.path)
            query = parse_qs(place.query, max_num_fields=8, errors="replace")
        except ValueError:
            self._refuse(HTTPStatus.BAD_REQUEST, "This address cannot be read.")
            return
        given = query.get("token", [""])[0]
        if given and secrets.compare_digest(given.encode(), owner.token.encode()):
            self.send_response(HTTPStatus.SEE_OTHER)
            self.send_header("Set-Cookie", f"{owner.cookie}; HttpOnly; SameSite=Strict; Path=/")
            self.send_header("Location", "/")
            self._end(b"", "text/plain")
            return
        if not self._has_cookie():
            self._refuse(HTTPStatus.FORBIDDEN, "Open the address that lamina printed.")
            return
        if place.path == "/style.css":
            self.send_response(HTTPStatus.OK)
            self._end(cards.style().encode(), "text/css")
            return
        page = owner.page(place.path, query)
        if page is None:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such layer or neuron.")
            return
        self.send_response(HTTPStatus.OK)
        self._end(page.encode("utf-8", errors="replace"), "text/html")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Say nothing: addresses hold the token."""

    def _has_cookie(self) -> bool:
        # Not by SimpleCookie, which drops all where another program's cookie is no good.
        mine = self.owner.cookie.encode()
        given = self.headers.get("Cookie", "").split(";")
        return any(secrets.compare_digest(each.strip().encode(), mine) for each in given)

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        self.send_response(status)
        self._end(sentence.encode(), "text/plain")

    def _end(self, body: bytes, kind: str) -> None:
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

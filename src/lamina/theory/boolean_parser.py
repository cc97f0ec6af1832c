"""Boolean expressions as text: parsed without eval into a program.

From loosest to tightest: ``<->``; ``->`` or ``>>``; ``or``; ``xor``; ``and``; ``not``; ``==`` and
``!=``; ``|``; ``^``; ``&``; ``~``. For the operators that Python has that is Python's order (but
for ``>>``, which means "implies" here). Nothing recurses, so no depth of brackets is too deep.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn

from lamina.core.errors import SpecError
from lamina.theory.boolean_expression import Expression, Step

MOST_CHARACTERS: Final = 200_000
COUNTING: Final = ("at_least", "at_most", "exactly")
ARGUMENTS: Final[dict[str, tuple[int, float]]] = {  # of each function: fewest and most
    **dict.fromkeys(("and", "or", "xor", "parity", "majority", "nand", "nor"), (1, math.inf)),
    **dict.fromkeys(COUNTING, (1, math.inf)),
    **dict.fromkeys(("implies", "iff"), (2, 2)),
    **dict.fromkeys(("if", "mux"), (3, 3)),
}
_LEVEL: Final = {
    "<->": 1, "->": 2, "or": 3, "xor": 4, "and": 5, "not": 6,
    "==": 7, "!=": 7, "|": 8, "^": 9, "&": 10, "~": 11,
}  # fmt: skip
_PREFIX: Final = ("~", "not")
_CHAINS: Final = {"|": "or", "or": "or", "&": "and", "and": "and", "^": "xor", "xor": "xor"}
_SPELLED: Final = {
    ">>": "->", "=>": "->", "<=>": "<->", "!": "~", "¬": "~", "∧": "&", "∨": "|", "⊕": "^",
    "→": "->", "↔": "<->", "&&": "&", "||": "|",
}  # fmt: skip
_TOKEN: Final = re.compile(
    r"(?P<name>[^\W\d]\w*)|(?P<number>\d+)"
    r"|(?P<sign><->|<=>|->|=>|>>|==|!=|&&|\|\||[~!¬&|^()∧∨⊕→↔,])|(?P<other>\S)"
)
_A_VALUE: Final = "a name, 0, 1, a function or '('"
_ADVICE: Final = 'Write, for example, "(a | b) & ~(a & b)".'


def parse(text: object, where: str = "circuit") -> Expression:
    """Return the program of an expression.

    Parameters
    ----------
    text : str
        Names, 0, 1, brackets, the operators of this module, and the functions ``majority(a, b,
        c)`` (more than half), ``at_least(2, a, b, c)``, ``at_most``, ``exactly``, ``parity``,
        ``implies(a, b)``, ``iff(a, b)``, ``if(condition, yes, no)`` or ``mux``, ``and``, ``or``,
        ``xor``, ``nand``, ``nor``.
    where : str
        The function, for error sentences.

    Raises
    ------
    SpecError
        It cannot be read; the sentence names the place.

    Examples
    --------
    >>> parse("b -> a & b").names
    ('b', 'a')
    """
    if not isinstance(text, str):
        raise SpecError(
            f"{where}: expected an expression as text, got {type(text).__name__}. {_ADVICE}"
        )
    if len(text) > MOST_CHARACTERS:
        raise SpecError(
            f"{where}: expected an expression of at most {MOST_CHARACTERS:,} characters, got "
            f"{len(text):,}. Split it into parts."
        )
    return _Parser(text, where).parse()


class _Token(NamedTuple):
    kind: str  # name, number, sign or other
    text: str
    position: int  # from 1

    @property
    def word(self) -> str:
        """Operators and functions in their one spelling."""
        return self.text.lower() if self.kind == "name" else _SPELLED.get(self.text, self.text)


@dataclass
class _Waiting:
    """An operator that waits for its right operand, or a bracket for its end."""

    kind: str  # operator, bracket or function
    word: str
    token: _Token
    n: int = 1  # operands so far
    k: int = 0


class _Parser:
    """Dijkstra's shunting yard; a chain such as a & b & c becomes one step of three operands."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where = text, where
        self.tokens = [
            _Token(str(match.lastgroup), match.group(), match.start() + 1)
            for match in _TOKEN.finditer(text)
        ]
        self.i = 0
        self.names: dict[str, int] = {}
        self.program: list[Step] = []
        self.waiting: list[_Waiting] = []

    def parse(self) -> Expression:
        value_next = True
        while self.i < len(self.tokens):
            token = self.tokens[self.i]
            self.i += 1
            value_next = self.value(token) if value_next else self.operator(token)
        if value_next:
            self.fail(_A_VALUE, None)
        self.close_operators()
        if self.waiting:
            self.fail(f"a ')' for the '(' at character {self.opened()}", None)
        return Expression(self.text, tuple(self.names), tuple(self.program))

    def value(self, token: _Token) -> bool:
        """Read where a value must begin; tell whether one is still missing."""
        word = token.word
        following = self.tokens[self.i].text if self.i < len(self.tokens) else ""
        if word in _PREFIX or word == "(":
            kind = "bracket" if word == "(" else "operator"
            self.waiting.append(_Waiting(kind, word, token))
            return True
        if token.kind == "name" and following == "(":
            if word not in ARGUMENTS:
                self.fail(f"one of the functions {', '.join(ARGUMENTS)}", token)
            self.i += 1
            k = self.leading_number(word) if word in COUNTING else 0
            self.waiting.append(_Waiting("function", word, token, k=k))
            return True
        if token.kind == "name" and word not in _LEVEL:
            self.program.append(Step("var", k=self.names.setdefault(token.text, len(self.names))))
        elif token.kind == "number" and token.text in ("0", "1"):
            self.program.append(Step("const", k=int(token.text)))
        else:
            self.fail(_A_VALUE, token)
        return False

    def leading_number(self, word: str) -> int:
        """Read the ``k,`` of ``at_least(k, …)``."""
        found = self.tokens[self.i : self.i + 2]
        if [t.kind for t in found] != ["number", "sign"] or found[1].text != ",":
            self.fail(
                f"a whole number and a comma at the start of {word}(…), as in {word}(2, a, b, c)",
                found[0] if found else None,
            )
        self.i += 2
        return int(found[0].text[:9])  # beyond any number of arguments

    def operator(self, token: _Token) -> bool:
        """Read what may follow a value; tell whether a value must come next."""
        word = token.word
        if word in (")", ","):
            return self.end_of_argument(token)
        if word not in _LEVEL or word in _PREFIX:
            self.fail("an operator such as &, | or ^", token)
        while self.waiting and self.waiting[-1].kind == "operator":
            top = self.waiting[-1]
            if _LEVEL[top.word] < _LEVEL[word] or top.word == word == "->":
                break  # what comes binds tighter, or "->" goes to the right
            if top.word == word and word in _CHAINS:
                top.n += 1
                return True
            if _LEVEL[top.word] == _LEVEL[word] == _LEVEL["=="]:
                self.fail("brackets around one of two comparisons in a row", token)
            self.close_operator()
        self.waiting.append(_Waiting("operator", word, token, n=2))
        return True

    def end_of_argument(self, token: _Token) -> bool:
        """Close what waits within the bracket; a comma asks for one more argument."""
        self.close_operators()
        if not self.waiting or (token.text == "," and self.waiting[-1].kind == "bracket"):
            self.fail("an operator or the end" if not self.waiting else "')'", token)
        top = self.waiting[-1]
        if token.text == ",":
            top.n += 1
            return True
        self.waiting.pop()
        if top.kind == "function":
            self.call(top)
        return False

    def close_operators(self) -> None:
        while self.waiting and self.waiting[-1].kind == "operator":
            self.close_operator()

    def close_operator(self) -> None:
        """Append the step of the operator that came last."""
        top = self.waiting.pop()
        if top.word in _PREFIX:
            self.program.append(Step("not", 1))
        elif top.word in _CHAINS:
            self.program.append(Step(_CHAINS[top.word], top.n))
        elif top.word == "->":
            self.program.append(Step("implies", 2))
        else:
            self.program.append(Step("xor", 2))
            if top.word != "!=":
                self.program.append(Step("not", 1))

    def call(self, top: _Waiting) -> None:
        """Append the steps of a function of ``top.n`` arguments."""
        low, high = ARGUMENTS[top.word]
        if not low <= top.n <= high:
            self.fail(f"{low} arguments in {top.word}(…)", top.token, f"{top.n}")
        n, k = top.n, top.k
        steps = {
            "parity": [Step("xor", n)],
            "majority": [Step("at_least", n, n // 2 + 1)],
            "nand": [Step("and", n), Step("not", 1)],
            "nor": [Step("or", n), Step("not", 1)],
            "at_least": [Step("at_least", n, k)],
            "at_most": [Step("at_least", n, k + 1), Step("not", 1)],
            "exactly": [Step("exactly", n, k)],
            "iff": [Step("xor", n), Step("not", 1)],
            "mux": [Step("if", n)],
        }
        self.program += steps.get(top.word, [Step(top.word, n)])

    def opened(self) -> int:
        """Where the innermost bracket was opened."""
        token = self.waiting[-1].token
        return token.position + (len(token.text) if self.waiting[-1].kind == "function" else 0)

    def fail(self, expected: str, token: _Token | None, got: str | None = None) -> NoReturn:
        """Raise with the place, and a few characters around it."""
        position = len(self.text) + 1 if token is None else token.position
        got = got or ("the end" if token is None else repr(token.text[:40]))
        near = self.text[max(0, position - 21) : position + 19].strip()
        near = f" of {near!r}" if len(self.text) <= 40 else f", in …{near}…"
        raise SpecError(
            f"{self.where}: expected {expected} at character {position}{near}, got {got}. {_ADVICE}"
        )

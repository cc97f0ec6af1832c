"""Formulas such as ``sin(6*x) + x2**2``, read safely: a short list of instructions, never code.

Python's own parser makes the tree; only what is named here is taken from it, so that no name,
attribute or call of Python's can be reached. Decimals are taken as written: 0.1 is one tenth.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from lamina.core.errors import SpecError

_WHERE: Final = "expression"
_MOST_CHARACTERS: Final = 2000
_MOST_VARIABLES: Final = 1000
_MOST_FACTORS: Final = 1000  # of all powers written out as products: bounds exact evaluation
_VARIABLE: Final = re.compile(r"x([1-9][0-9]{0,3})?")
_CONSTANTS: Final = ("pi", "e")

# The functions and how many arguments each takes; None: two or more
FUNCTIONS: Final[dict[str, int | None]] = {
    "sin": 1,
    "cos": 1,
    "tan": 1,
    "exp": 1,
    "log": 1,
    "sqrt": 1,
    "abs": 1,
    "sign": 1,
    "tanh": 1,
    "sigmoid": 1,
    "relu": 1,
    "max": None,
    "min": None,
}
_OPERATORS: Final[dict[type[ast.operator], str]] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
}


@dataclass(frozen=True)
class Step:
    """One instruction: what to do with the results of earlier ones.

    Attributes
    ----------
    op : str
        const, pi, e, var, neg, add, sub, mul, div, pow, or a name in ``FUNCTIONS``.
    args : tuple of int
        The instructions whose results it takes.
    value : Fraction or int or None
        The number of const; the column of var, from 0; the exponent of pow.
    """

    op: str
    args: tuple[int, ...] = ()
    value: Fraction | int | None = None


@dataclass(frozen=True)
class Expression:
    """A formula in x1, x2, …: instructions in order, the last of which is its value.

    Attributes
    ----------
    text : str
        As it was written.
    steps : tuple of Step
    d_in : int
        The columns of x that it needs: the highest index among its variables.
    """

    text: str
    steps: tuple[Step, ...]
    d_in: int

    @property
    def is_rational(self) -> bool:
        """Whether fractions go in and come out: no root, no exponential, no pi."""
        rational = {"const", "var", "neg", "add", "sub", "mul", "div", "pow"}
        return all(s.op in rational | {"abs", "sign", "relu", "max", "min"} for s in self.steps)

    def __str__(self) -> str:
        return self.text


def parse_expression(text: object) -> Expression:
    """Read one formula.

    Parameters
    ----------
    text : str or Expression
        Numbers, x (the same as x1), x2, x3, …, pi, e, ``+ - * /``, ``**`` with a whole number, and
        sin, cos, tan, exp, log, sqrt, abs, sign, tanh, sigmoid, relu, max, min.

    Returns
    -------
    Expression

    Raises
    ------
    SpecError
        It is anything else.

    Examples
    --------
    >>> from lamina.theory import parse_expression
    >>> parse_expression("x1*x2 + 0.1").d_in
    2
    """
    if isinstance(text, Expression):
        return text
    found = parse_many(text)
    if len(found) != 1:
        raise SpecError(
            f"{_WHERE}: expected one formula, got {len(found)}, apart by commas. Pass one of them."
        )
    return found[0]


def parse_many(text: object) -> tuple[Expression, ...]:
    """Read formulas apart by commas, as ``parse_expression`` reads one."""
    source = _checked(text)
    try:
        tree = ast.parse(source, mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.Tuple) else [tree]
        if not nodes:
            raise SpecError(f"{_WHERE}: expected a formula, got {source!r}. Write one, such as x.")
        return tuple(_Reader(source).read(node) for node in nodes)
    except SyntaxError as error:
        raise SpecError(
            f"{_WHERE}: expected a formula such as sin(6*x), got {_short(source)!r}, which cannot "
            f"be read at character {error.offset or 1}. Write products with * and powers with **."
        ) from None
    except (RecursionError, MemoryError):
        raise SpecError(
            f"{_WHERE}: expected a formula that nests less deeply, got {_short(source)!r}. "
            f"Use fewer parentheses inside each other."
        ) from None
    except ValueError as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(
            f"{_WHERE}: expected a formula such as sin(6*x), got {_short(source)!r}, which cannot "
            f"be read. Write it in plain letters, digits and signs."
        ) from None


def _checked(text: object) -> str:
    """The text without blanks around it, if it is one and not too long."""
    if not isinstance(text, str):
        raise SpecError(
            f"{_WHERE}: expected a formula as text, got {type(text).__name__}. "
            f'Pass one such as "sin(6*x)": a Python function cannot be bounded.'
        )
    if len(text) > _MOST_CHARACTERS:
        raise SpecError(
            f"{_WHERE}: expected at most {_MOST_CHARACTERS} characters, got {len(text)}. "
            f"Shorten the formula."
        )
    source = text.strip()
    if not source:
        raise SpecError(f"{_WHERE}: expected a formula, got nothing. Write one, such as sin(6*x).")
    return source


class _Reader:
    """Walks one tree and writes its instructions; equal ones are written once."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.steps: list[Step] = []
        self.known: dict[Step, int] = {}
        self.factors: list[int] = []  # how many factors each instruction's powers amount to
        self.d_in = 0

    def read(self, node: ast.expr) -> Expression:
        self.steps, self.known, self.factors, self.d_in = [], {}, [], 0
        self._node(node)  # emitted last: no formula is a part of itself
        return Expression(self._text(node), tuple(self.steps), self.d_in)

    def _text(self, node: ast.expr) -> str:
        return ast.get_source_segment(self.source, node) or self.source

    def _emit(self, step: Step, factors: int) -> int:
        if factors > _MOST_FACTORS:
            raise SpecError(
                f"{_WHERE}: expected powers of at most {_MOST_FACTORS} factors written out, got "
                f"{_short(self.source)!r}, which has more. Use smaller exponents."
            )
        if step not in self.known:
            self.known[step] = len(self.steps)
            self.steps.append(step)
            self.factors.append(factors)
        return self.known[step]

    def _node(self, node: ast.expr) -> int:
        if isinstance(node, ast.Constant):
            return self._emit(Step("const", value=self._number(node)), 1)
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            inner = self._node(node.operand)
            if isinstance(node.op, ast.UAdd):
                return inner
            return self._emit(Step("neg", (inner,)), self.factors[inner])
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            left, right = self._node(node.left), self._node(node.right)
            factors = max(self.factors[left], self.factors[right])
            if isinstance(node.op, ast.Mult | ast.Div):
                factors = self.factors[left] + self.factors[right]
            return self._emit(Step(_OPERATORS[type(node.op)], (left, right)), factors)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            return self._power(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        raise self._refused(node)

    def _refused(self, node: ast.expr) -> SpecError:
        advice = "Write it with + - * /, whole powers and the functions " + ", ".join(FUNCTIONS)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor):
            advice = "Write powers with **"
        return SpecError(
            f"{_WHERE}: expected numbers, variables, + - * / ** and known functions, "
            f"got {_short(self._text(node))!r}. {advice}."
        )

    def _number(self, node: ast.Constant) -> Fraction:
        """The number as it is written, not as a float rounds it."""
        written = self._text(node).replace("_", "")
        exponent = re.search(r"[eE]([+-]?\d+)$", written)
        plain = isinstance(node.value, int | float) and not isinstance(node.value, bool)
        if not plain or len(written) > 60 or (exponent and abs(int(exponent[1])) > 300):
            raise SpecError(
                f"{_WHERE}: expected real numbers of at most 60 characters and powers of ten up to "
                f"300, got {_short(written)!r}. Write it shorter, or scale x."
            )
        return Fraction(node.value) if isinstance(node.value, int) else Fraction(written)

    def _name(self, name: str) -> int:
        if name in _CONSTANTS:
            return self._emit(Step(name), 1)
        found = _VARIABLE.fullmatch(name)
        if found is None or int(found[1] or 1) > _MOST_VARIABLES:
            if name in FUNCTIONS:
                advice = f"Give the function its argument: {name}(x)"
            else:
                advice = f"Call the variables x1 to x{_MOST_VARIABLES}"
            raise SpecError(
                f"{_WHERE}: expected the names x (the same as x1), x2, x3, …, pi and e, "
                f"got {_short(name)!r}. {advice}."
            )
        column = int(found[1] or 1) - 1
        self.d_in = max(self.d_in, column + 1)
        return self._emit(Step("var", value=column), 1)

    def _power(self, node: ast.BinOp) -> int:
        exponent = _whole(node.right)
        if exponent is None or abs(exponent) > _MOST_FACTORS:
            raise SpecError(
                f"{_WHERE}: expected a whole number from -{_MOST_FACTORS} to {_MOST_FACTORS} after "
                f"**, got {_short(self._text(node.right))!r}. Write roots with sqrt, and other "
                f"powers with exp and log."
            )
        base = self._node(node.left)
        factors = max(abs(exponent) * self.factors[base], 1)
        return self._emit(Step("pow", (base,), exponent), factors)

    def _call(self, node: ast.Call) -> int:
        name = node.func.id if isinstance(node.func, ast.Name) else self._text(node.func)
        if name not in FUNCTIONS or node.keywords:
            raise SpecError(
                f"{_WHERE}: expected the functions {', '.join(FUNCTIONS)}, got {_short(name)!r}. "
                f"Use one of these."
            )
        n = FUNCTIONS[name]
        if (len(node.args) != n) if n else (len(node.args) < 2):
            wanted = "one argument" if n else "two or more arguments"
            raise SpecError(
                f"{_WHERE}: expected {wanted} for {name}, got {len(node.args)}. "
                f"Write {name}({'x' if n else 'x1, x2'})."
            )
        args = [self._node(a) for a in node.args]
        factors = max(self.factors[i] for i in args)
        result = args[0]
        for other in args[1:]:
            result = self._emit(Step(name, (result, other)), factors)
        return result if len(args) > 1 else self._emit(Step(name, (result,)), factors)


def _whole(node: ast.expr) -> int | None:
    """The whole number that a node writes, with its signs; None for anything else."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _whole(node.operand)
        return inner if inner is None or isinstance(node.op, ast.UAdd) else -inner
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    return None


def _short(text: str, most: int = 40) -> str:
    line = "".join(_printable(text))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _printable(text: str) -> Iterator[str]:
    for c in text:
        yield c if c.isprintable() else repr(c)[1:-1]

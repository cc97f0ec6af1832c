"""Reads a bank of memories: triggers, promoted tokens, statistics, search; no model is needed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core.errors import ModelFileError
from lamina.memories.bank_file import BankFile, connect
from lamina.memories.patterns import (
    Pattern,
    PatternCoverage,
    layer_coverage,
    shared_patterns,
)
from lamina.memories.text_search import TextSearch
from lamina.memories.value_search import ValueSearch


@dataclass(frozen=True)
class Trigger:
    """A token on which a neuron fired: its text, verbatim, between what came before and after."""

    before: str
    token: str
    after: str
    coefficient: float
    sequence: int
    position: int


@dataclass(frozen=True)
class Promoted:
    """A token that a value promotes, and its logit."""

    token: int
    text: str
    logit: float


@dataclass(frozen=True)
class Neuron:
    """A neuron that a search found; `score` is a logit or a cosine, as the search says."""

    layer: int
    neuron: int
    score: float


@dataclass(frozen=True)
class Agreement:
    """How often a value's top token follows its key's best trigger, in one layer.

    Attributes
    ----------
    layer : int
    n : int
        Neurons whose best trigger is followed by a token of its sequence.
    share : float
    chance : float
        The same with each value beside every trigger of the layer, not its own only.
    """

    layer: int
    n: int
    share: float
    chance: float


def open(path: str | os.PathLike[str], model: Any = None) -> Bank:  # noqa: A001 (memories.open)
    """Open a finished bank, read-only: several processes may.

    Parameters
    ----------
    path : path-like
    model : transformers model, optional
        If given, the bank must be of this model.

    Raises
    ------
    ModelFileError
        There is no such bank, it is damaged, or it is still being recorded.
    DataError
        It is of another model.
    """
    where, target = "memories.open", Path(path)
    if not target.exists():
        if target.with_name(target.name + ".recording").exists():
            raise ModelFileError(
                f"{where}: expected a finished bank, got {str(target)!r}, which is being recorded, "
                "or was interrupted. Wait, or call memories.record again to go on."
            )
        raise ModelFileError(
            f"{where}: expected a bank of memories, got no file {str(target)!r}. Make one with "
            "memories.record."
        )
    bank = Bank(connect(target, where, read_only=True), str(target))
    if model is not None:
        bank.check_model(model)
    return bank


class Bank(BankFile):
    """What `record` found, read from its file. Close it, or use it in a ``with``."""

    def __init__(self, database: Any, path: str) -> None:
        super().__init__(database, path)
        self._values: ValueSearch | None = None
        self._text: TextSearch | None = None

    def close(self) -> None:
        """Close the file, and the index of its texts."""
        if self._text is not None:
            self._text.close()
        super().close()

    def triggers(self, layer: int, neuron: int, k: int | None = None) -> list[Trigger]:
        """Return the tokens on which a neuron fired most, strongest first, by default all."""
        self.check(layer, neuron, "triggers")
        rows = self.rows(
            "SELECT t.coefficient, t.sequence, t.token, s.text, s.starts[t.token + 1], "
            "s.ends[t.token + 1] FROM (SELECT * FROM triggers WHERE layer = ? AND neuron = ?) t "
            "JOIN sequences s USING (sequence) ORDER BY t.rank LIMIT ?",
            [layer, neuron, self.facts["top_k"] if k is None else k],
        )
        return [
            Trigger(text[:start], text[start:end], text[end:], coefficient, sequence, position)
            for coefficient, sequence, position, text, start, end in rows
        ]

    def promotes(self, layer: int, neuron: int, k: int = 10) -> list[Promoted]:
        """Return the tokens that a value promotes: the largest of ``lm_head(norm(value))``.

        The final norm, where the model has one, treats the value as if it were the whole residual
        stream; no coefficient is applied. At most 20 were kept.
        """
        self.check(layer, neuron, "promotes")
        rows = self.rows(
            "SELECT token, text, logit FROM promoted JOIN vocabulary USING (token) "
            "WHERE layer = ? AND neuron = ? ORDER BY rank LIMIT ?",
            [layer, neuron, k],
        )
        return [Promoted(*row) for row in rows]

    def statistics(self, layer: int, neuron: int) -> dict[str, Any]:
        """Return rate of activity, mean coefficient, and quantiles by their level.

        Quantiles are of a uniform sample of 256 tokens: exact up to as many.
        """
        from lamina.memories.running import QUANTILES

        self.check(layer, neuron, "statistics")
        rate, mean, quantiles = self.rows(
            "SELECT rate, mean, quantiles FROM neurons WHERE layer = ? AND neuron = ?",
            [layer, neuron],
        )[0]
        return {
            "rate": rate,
            "mean": mean,
            "quantiles": dict(zip(QUANTILES, quantiles, strict=True)),
        }

    def strongest(self, layer: int, k: int = 20) -> list[Neuron]:
        """Return a layer's neurons with the largest coefficients, which are the scores."""
        self.check(layer, 0, "strongest")
        rows = self.rows(
            "SELECT layer, neuron, coefficient FROM triggers WHERE layer = ? AND rank = 0 "
            "ORDER BY coefficient DESC, neuron LIMIT ?",
            [layer, k],
        )
        return [Neuron(*row) for row in rows]

    def active_share(self) -> list[float]:
        """Return for each layer the mean share of its memories that are active on a token."""
        return [
            x for (x,) in self.rows("SELECT avg(rate) FROM neurons GROUP BY layer ORDER BY layer")
        ]

    def agreement(self) -> list[Agreement]:
        """Return for each layer how often a value's top token follows its key's best trigger.

        References
        ----------
        Geva et al. 2021, arXiv:2012.14913, figure 4.
        """
        rows = self.rows(
            "WITH pairs AS (SELECT t.layer, p.token AS top, s.ids[t.token + 2] AS next "
            "FROM triggers t JOIN promoted p USING (layer, neuron) "
            "JOIN sequences s USING (sequence) "
            "WHERE t.rank = 0 AND p.rank = 0 AND t.token + 2 <= len(s.ids)), "
            "tops AS (SELECT layer, top, count(*) AS n FROM pairs GROUP BY ALL), "
            "nexts AS (SELECT layer, next AS top, count(*) AS m FROM pairs GROUP BY ALL), "
            "luck AS (SELECT layer, sum(n * m) AS hits FROM tops JOIN nexts USING (layer, top) "
            "GROUP BY layer) "
            "SELECT layer, count(*), avg((top = next)::INT), "
            "coalesce(any_value(hits), 0) / (count(*) * count(*)) "
            "FROM pairs LEFT JOIN luck USING (layer) GROUP BY layer ORDER BY layer"
        )
        return [Agreement(layer, n, share, float(chance)) for layer, n, share, chance in rows]

    def patterns(self, layer: int, neuron: int, n_max: int = 3) -> list[Pattern]:
        """Return the n-grams that at least 3 of a neuron's triggers hold, most telling first.

        They stand within the last 8 tokens up to the trigger, which counts as one of them, and are
        compared with 20,000 random places of the corpus.

        References
        ----------
        Geva et al. 2021, arXiv:2012.14913, section 3, where people looked for patterns.
        """
        self.check(layer, neuron, "patterns")
        return shared_patterns(self, layer, neuron, n_max, 20_000)

    def pattern_coverage(
        self, n_neurons: int = 100, n_max: int = 3, *, rng: int | np.random.Generator = 0
    ) -> list[PatternCoverage]:
        """Return for each layer the share of triggers that hold an n-gram which 3 of them share.

        Parameters
        ----------
        n_neurons : int
            Of each layer, chosen at random.
        n_max : int
            Tokens of an n-gram at most.
        rng : int or Generator
        """
        return layer_coverage(self, n_neurons, n_max, np.random.default_rng(rng))

    def neurons_promoting(self, text: str, k: int = 20) -> list[Neuron]:
        """Return the neurons that promote a token of this text, whatever the spaces, by logit."""
        rows = self.rows(
            "SELECT layer, neuron, max(logit) AS score FROM promoted WHERE token IN "
            "(SELECT token FROM vocabulary WHERE trim(text) = ?) "
            "GROUP BY layer, neuron ORDER BY score DESC, layer, neuron LIMIT ?",
            [text.strip(), k],
        )
        return [Neuron(*row) for row in rows]

    def neurons_triggered_by(self, words: str, k: int = 20) -> list[Neuron]:
        """Return the neurons that fire on these words, or within 7 tokens after them.

        The score is the share of a neuron's triggers that do so. Case, accents and punctuation do
        not count. The first search of a bank makes an index beside it, ``PATH.search``.

        Raises
        ------
        DataError
            There is no word in it.
        """
        if self._text is None:
            self._text = TextSearch(self)
        return [Neuron(*row) for row in self._text.neurons(words, k)]

    def neurons_along(self, direction: npt.ArrayLike, k: int = 20) -> list[Neuron]:
        """Return the neurons whose values have the largest cosine with a vector of d_model.

        The first search of a bank reads every value, and writes them beside it, ``PATH.values``
        (4 d_model bytes each), for later ones to map.
        """
        return [Neuron(*row) for row in self._value_search().along(direction, k)]

    def neurons_alike(self, layer: int, neuron: int, k: int = 20) -> list[Neuron]:
        """Return the other neurons whose values have the largest cosine with this one's."""
        self.check(layer, neuron, "neurons_alike")
        found = self.neurons_along(self._value_search().value(layer, neuron), k + 1)
        return [other for other in found if (other.layer, other.neuron) != (layer, neuron)][:k]

    def _value_search(self) -> ValueSearch:
        if self._values is None:
            self._values = ValueSearch(self)
        return self._values

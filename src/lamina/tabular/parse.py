"""Text as numbers and dates: money, percent, separators of thousands, dates as people write them.

A column is read by one form throughout. `read_numbers` and `read_dates` choose it by what fits most
cells, where "1,234" or 1/2/2020 alone would not tell; a fitted model keeps the form.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Words that stand for no value where numbers or dates are expected, in lower case.
MARKS = frozenset(
    [
        *("", "-", "--", "---", "–", "—", ".", "..", "...", "none", "na", "n/a", "n.a.", "nan"),
        *("nil", "null", "missing", "unknown", "n/d", "nd", "?", "#n/a", "#value!", "#div/0!"),
        *("#ref!", "#num!", "#name?", "#null!", "<na>", "nat"),
    ]
)
_SPACES = " \u00a0\u202f\u2009"
_CURRENCY = r"(?:[$€£¥₹₩₽₺₪]|(?:USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD|US\$)(?![a-z]))?"


def _number_pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    group = rf"[1-9]\d{{0,2}}(?:(?P<mark>[{thousands}'’{_SPACES}])\d{{3}})(?:(?P=mark)\d{{3}})*"
    digits = rf"(?:{group}|\d+)(?:{decimal}\d*)?|{decimal}\d+"
    number = rf"(?P<number>(?:{digits})(?:[eE][+-]?\d+)?)"
    return re.compile(
        rf"(?P<open>\()?\s*(?P<sign>[+−-])?\s*{_CURRENCY}\s*(?P<after>[+−-])?\s*{number}"
        rf"\s*(?:{_CURRENCY}|%)\s*(?P<close>\))?",
        re.IGNORECASE,
    )


NUMBER_FORMS = {
    "decimal point": (_number_pattern(r"\.", ","), "."),
    "decimal comma": (_number_pattern(",", "."), ","),
}
DATE_FORMS = ("day first", "month first")
_TIME = (
    r"(?:(?:T|,?\s+)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<part>\d+))?)?"
    r"\s*(?P<half>[AP]\.?M\.?)?\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2})?)?"
)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH = r"(?P<name>(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*)\.?"
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+)?"
_DATES = tuple(
    re.compile(pattern + _TIME, re.IGNORECASE)
    for pattern in (
        r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})",
        r"(?P<a>\d{1,2})(?P<sep>[-/.])(?P<b>\d{1,2})(?P=sep)(?P<year>\d{4}|(?<!\.)\d{2})",
        _WEEKDAY + _MONTH + r"\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?,?\s+(?P<year>\d{4})",
        _WEEKDAY + r"(?P<day>\d{1,2})(?:st|nd|rd|th)?[-\s]+" + _MONTH + r",?[-\s]+(?P<year>\d{4})",
        _MONTH + r",?[-\s]+(?P<year>\d{4})",
    )
)
_CODE = re.compile(r"0\d.*|\d+[A-Za-z]+\d*|[A-Za-z]+[-/ ]?\d+[A-Za-z]?")
_PLAIN = re.compile(r"-?\d+(?:\.\d*)?")
_SAMPLE = 200  # levels looked at before all of them are
ENOUGH = 0.95  # of the cells: the rest is dirt, as one 1,5 among many 1,234 is
_Parse = Callable[[str, str], float | None]
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, eq=False)
class Reading:
    """The levels of a text column read as numbers or dates.

    Parameters
    ----------
    form : str
        How they were read, one of `NUMBER_FORMS` or `DATE_FORMS`.
    values : (n_levels,) float64
        Numbers, or seconds since 1970; NaN where the level is neither.
    stray : (n_levels,) bool
        True where the level is no such value, and no word for a missing one either.
    """

    form: str
    values: NDArray[np.float64]
    stray: NDArray[np.bool_]

    def share(self, counts: NDArray[Any]) -> float:
        """Return the share of the cells with a value that were read; 0 if none has one."""
        read = int(counts[~np.isnan(self.values)].sum())
        return read / max(read + int(counts[self.stray].sum()), 1)


def read_numbers(levels: Sequence[str], counts: NDArray[Any], form: str = "") -> Reading:
    """Return levels, each found in ``counts`` cells, as numbers.

    "$1,234.50", "(3)", "12 %" (12), "1 234,5" and "1.5e3" are numbers. ``form=""`` chooses the
    point as decimal mark where it fits 95 % of the cells, else the mark that fits more.
    """
    return _best(levels, counts, [form] if form else list(NUMBER_FORMS), _number, ENOUGH)


def read_dates(levels: Sequence[str], counts: NDArray[Any], form: str = "") -> Reading:
    """Return levels, each found in ``counts`` cells, as seconds since 1970 (no zone means UTC).

    Year first, day or month first, and English month names, with or without a time. ``form=""``
    chooses the order of day and month that fits more cells; where both do, the month is first
    between slashes (3/4/2020), else the day (3.4.2020).
    """
    slashes = sum("/" in level for level in levels[:_SAMPLE])
    order = DATE_FORMS if 2 * slashes < len(levels[:_SAMPLE]) else DATE_FORMS[::-1]
    return _best(levels, counts, [form] if form else order, _date, 1.0)


def looks_like(levels: Sequence[str], what: str) -> bool:
    """Return whether half of some levels are "number" or "date": worth reading them all."""
    step = max(len(levels) // _SAMPLE, 1)
    some = [level for level in levels[::step] if level.strip().lower() not in MARKS]
    read = read_numbers if what == "number" else read_dates
    return bool(some) and read(some, np.ones(len(some))).share(np.ones(len(some))) >= 0.5


def code_like(reading: Reading, levels: Iterable[str], counts: NDArray[Any]) -> bool:
    """Return whether numbers are rather codes: with leading zeros, of 16 digits, or among A12."""
    digits = strays = 0
    for level, value, stray, count in zip(
        levels, reading.values, reading.stray, counts, strict=True
    ):
        text = level.strip()
        if stray:
            strays += count
            digits += count if _CODE.fullmatch(text) else 0
        elif value == value and text.isdigit() and (len(text) > 15 or text[0] == "0" != text):
            return True
    return 2 * digits > strays


def _best(
    levels: Sequence[str], counts: NDArray[Any], forms: Sequence[str], parse: _Parse, enough: float
) -> Reading:
    """Read all levels by the first form that reads ``enough`` of the cells, else by the best."""
    readings = []
    for form in forms:
        readings.append(_read(levels, form, parse))
        if readings[-1].share(counts) >= enough:
            return readings[-1]
    return max(readings, key=lambda reading: reading.share(counts))


def _read(levels: Sequence[str], form: str, parse: _Parse) -> Reading:
    """Apply ``parse`` to every level."""
    values = np.full(len(levels), np.nan)
    stray = np.zeros(len(levels), dtype=bool)
    for i, level in enumerate(levels):
        value = parse(level, form)
        if value is not None:
            values[i] = value
        else:
            stray[i] = level.strip().lower() not in MARKS
    return Reading(form, values, stray)


def _number(text: str, form: str) -> float | None:
    """Return text as a number, or None."""
    pattern, decimal = NUMBER_FORMS[form]
    if decimal == "." and _PLAIN.fullmatch(text):  # the most frequent ones, quicker
        return float(text)
    match = pattern.fullmatch(text.strip())
    if match is None or (match["open"] is None) != (match["close"] is None):
        return None
    digits = match["number"]
    if match["mark"] is not None:
        digits = digits.replace(match["mark"], "")
    value = float(digits.replace(decimal, "."))
    minus = (match["sign"] or match["after"] or "+") in "-−"
    return -value if minus or match["open"] else value


def _date(text: str, form: str) -> float | None:
    """Return text as seconds since 1970, or None."""
    text = text.strip()
    for pattern in _DATES:
        match = pattern.fullmatch(text)
        if match is not None:
            return _seconds(match.groupdict(), form)
    return None


def _seconds(part: dict[str, Any], form: str) -> float | None:
    """Return the parts of a date as seconds since 1970, None if there is no such day."""
    year = int(part["year"])
    if len(part["year"]) == 2:
        year += 1900 if year >= 69 else 2000
    if part.get("a"):
        a, b = int(part["a"]), int(part["b"])
        day, month = (a, b) if form == "day first" else (b, a)
    elif part.get("name"):
        month, day = _MONTHS.index(part["name"][:3].lower()) + 1, int(part.get("day") or 1)
    else:
        month, day = int(part["month"]), int(part["day"])
    hour = int(part["hour"] or 0)
    if part["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if part["half"][0] in "pP" else 0)
    try:
        moment = datetime.datetime(
            year, month, day, hour, int(part["minute"] or 0), int(part["second"] or 0),
            tzinfo=datetime.UTC,
        )  # fmt: skip
    except ValueError:
        return None
    seconds = (moment - _EPOCH).total_seconds() + float(f"0.{part['part'] or 0}")
    zone = part["zone"] or "Z"
    if zone[0] in "+-":
        minutes = int(zone[1:3]) * 60 + int(zone[-2:])
        seconds -= 60.0 * (-minutes if zone[0] == "-" else minutes)
    return seconds

"""Text as numbers and dates, against what Python's own types say."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.tabular.parse import code_like, looks_like, read_dates, read_numbers


def ones(levels: list[str]) -> np.ndarray:
    return np.ones(len(levels), dtype=np.int64)


def number(text: str, form: str = "decimal point") -> float | None:
    value = float(read_numbers([text], ones([text]), form).values[0])
    return None if math.isnan(value) else value


def date(text: str, form: str = "day first") -> str | None:
    value = read_dates([text], ones([text]), form).values[0]
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(
        seconds=0 if value != value else value
    )
    return None if math.isnan(value) else moment.isoformat(" ")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$1,234.50", 1234.5),
        ("-$5", -5.0),
        ("$-5", -5.0),
        ("($1,234)", -1234.0),
        ("12%", 12.0),
        ("12 %", 12.0),
        ("USD 5", 5.0),
        ("5 €", 5.0),
        ("1.5e3", 1500.0),
        (" 7 ", 7.0),
        (".5", 0.5),
        ("1 234", 1234.0),
        ("1\u202f234.5", 1234.5),
        ("1'234.5", 1234.5),
        ("−3", -3.0),
        ("12,34", None),
        ("0,123", None),
        ("1,234,5", None),
        ("(3", None),
        ("1_000", None),
        ("12kg", None),
        ("1.2.3", None),
        ("-", None),
        ("", None),
        ("inf", None),
        ("٣", 3.0),
    ],
)
def test_a_number_with_a_decimal_point(text: str, value: float | None) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1 234,5", 1234.5), ("1.234,50 €", 1234.5), ("1,5", 1.5), ("1.234", 1234.0), ("1.5", None)],
)
def test_a_number_with_a_decimal_comma(text: str, value: float | None) -> None:
    assert number(text, "decimal comma") == value


@pytest.mark.parametrize(
    ("levels", "form"),
    [
        (["1,234", "2,345"], "decimal point"),
        (["1,234", "2,3"], "decimal comma"),
        (["1.234", "2.345"], "decimal point"),
        (["1,234.5", "2"], "decimal point"),
        (["1 234", "7"], "decimal point"),
    ],
)
def test_the_form_is_the_one_that_fits_more_cells(levels: list[str], form: str) -> None:
    assert read_numbers(levels, ones(levels)).form == form


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_python_writes_is_read_exactly(value: float) -> None:
    assert number(repr(value)) == value


@given(st.integers(-(10**12), 10**12), st.integers(0, 99))
def test_separators_of_thousands_change_nothing(whole: int, cents: int) -> None:
    text = f"{whole:,}.{cents:02}"
    assert number(text) == float(f"{whole}.{cents:02}")
    swapped = text.translate(str.maketrans(",.", ".,"))
    assert number(swapped, "decimal comma") == float(f"{whole}.{cents:02}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("31/12/2020", "2020-12-31 00:00:00"),
        ("12/31/2020", None),
        ("31.12.2020", "2020-12-31 00:00:00"),
        ("31.12.20", None),
        ("1-2-99", "1999-02-01 00:00:00"),
        ("1/2/20 23:59", "2020-02-01 23:59:00"),
        ("2020-01-31 10:00:00", "2020-01-31 10:00:00"),
        ("2020/1/31T10:00:00.25", "2020-01-31 10:00:00.250000"),
        ("2020-01-31T10:00:00+02:30", "2020-01-31 07:30:00"),
        ("2020-01-31T10:00:00-0230", "2020-01-31 12:30:00"),
        ("Jan 5, 2020", "2020-01-05 00:00:00"),
        ("January 5th 2020", "2020-01-05 00:00:00"),
        ("Sun, 5 Jan 2020 00:00:01 GMT", "2020-01-05 00:00:01"),
        ("05-Jan-2020", "2020-01-05 00:00:00"),
        ("5 Sept. 2020 3:04 PM", "2020-09-05 15:04:00"),
        ("5 May 2020 12:04 am", "2020-05-05 00:04:00"),
        ("5 May 2020 13:04 pm", None),
        ("Jan 2020", "2020-01-01 00:00:00"),
        ("2020-02-30", None),
        ("2020-01-31 25:00", None),
        ("1/2-2020", None),
        ("10.12.14", None),
        ("soon", None),
    ],
)
def test_a_date(text: str, expected: str | None) -> None:
    assert date(text) == expected


@pytest.mark.parametrize(
    ("levels", "form"),
    [
        (["1/2/2020", "31/12/2020"], "day first"),
        (["1/2/2020", "12/31/2020"], "month first"),
        (["1/2/2020", "3/4/2020"], "month first"),
        (["1.2.2020", "3.4.2020"], "day first"),
    ],
)
def test_the_data_tells_day_from_month(levels: list[str], form: str) -> None:
    assert read_dates(levels, ones(levels)).form == form


FORMATS = ["%d/%m/%Y", "%d %b %Y", "%B %d, %Y", "%Y-%m-%dT%H:%M:%S", "%a, %d %B %Y %I:%M:%S %p"]


@given(st.datetimes(datetime.datetime(1000, 1, 1)), st.sampled_from(FORMATS))
def test_dates_as_strftime_writes_them(moment: datetime.datetime, form: str) -> None:
    text = moment.strftime(form)
    back = datetime.datetime.strptime(text, form)  # to the day, or to the second
    assert date(text) == back.isoformat(" ")


@given(st.text(max_size=20))
def test_any_text_is_read_or_stray(text: str) -> None:
    for reading in (read_numbers([text], ones([text])), read_dates([text], ones([text]))):
        assert np.isfinite(reading.values[0]) or math.isnan(reading.values[0])
        assert not (reading.stray[0] and np.isfinite(reading.values[0]))


def test_codes_are_not_numbers() -> None:
    for levels, expected in (
        (["1", "2", "n/a?"], False),
        (["1", "2", "12B", "A-7"], True),
        (["1", "02"], True),
        (["1", "0"], False),
        (["1", "0.5"], False),
        (["1" * 16], True),
    ):
        counts = ones(levels)
        assert code_like(read_numbers(levels, counts), levels, counts) == expected, levels


def test_a_sample_settles_what_a_column_is_not() -> None:
    assert looks_like(["1", "x"], "number")
    assert not looks_like(["1", "x", "y"], "number")
    assert looks_like(["-", "none", "1/2/2020"], "date")
    assert not looks_like(["-", "none"], "number")
    assert not looks_like([], "date")


def test_one_other_mark_among_many_is_dirt() -> None:
    levels = [f"{i:,}" for i in range(4001)] + ["1,5"]
    reading = read_numbers(levels, ones(levels))
    assert reading.form == "decimal point"
    assert reading.stray.nonzero()[0].tolist() == [4001]
    assert reading.share(ones(levels)) == 4001 / 4002

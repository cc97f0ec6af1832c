"""One pyarrow column to one of ours."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.tabular.table import Column

if TYPE_CHECKING:
    import pyarrow as pa

# Words for no value in any text column. "None" and "-" are left to `kinds`: among numbers they mean
# nothing, but among words they can be a class (damage: None; label: + or -).
MISSING_MARKS = (
    *(
        "",
        "NA",
        "N/A",
        "n/a",
        "na",
        "#N/A",
        "#NA",
        "#N/A N/A",
        "<NA>",
        "NaN",
        "nan",
        "-NaN",
        "-nan",
    ),
    *("NULL", "Null", "null", "NaT", "?", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
_ISO_DATE = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"


def arrow_column(name: str, data: pa.ChunkedArray, *, detect_dates: bool = True) -> Column:
    """Turn one pyarrow column into a `Column`."""
    import pyarrow as pa

    types = pa.types
    if isinstance(data.type, pa.BaseExtensionType):
        data = pa.chunked_array([chunk.storage for chunk in data.chunks], data.type.storage_type)
    kind = data.type
    if types.is_dictionary(kind):
        return _category(name, data)
    if types.is_boolean(kind):
        return Column(name, "boolean", _codes(data.cast(pa.int8())), ("false", "true"))
    if types.is_string(kind) or types.is_string_view(kind) or types.is_large_string(kind):
        data = data.cast(pa.large_string())
        dates = _text_dates(data) if detect_dates else None
        return _text_column(name, data) if dates is None else Column(name, "date", _seconds(dates))
    if types.is_date(kind) or types.is_timestamp(kind):
        return Column(name, "date", _seconds(data))
    if types.is_time(kind) or types.is_duration(kind):
        unit = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        whole = data.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
        return Column(name, "number", _floats(whole) / unit)  # in seconds
    if types.is_null(kind):
        return Column(name, "number", np.full(len(data), np.nan))
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return Column(name, "number", _floats(data), whole=types.is_integer(kind))
    return Column(name, "other", np.full(len(data), np.nan))


def _category(name: str, data: pa.ChunkedArray) -> Column:
    """Turn a dictionary column into text levels, those of numbers as `number_text` writes them."""
    import pyarrow as pa

    plain = arrow_column(name, data.cast(data.type.value_type), detect_dates=False)
    if plain.kind in ("number", "boolean"):
        plain = plain.as_text()
    if plain.kind == "date":
        plain = _text_column(name, data.cast(data.type.value_type).cast(pa.large_string()))
    return replace(plain, declared=True)


def _text_column(name: str, data: pa.ChunkedArray) -> Column:
    """Code a text column: levels in order of first appearance, -1 where there is no value."""
    coded = data.combine_chunks().dictionary_encode()
    codes, levels = _codes(coded.indices), coded.dictionary.to_pylist()
    marks = [i for i, level in enumerate(levels) if len(level) < 16 and level.strip() in _MARKS]
    if marks:
        kept = np.ones(len(levels) + 1, dtype=bool)
        kept[marks] = kept[-1] = False
        codes = np.where(kept, np.cumsum(kept, dtype=np.int32) - 1, -1)[codes].astype(np.int32)
        levels = [level for level, keep in zip(levels, kept, strict=False) if keep]
    return Column(name, "text", codes, tuple(levels))


_MARKS = frozenset(MISSING_MARKS)


def _floats(data: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Return numbers as float64, or float32 where they are; NaN where there is none."""
    import pyarrow as pa

    whole = data.combine_chunks() if isinstance(data, pa.ChunkedArray) else data
    if whole.type != pa.float32():
        whole = whole.cast(pa.float64(), safe=False)
    return np.asarray(whole.to_numpy(zero_copy_only=False))


def _codes(data: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
    """Return small whole numbers as int32, -1 where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = data.combine_chunks() if isinstance(data, pa.ChunkedArray) else data
    filled = pc.fill_null(whole.cast(pa.int32()), -1)
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.int32)


def _seconds(data: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return dates as seconds since 1970, NaN where there is none; no zone means UTC."""
    import pyarrow as pa

    zone = data.type.tz if pa.types.is_timestamp(data.type) else None
    micro = data.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    return np.asarray(_floats(micro) / 1e6, dtype=np.float64)


def _text_dates(data: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return text as dates if every value is an ISO 8601 date, else None."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = data.drop_null()
    for part in (text[:1], text):  # the first value settles it for nearly every column
        if len(part) == 0 or not pc.all(pc.match_substring_regex(part, _ISO_DATE)).as_py():
            return None
    for zone in (None, "UTC"):
        try:
            return data.cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            continue
    return None

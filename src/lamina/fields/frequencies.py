"""How often each token comes: the model of an entropy coder.

Values v around a middle c are numbered z = 0, 1, 2, … as c, c - 1, c + 1, c - 2, …. Below 2^split,
z is its own token. Above, a token says the highest bit of z and the next `TOP_BITS`; the others are
stored as they are.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError
from lamina.fields.byte_reader import ByteReader, varint

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

SPLITS: Final = (4, 7, 11)
TOP_BITS: Final = 3
MOST_BITS: Final = 34  # of z
PRECISIONS: Final = (9, 11, 14)  # frequencies sum to 2^k
TABLE, PACKED_TABLE, DECAY = 0, 1, 2
ONE: Final = 1 << 24  # of the decay's ratios
PEAK: Final = 1 << 36  # of its weights: times a ratio, within 63 bits
# Between a Laplace (0) and a normal distribution (1)
ROUNDNESS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
WIDTHS: Final = tuple(2.0 ** (i / 8 - 1) for i in range(17))  # of the spread that was measured


@dataclass(frozen=True)
class Model:
    """Tokens and their frequencies.

    Attributes
    ----------
    middle : int
        c.
    split : int
    bits : int
        k: frequencies sum to 2^k.
    frequency : int64 array (n_tokens,)
        At least 1 of every token that occurs.
    told : bytes
        What `read_model` makes the frequencies of.
    """

    middle: int
    split: int
    bits: int
    frequency: Ints
    told: bytes

    @property
    def start(self) -> Ints:
        """Sum of the frequencies before each token's."""
        return np.cumsum(self.frequency) - self.frequency

    def to_bytes(self) -> bytes:
        """Return what `read_model` reads."""
        head = bytes([self.split << 4 | self.bits])
        return head + varint(_fold(self.middle)) + varint(len(self.frequency)) + self.told

    def further_bits(self, values: Ints) -> bytes:
        """Return the bits that tokens leave out, packed."""
        z = _numbers(values, self.middle)
        n_bits = _n_further(_tokens(z, self.split), self.split)
        begin = np.cumsum(n_bits) - n_bits
        bits = np.zeros(int(n_bits.sum()), np.uint8)
        for place in range(int(n_bits.max(initial=0))):
            has = n_bits > place
            bits[begin[has] + place] = z[has] >> place & 1
        return np.packbits(bits).tobytes()

    def values(self, tokens: Ints, reader: ByteReader) -> Ints:
        """Return the values of tokens, with their further bits from `reader`."""
        n_bits = _n_further(tokens, self.split)
        begin = np.cumsum(n_bits) - n_bits
        total = int(n_bits.sum())
        bits = np.unpackbits(reader.array("u1", -(-total // 8)))
        z = _least(tokens, self.split)
        for place in range(int(n_bits.max(initial=0))):
            has = n_bits > place
            z[has] |= bits[begin[has] + place].astype(np.int64) << place
        return self.middle + np.where(z & 1, -(z + 1 >> 1), z >> 1)


def choose(values: Ints) -> tuple[Model, Ints, float]:
    """Return the model of the shortest stream, the tokens, and their bits; values (n,), n ≥ 1."""
    middle = int(np.sort(values)[len(values) // 2])
    z = _numbers(values, middle)
    best: tuple[float, Model, Ints] | None = None
    for split in SPLITS:
        tokens = _tokens(z, split)
        further = float(_n_further(tokens, split).sum())
        counts = np.bincount(tokens)
        is_near = int(z.max()) < 1 << split
        for bits in PRECISIONS:
            if 2 * len(counts) > 1 << bits:
                continue
            told = [_tabled(counts, bits)]
            if (is_near or split == SPLITS[-1]) and len(counts) > 4:
                told.append(_decaying(counts, bits))
            for form, frequency in told:
                cost = further + _n_bits(counts, frequency, bits) + 8 * len(form)
                if best is None or cost < best[0]:
                    best = cost, Model(middle, split, bits, frequency, form), tokens
        if is_near:
            break  # a later split has the same tokens
    assert best is not None  # noqa: S101  # the last precision holds all tokens
    return best[1], best[2], best[0]


def read_model(reader: ByteReader) -> Model:
    """Return the model that a stream holds.

    Raises
    ------
    DataError
        It is none.
    """
    head = reader.byte()
    split, bits = head >> 4, head & 15
    folded, n_tokens = reader.varint(), reader.varint()
    most = (1 << split) + (MOST_BITS - split << TOP_BITS)
    if split not in SPLITS or bits not in PRECISIONS or not 1 <= n_tokens <= min(most, 1 << bits):
        raise _damaged("a model that is none")
    middle = (folded >> 1) ^ -(folded & 1)
    if not -(2**31) <= middle < 2**31:
        raise _damaged("a middle of more than 32 bits")
    form = reader.byte()
    if form == DECAY:
        zero, ratio, bend = (reader.varint() for _ in range(3))
        if zero > 1 << 20 or ratio > ONE or bend > ONE:
            raise _damaged("a decay that grows")
        frequency = _shared(_weights(n_tokens, zero, ratio, bend), bits)
    elif form in (TABLE, PACKED_TABLE):
        frequency = _read_table(reader, form, n_tokens)
        if frequency.max() > 1 << bits or int(frequency.sum()) != 1 << bits:
            raise _damaged("frequencies of another sum")
    else:
        raise _damaged("frequencies of an unknown form")
    return Model(middle, split, bits, frequency, b"")


# --- tokens --------------------------------------------------------------------------------------


def _numbers(values: Ints, middle: int) -> Ints:
    distance = values - middle
    return np.where(distance < 0, -2 * distance - 1, 2 * distance)


def _tokens(z: Ints, split: int) -> Ints:
    tokens = z.copy()
    far = z >= 1 << split
    # frexp is exact: z < 2^34
    high = np.frexp(z[far].astype(np.float64))[1].astype(np.int64) - 1
    top = (z[far] >> high - TOP_BITS) - (1 << TOP_BITS)
    tokens[far] = (1 << split) + (high - split << TOP_BITS) + top
    return tokens


def _n_further(tokens: Ints, split: int) -> Ints:
    far = tokens - (1 << split)
    return np.where(far >= 0, (far >> TOP_BITS) + split - TOP_BITS, 0)


def _least(tokens: Ints, split: int) -> Ints:
    """Return the smallest z of each token."""
    far = tokens - (1 << split)
    top = (far & (1 << TOP_BITS) - 1) + (1 << TOP_BITS)
    return np.where(far >= 0, top << np.maximum(_n_further(tokens, split), 0), tokens)


# --- frequencies ---------------------------------------------------------------------------------


def _n_bits(counts: Ints, frequency: Ints, bits: int) -> float:
    """Return what tokens that come so often take."""
    used = counts > 0
    return float(counts[used] @ (bits - np.log2(frequency[used])))


def _shared(weights: Ints, bits: int) -> Ints:
    """Return frequencies near weights (n,) ≥ 1 that sum to 2^bits, each at least 1; n < 2^bits.

    Whole numbers throughout: a decoder gets the same.
    """
    total, spare = int(weights.sum()), (1 << bits) - len(weights)
    scale = max(total.bit_length() - 40, 0)
    scaled, total = weights >> scale, int((weights >> scale).sum())
    if total == 0:
        scaled, total = np.ones_like(weights), len(weights)
    shares = scaled * spare
    frequency = 1 + shares // total
    left = (1 << bits) - int(frequency.sum())
    # To those that were rounded down most; the first where several were as much
    order = np.argsort(-(shares % total), kind="stable")
    frequency[order[:left]] += 1
    return frequency


def _tabled(counts: Ints, bits: int) -> tuple[bytes, Ints]:
    used = counts > 0
    frequency = np.zeros(len(counts), np.int64)
    frequency[used] = _shared(counts[used], bits)
    plain = b"".join(varint(int(each)) for each in frequency)
    packed = zlib.compress(plain, 9)
    if len(packed) + 2 < len(plain):
        return bytes([PACKED_TABLE]) + varint(len(packed)) + packed, frequency
    return bytes([TABLE]) + plain, frequency


def _read_table(reader: ByteReader, form: int, n_tokens: int) -> Ints:
    if form == PACKED_TABLE:
        unpacker = zlib.decompressobj()
        try:
            plain = unpacker.decompress(reader.take(reader.varint()), 3 * n_tokens + 1)
        except zlib.error as error:
            raise _damaged("a table that cannot be unpacked") from error
        if not unpacker.eof or unpacker.unused_data:
            raise _damaged("a table that does not end")
        reader = ByteReader(plain)
    frequency = np.array([reader.varint() for _ in range(n_tokens)], np.int64)
    if form == PACKED_TABLE:
        reader.finish()
    return frequency


def _decaying(counts: Ints, bits: int) -> tuple[bytes, Ints]:
    """Return the two-sided decay nearest to counts.

    Searched in floats, which choose parameters only; frequencies are made of whole numbers.
    """
    distance = (np.arange(len(counts)) + 1) // 2
    n = float(counts.sum())
    spread = max(math.sqrt(float(counts @ distance.astype(np.float64) ** 2) / n), 0.3)
    best = math.inf, 0.0, 0.0
    rest = counts.copy()
    rest[0] = 0  # has a weight of its own
    for roundness in ROUNDNESS:
        for width in WIDTHS:
            sigma = spread * width
            slope = (1 - roundness) * math.sqrt(2) / sigma
            curve = roundness / (2 * sigma * sigma)
            log_weight = -slope * distance - curve * distance.astype(np.float64) ** 2
            log_sum = math.log(float(np.exp(log_weight[1:]).sum()) + 1e-300)
            cost = -float(rest @ log_weight) + float(rest.sum()) * log_sum
            if cost < best[0]:
                best = cost, slope, curve
    _, slope, curve = best
    ratio, bend = round(ONE * math.exp(-slope - curve)), round(ONE * math.exp(-2 * curve))
    sides = _weights(len(counts), 0, ratio, bend)
    others = max(n - float(counts[0]), 1.0)
    zero = round(float(sides[1:].sum()) * float(counts[0]) / others / (PEAK >> 8))
    zero = min(zero, 1 << 20)
    form = bytes([DECAY]) + varint(zero) + varint(ratio) + varint(bend)
    return form, _shared(_weights(len(counts), zero, ratio, bend), bits)


def _weights(n_tokens: int, zero: int, ratio: int, bend: int) -> Ints:
    """Return weights of tokens: `zero` / 256 of the peak, then falling on both sides.

    Each is the one before times a ratio that itself falls by `bend`: w_j ~ r^j q^(j (j - 1) / 2).
    """
    weights = np.zeros(n_tokens, np.int64)
    weight = PEAK
    for token in range(1, n_tokens, 2):
        weights[token : token + 2] = weight
        weight = weight * ratio // ONE
        ratio = ratio * bend // ONE
        if weight == 0:
            break
    weights[0] = zero * (PEAK >> 8)
    return weights


def _fold(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _damaged(got: str) -> DataError:
    return DataError(
        f"entropy.decode: expected a stream that encode made, got {got}. Read or save it again."
    )

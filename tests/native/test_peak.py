"""The peak: as many operations as it says, at a clock that a processor can have."""

import numpy as np
import pytest

from lamina import _native
from lamina.core.engine import peak_flops

pytestmark = pytest.mark.alone  # looks at the clock

LANES = {"scalar": 4, "neon": 4, "avx2": 8, "avx512": 16}  # of float32


@pytest.fixture(params=_native.isas())
def isa(request):
    before = _native.isa()
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


def best(precision, n_threads=1):
    return max(peak_flops(precision, n_threads, 0.01) for _ in range(5))


def test_the_peak_is_what_the_registers_can_do(isa):
    # One to three registers of multiply-adds a cycle, at 0.5 to 6.5 GHz; half as many numbers fit
    # a register in float64. A shared machine may take the processor away in any one measurement.
    a_cycle = 2 * LANES[isa]
    singles, doubles = [], []
    for _ in range(60):
        singles.append(peak_flops("float32", 1, 0.002))
        doubles.append(peak_flops("float64", 1, 0.002))
        single, double = max(singles), max(doubles)
        if 0.5e9 * a_cycle < single < 3 * 6.5e9 * a_cycle and 1.5 < single / double < 2.6:
            return
    pytest.fail(f"{single / 1e9:.1f} and {double / 1e9:.1f} GFLOP/s on {isa}")


def test_no_product_of_matrices_beats_the_peak():
    a = np.random.default_rng(0).normal(size=(512, 512)).astype("float32")
    from timeit import repeat

    from threadpoolctl import threadpool_limits

    seconds, peak = 1.0, 0.0
    with threadpool_limits(1):
        for _ in range(20):  # in turn, so that a busy machine takes from both
            seconds = min(seconds, *repeat(lambda: a @ a, number=1, repeat=3))
            peak = max(peak, best("float32"))
    assert 2 * 512**3 / seconds < 1.1 * peak


@pytest.mark.parametrize("unit", _native.half_isas())
def test_the_bfloat16_peak_is_above_float32s(unit):
    # AVX-512-BF16 multiplies two numbers where float32 multiplies one, AMX sixteen.
    most = {"avx512_bf16": 2.6, "amx": 40.0}[unit]
    before = _native.half_isa()
    _native.set_half_isa(unit)
    try:
        halves, singles = [], []
        for _ in range(60):  # in turn, so that a busy machine takes from both
            halves.append(peak_flops("bfloat16", 1, 0.002))
            singles.append(peak_flops("float32", 1, 0.002))
            if 1.5 < max(halves) / max(singles) < most:
                return
        pytest.fail(f"{max(halves) / 1e9:.1f} and {max(singles) / 1e9:.1f} GFLOP/s on {unit}")
    finally:
        _native.set_half_isa(before)


def test_a_wrong_precision_is_refused():
    with pytest.raises(ValueError, match="unknown precision 'int8'"):
        peak_flops("int8")

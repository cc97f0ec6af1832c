"""AudioField: sounds rendered, measured, stored, read, written, refused."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

import lamina
from lamina.core.errors import DataError, LaminaError, ModelFileError, ShapeError, SpecError
from lamina.fields import AudioField, read_audio, write_audio

Array = np.ndarray[Any, Any]
RATE = 8000


def chord(n: int = 8000, dtype: str = "float32", channels: int = 0) -> Array:
    """Three tones that fade, one a channel where there are channels."""
    t = np.arange(n) / RATE
    tones = np.stack([np.sin(2 * np.pi * f * t) * np.exp(-t) for f in (220.0, 277.2, 329.6)])
    sound = tones[:channels].T * 0.9 if channels else tones.sum(axis=0) * 0.3
    return (sound * 32767).astype(dtype) if dtype == "int16" else sound.astype(dtype)


@pytest.fixture(scope="module")
def fitted() -> tuple[AudioField, Array]:
    sound = chord()
    return AudioField(rng=0).fit(sound, rate=RATE, max_steps=2500), sound


@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
@pytest.mark.parametrize("channels", [0, 1, 2])
def test_a_rendering_has_the_shape_and_type_of_the_signal(dtype: str, channels: int) -> None:
    sound = chord(3000, dtype, channels)
    field = AudioField(rng=0).fit(sound, rate=RATE, max_steps=900)
    shown = field.render()
    assert shown.dtype == sound.dtype
    assert shown.shape == sound.shape
    assert field.snr(sound) > 12
    assert field.n_params <= sound.size / 2


def test_snr_and_psnr_are_those_of_the_rendering(fitted: tuple[AudioField, Array]) -> None:
    field, sound = fitted
    mse = np.mean((field.render().astype(float) - sound) ** 2)
    assert field.psnr(sound) == pytest.approx(-10 * np.log10(mse), abs=1e-6)
    power = np.mean(sound.astype(float) ** 2)
    assert field.snr(sound) == pytest.approx(10 * np.log10(power / mse), abs=1e-6)
    assert field.report.psnr == field.psnr(sound)
    assert field.snr(sound) > 25
    louder = AudioField(rng=0).fit(chord(dtype="int16"), rate=RATE, max_steps=300)
    mse = np.mean((louder.render().astype(float) - chord(dtype="int16")) ** 2)
    assert louder.psnr(chord(dtype="int16")) == pytest.approx(
        20 * np.log10(32768) - 10 * np.log10(mse)
    )


def test_times_are_the_middles_of_samples(fitted: tuple[AudioField, Array]) -> None:
    field, sound = fitted
    for i in (0, 17, 4000, 7999):
        t = (2 * i + 1) / len(sound) - 1
        assert field([[t]])[0, 0] == field.render()[i]
        assert abs(field([[t]])[0, 0] - sound[i]) < 0.1
    assert field.gradient([[0.1]]).shape == (1, 1, 1)


def test_other_rates_and_windows_play_the_same_function(
    fitted: tuple[AudioField, Array],
) -> None:
    field, sound = fitted
    double = field.render(rate=2 * RATE)
    assert len(double) == 2 * len(sound)
    wanted = resample_poly(sound.astype(float), 2, 1)
    # Sample i of the fitted rate lies between samples 2 i and 2 i + 1 of twice the rate
    between = 0.5 * (double[0:-2:2].astype(float) + double[1:-1:2])
    assert np.sqrt(np.mean((between - sound[: len(between)])[50:-50] ** 2)) < 0.02
    assert (
        np.sqrt(np.mean((double[:-1] - 0.5 * (wanted[:-1] + np.roll(wanted, 1)[:-1])) ** 2)) < 0.1
    )
    part = field.render(window=(0.25, 0.5))
    assert len(part) == RATE // 4
    assert np.abs(part - field.render()[RATE // 4 : RATE // 2]).max() < 1e-3


def test_files_copies_and_pickles_hold_the_same_field(
    fitted: tuple[AudioField, Array], tmp_path: Path
) -> None:
    field, sound = fitted
    field.save(tmp_path / "f.lamina")
    loaded = lamina.load(tmp_path / "f.lamina")
    assert type(loaded) is AudioField
    for other in (loaded, pickle.loads(pickle.dumps(field)), copy.deepcopy(field)):
        assert np.array_equal(other.render(), field.render())
        assert other.form == field.form
        assert other.snr(sound) == field.snr(sound)


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_samples", 0), ("channels", 2), ("rate", -1), ("dtype", "O"), ("is_flat", 1), ("x", 1)],
)
def test_a_forged_file_is_refused(
    fitted: tuple[AudioField, Array], tmp_path: Path, name: str, value: object
) -> None:
    from lamina.core import modelfile

    fitted[0].save(tmp_path / "f.lamina")
    role, spec, arrays = modelfile.read(tmp_path / "f.lamina")
    spec["signal"][name] = value
    modelfile.write(tmp_path / "forged.lamina", role, spec, arrays)
    with pytest.raises(ModelFileError, match="expected"):
        lamina.load(tmp_path / "forged.lamina")


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("channels", [0, 2])
def test_files_of_16_bits_come_back_as_they_were(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    sound = chord(500, "int16", channels)
    write_audio(tmp_path / f"a{suffix}", sound, RATE)
    found, rate = read_audio(tmp_path / f"a{suffix}")
    assert rate == RATE
    assert found.dtype == np.int16
    assert np.array_equal(found, sound)
    # By libsndfile alone
    again, _ = soundfile.read(tmp_path / f"a{suffix}", dtype="int16")
    assert np.array_equal(again, sound)
    by_path = AudioField(rng=0).fit(tmp_path / f"a{suffix}", max_steps=5)
    by_array = AudioField(rng=0).fit(sound, rate=RATE, max_steps=5)
    assert np.array_equal(by_path.render(), by_array.render())


def test_floats_are_written_clipped(tmp_path: Path) -> None:
    sound = chord(500) * 8
    for suffix, tolerance in ((".wav", 1e-7), (".flac", 1e-6)):
        write_audio(tmp_path / f"a{suffix}", sound, RATE)
        found, _ = read_audio(tmp_path / f"a{suffix}")
        assert np.abs(found - np.clip(sound, -1, 1)).max() <= tolerance


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda f: f.fit(chord()), DataError, "rate"),
        (lambda f: f.fit(chord(), rate=0), SpecError, "rate"),
        (lambda f: f.fit(np.zeros((2, 40), np.float32), rate=8), ShapeError, "Transpose"),
        (lambda f: f.fit(np.zeros(0, np.float32), rate=8), ShapeError, "samples"),
        (lambda f: f.fit(np.zeros(9, np.uint8), rate=8), DataError, "uint8"),
        (lambda f: f.fit(np.full(9, np.inf), rate=8), DataError, "finite"),
        (lambda f: f.fit(np.zeros(2**23 + 1, np.int16), rate=8), DataError, "three minutes"),
        (lambda f: f.fit("none.wav"), DataError, "none.wav"),
        (lambda f: f.fit(b"RIFFxxxxWAVE"), DataError, "expected a sound"),
        (lambda f: f.render(), SpecError, "Call fit first"),
    ],
)
def test_what_is_refused_is_said_in_a_sentence(
    call: Any, error: type[LaminaError], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        call(AudioField(rng=0))
    assert "\n" not in str(caught.value)


def test_renderings_and_comparisons_are_checked(fitted: tuple[AudioField, Array]) -> None:
    field, sound = fitted
    for call, error in (
        (lambda: field.render(rate=0), SpecError),
        (lambda: field.render(window=(0.5, 0.5)), DataError),
        (lambda: field.render(window=(0, 99)), SpecError),
        (lambda: field.snr(sound[:-1]), ShapeError),
        (lambda: field.psnr(sound.astype(np.float64)), ShapeError),
    ):
        with pytest.raises(error, match="expected"):
            call()


def test_a_sound_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, chord(), RATE, format="FLAC")
    (tmp_path / "a.flac").write_bytes(buffer.getvalue()[:2000])
    with pytest.raises(DataError, match="expected"):
        read_audio(tmp_path / "a.flac")


def test_silence_is_a_sound() -> None:
    silence = np.zeros(300, np.float32)
    field = AudioField(rng=0).fit(silence, rate=RATE, max_steps=200)
    assert np.abs(field.render()).max() < 1e-2
    assert field.snr(silence) == -np.inf

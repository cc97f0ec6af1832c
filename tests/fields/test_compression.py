"""Compressed fields: the rate asked for, the same bits everywhere, and little lost."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lamina
from lamina.core import modelfile
from lamina.core.errors import DataError, ModelFileError, SpecError
from lamina.fields import AudioField, ImageField, ShapeField, VolumeField, compress
from lamina.fields.entropy import encode
from lamina.fields.quantised import Quantised, as_step, tensors

FIXTURES = Path(__file__).parents[1] / "fixtures"

RENDER = """
import sys, numpy as np, lamina
fields = [lamina.load(f"{sys.argv[1]}/{kind}_field_compressed_v1.lamina")
          for kind in ("image", "audio")]
np.savez(sys.argv[2], picture=fields[0].render(192, 256), isa=str(lamina.info()["isa"]),
         image=fields[0].network.theta, audio=fields[1].network.theta)
"""


def photograph(n=96):
    """Edges, texture and a gradient."""
    rng = np.random.default_rng(5)
    i, j = np.mgrid[:n, :n] / n
    grey = 90 + 70 * (i + j > 0.9) + 40 * np.sin(25 * i * j) + 25 * ((9 * i % 1) > 0.6)
    return np.clip(grey + rng.normal(0, 2, (n, n)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def picture():
    return photograph()


@pytest.fixture(scope="module")
def field(picture):
    return ImageField(rng=0, n_threads=1).fit(picture, max_steps=1500, n_params=5000)


@pytest.mark.parametrize("bits", [2, 4, 7, 12])
def test_the_rate_is_what_was_asked(field, tmp_path, bits):
    small = compress(field, bits)
    assert 0.95 * bits <= small.bits_per_weight <= bits
    small.save(tmp_path / "small.lamina")
    stream = modelfile.read(tmp_path / "small.lamina")[2]["stream"]
    assert 8 * len(stream) / field.n_params == pytest.approx(small.bits_per_weight)


def test_more_bits_are_better_and_many_lose_nothing(field, picture):
    scores = [compress(field, bits).psnr(picture) for bits in (2, 4, 6, 12)]
    assert scores == sorted(scores)
    assert field.report.psnr - scores[2] < 1
    assert field.report.psnr - scores[3] < 0.01
    assert field.bits_per_weight == 32


def test_the_file_has_the_size_that_was_asked(field, tmp_path):
    for n_bytes in (2800, 4200):
        small = compress(field, n_bytes=n_bytes)
        small.save(tmp_path / "small.lamina")
        size = (tmp_path / "small.lamina").stat().st_size
        assert 0.97 * n_bytes <= size <= n_bytes
        assert size == small.n_file_bytes


def test_tuning_to_the_signal_gains(field, picture):
    rounded = compress(field, 2.5)
    tuned = compress(field, 2.5, signal=picture, max_steps=150)
    assert tuned.psnr(picture) > rounded.psnr(picture) + 0.5
    assert tuned.report.psnr == pytest.approx(tuned.psnr(picture))
    assert 2.3 < tuned.bits_per_weight <= 2.5


def test_steps_by_sensitivity_beat_one_step_for_all(field, picture):
    """The plain alternative: the same step for every tensor, at no fewer bits."""
    small = compress(field, 4)
    parts = tensors(field.network.spec)
    for exponent in np.arange(-12.0, 8.0, 0.1):
        plain = Quantised.of(field.network.theta, parts, (as_step(2.0**exponent),) * len(parts))
        if plain.n_bytes(parts) <= small.n_coded_bytes * 1.05:
            break
    other = lamina.Network.from_spec(field.network.spec, plain.theta(parts))
    assert small.psnr(picture) > field._score(other, field._signal(picture, "")) + 0.2


def test_saved_again_it_is_the_same_file(field, tmp_path):
    small = compress(field, 4)
    small.save(tmp_path / "a.lamina")
    back = lamina.load(tmp_path / "a.lamina")
    assert np.array_equal(back.network.theta, small.network.theta)
    again = compress(back, 4)
    assert np.array_equal(again.network.theta, small.network.theta)
    again.save(tmp_path / "b.lamina")
    assert (tmp_path / "a.lamina").read_bytes() == (tmp_path / "b.lamina").read_bytes()


def test_weights_set_by_hand_are_saved_as_they_are(field, tmp_path):
    small = compress(field, 4)
    theta = small.network.theta.copy()
    theta[0] += 1e-3
    small.network.theta = theta
    small.save(tmp_path / "a.lamina")
    assert np.array_equal(lamina.load(tmp_path / "a.lamina").network.theta, theta)
    assert field.coding is None  # the one that was compressed is as it was


def test_every_kind_and_preset_can_be_compressed(tmp_path):
    t = np.arange(3000) / 8000
    sound = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    i, j, k = np.mgrid[:12, :13, :14] / 12
    cube = ([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)],
            [[0, 1, 3], [0, 3, 2], [4, 7, 5], [4, 6, 7], [0, 5, 1], [0, 4, 5],
             [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])  # fmt: skip
    cases = [
        (AudioField("hash", rng=0), sound, {"rate": 8000}),
        (ImageField("siren", rng=0), photograph(32), {}),
        (ImageField("fourier", rng=0), photograph(32), {}),
        (VolumeField(rng=0), np.sin(5 * i * j + k).astype(np.float32), {}),
        (ShapeField(rng=0), cube, {}),
    ]
    for fitted, signal, options in cases:
        fitted.fit(signal, max_steps=60, n_params=2000, **options)
        small = compress(fitted, 6, signal=signal, max_steps=5, **options)
        assert type(small) is type(fitted)
        assert 5.4 < small.bits_per_weight <= 6
        small.save(tmp_path / "small.lamina")
        back = lamina.load(tmp_path / "small.lamina")
        assert np.array_equal(back.network.theta, small.network.theta)
        places = np.random.default_rng(0).uniform(-1, 1, (50, fitted.network.spec.d_in))
        spread = np.std(fitted(places))
        assert np.sqrt(np.mean((small(places) - fitted(places)) ** 2)) < 0.5 * spread


def test_frozen_weights_are_the_same_bits_on_every_instruction_set(tmp_path):
    known = json.loads((FIXTURES / "compressed_v1.json").read_text(encoding="utf-8"))
    pictures = []
    for isa in lamina.info()["isas"]:
        out = tmp_path / f"{isa}.npz"
        environment = {**os.environ, "LAMINA_ISA": isa}
        subprocess.run(
            [sys.executable, "-c", RENDER, str(FIXTURES), str(out)], env=environment, check=True
        )
        found = np.load(out)
        assert str(found["isa"]) == isa
        for kind in ("image", "audio"):
            digest = hashlib.sha256(found[kind].astype("<f4").tobytes()).hexdigest()
            assert digest == known["sha256"][kind]
        pictures.append(found["picture"].astype(int))
    for other in pictures[1:]:
        difference = np.abs(other - pictures[0])
        assert difference.max() <= 1
        assert np.mean(difference > 0) <= 1e-3


def test_frozen_compressed_files_render_for_ever():
    known = json.loads((FIXTURES / "compressed_v1.json").read_text(encoding="utf-8"))
    image = lamina.load(FIXTURES / "image_field_compressed_v1.lamina")
    difference = np.abs(image.render().astype(int) - np.array(known["picture"]))
    assert difference.max() <= 1
    assert np.mean(difference > 0) <= 1e-3
    assert image.report.psnr == known["psnr"]


def forged(tmp_path, change):
    role, spec, arrays = modelfile.read(FIXTURES / "image_field_compressed_v1.lamina")
    change(spec, arrays)
    modelfile.write(tmp_path / "forged.lamina", role, spec, arrays)
    return tmp_path / "forged.lamina"


CHANGES = {
    "another codec": lambda s, a: s["coding"].update(codec="latent"),
    "a later version": lambda s, a: s["coding"].update(version=2),
    "a tensor too few": lambda s, a: s["coding"]["tensors"].pop(),
    "an unknown coder": lambda s, a: s["coding"]["tensors"][0].__setitem__(0, "zip"),
    "a step of no size": lambda s, a: s["coding"]["tensors"][0].__setitem__(1, 0.0),
    "a step of many bits": lambda s, a: s["coding"]["tensors"][0].__setitem__(1, 0.1),
    "a text as step": lambda s, a: s["coding"]["tensors"][0].__setitem__(1, "0.5"),
    "more bytes than there are": lambda s, a: s["coding"]["tensors"][0].__setitem__(2, 10**9),
    "a cut stream": lambda s, a: a.update(stream=a["stream"][:-5]),
    "floats as stream": lambda s, a: a.update(stream=a["stream"].astype(np.float32)),
    "theta as well": lambda s, a: a.update(theta=np.zeros(3, np.float32)),
    "no stream": lambda s, a: a.clear(),
    "coding that is a list": lambda s, a: s.update(coding=[]),
    "a table far larger than the stream": lambda s, a: s["network"]["encoding"].update(
        log2_table_size=28, finest_resolution=1 << 20
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_forged_files_are_one_sentence(tmp_path, name):
    path = forged(tmp_path, CHANGES[name])
    with pytest.raises(ModelFileError, match="expected"):
        lamina.load(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_streams_are_one_sentence_or_weights(tmp_path_factory, data):
    """With a checksum of the file that fits, so that the coder itself must notice."""

    def change(spec, arrays):
        stream = arrays["stream"].copy()
        place = data.draw(st.integers(0, len(stream) - 1))
        stream[place] ^= data.draw(st.integers(1, 255))
        arrays["stream"] = stream

    with pytest.raises(ModelFileError, match="expected a stream"):
        lamina.load(forged(tmp_path_factory.mktemp("forged"), change))


def test_codes_that_float32_cannot_hold_are_refused():
    spec = lamina.Network(1, (), 1, rng=0).spec
    streams = [encode([1 << 25]), encode([1])]
    told = {"codec": "uniform", "version": 1,
            "tensors": [["rans", 1.0, len(stream)] for stream in streams]}  # fmt: skip
    arrays = {"stream": np.frombuffer(b"".join(streams), np.uint8)}
    with pytest.raises(DataError, match="codes of at most"):
        Quantised.from_parts(told, arrays, tensors(spec), "here")


def test_what_cannot_be_asked_is_one_sentence(field):
    with pytest.raises(SpecError, match="bits_per_weight to be a number in"):
        compress(field, 0)
    with pytest.raises(SpecError, match="expected bits_per_weight or n_bytes, got both"):
        compress(field, 4, n_bytes=5000)
    with pytest.raises(SpecError, match=r"expected at least .* bytes for the weights"):
        compress(field, n_bytes=100)
    with pytest.raises(SpecError, match="expected a field, got int"):
        compress(3)
    with pytest.raises(SpecError, match="expected a field that is fitted"):
        compress(ImageField(), 4)
    bounded = VolumeField(rng=0).fit(np.zeros((4, 4, 4), np.float32), max_error=0.1, max_steps=5)
    with pytest.raises(SpecError, match="without an error bound"):
        compress(bounded, 4)


@given(st.floats(1e-17, 1e17))
def test_steps_are_near_and_of_few_bits(size):
    step = as_step(size)
    assert abs(step / size - 1) <= 2**-7
    assert float(np.float32(step)) == step == as_step(step)

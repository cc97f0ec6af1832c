"""Pictures from files: types, orientation, 16 bits in colour, damage."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lamina.core.errors import DataError, LaminaError
from lamina.fields import ImageField, png16, read_image, write_image

Array = np.ndarray[Any, Any]


def picture(*shape: int, dtype: str = "uint8") -> Array:
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def png(pixels: Array, filters: list[int], kind: int, interlaced: bool = False) -> bytes:
    """A PNG of 16 bits by the specification, one value at a time: nothing shared with ours."""
    height, width, channels = pixels.shape
    size = 2 * channels

    def filtered(part: Array) -> bytes:
        rows, before, out = part.astype(">u2"), bytes(part.shape[1] * size), b""
        for i in range(part.shape[0]):
            now = rows[i].tobytes()
            choice = filters[i % len(filters)]
            line = bytearray()
            for k, value in enumerate(now):
                a = now[k - size] if k >= size else 0
                b = before[k]
                c = before[k - size] if k >= size else 0
                p = a + b - c
                near = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
                line.append((value - [0, a, b, (a + b) // 2, near][choice]) % 256)
            out += bytes([choice]) + bytes(line)
            before = now
        return out

    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
        passes += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [pixels[y::dy, x::dx] for x, y, dx, dy in passes]
    data = zlib.compress(b"".join(filtered(part) for part in parts if part.size))
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, int(interlaced))
    chunks = [(b"IHDR", head), (b"tEXt", b"a\0b"), (b"IDAT", data[:7]), (b"IDAT", data[7:])]
    out = b"\x89PNG\r\n\x1a\n"
    for name, body in [*chunks, (b"IEND", b"")]:
        out += struct.pack(">I", len(body)) + name + body
        out += struct.pack(">I", zlib.crc32(name + body))
    return out


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([(2, 3), (4, 2), (6, 4)]),
    st.lists(st.integers(0, 4), min_size=1, max_size=5),
    st.booleans(),
)
def test_pngs_of_16_bits_in_colour_are_read_whatever_their_filters(
    height: int, width: int, kind: tuple[int, int], filters: list[int], interlaced: bool
) -> None:
    pixels = picture(height, width, kind[1], dtype="uint16")
    data = png(pixels, filters, kind[0], interlaced)
    assert np.array_equal(read_image(data), pixels)
    # Pillow reads such a file too, as its upper 8 bits: the same picture to it
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[..., :1]
    assert np.abs(shown.astype(int) - (pixels[..., :1] >> 8)).max() <= 1


def test_ties_of_paeths_predictor_are_broken_in_order() -> None:
    pixels = picture(40, 30, 3, dtype="uint16") % 7
    assert np.array_equal(read_image(png(pixels, [4], 2)), pixels)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_written_pngs_of_16_bits_are_whole(tmp_path: Path, channels: int) -> None:
    pixels = picture(13, 17, channels, dtype="uint16")
    write_image(tmp_path / "a.png", pixels)
    assert np.array_equal(read_image(tmp_path / "a.png"), pixels)
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.size == (17, 13)
        first = np.asarray(image.convert("RGBA"))[..., 0].astype(int)
    assert np.abs(first - (pixels[..., 0] >> 8)).max() <= 1


@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [
        ("L", (5, 7), "uint8"),
        ("LA", (5, 7, 2), "uint8"),
        ("RGB", (5, 7, 3), "uint8"),
        ("RGBA", (5, 7, 4), "uint8"),
        ("I;16", (5, 7), "uint16"),
    ],
)
def test_lossless_files_come_back_as_they_were(
    tmp_path: Path, mode: str, shape: tuple[int, ...], dtype: str
) -> None:
    pixels = picture(*shape, dtype=dtype)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    found = read_image(path)
    assert found.dtype == dtype
    assert np.array_equal(found, pixels)
    write_image(tmp_path / "b.png", found)
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == mode
        assert np.array_equal(np.asarray(image), pixels)


def test_other_modes_become_grey_or_colour(tmp_path: Path) -> None:
    base = Image.fromarray(picture(6, 8, 3))
    for mode, shape, suffix in (
        ("1", (6, 8), ".png"),
        ("P", (6, 8, 3), ".png"),
        ("CMYK", (6, 8, 3), ".tif"),
        ("F", (6, 8), ".tif"),
    ):
        path = tmp_path / f"{mode}{suffix}"
        base.convert(mode).save(path)
        found = read_image(path)
        assert found.shape == shape
        assert found.dtype == ("float32" if mode == "F" else "uint8")


def test_exif_orientation_turns_the_picture(tmp_path: Path) -> None:
    pixels = picture(4, 6, 3)
    turns = {3: np.rot90(pixels, 2), 6: np.rot90(pixels, -1), 8: np.rot90(pixels)}
    for orientation, upright in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
        assert np.array_equal(read_image(tmp_path / "a.png"), upright)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_every_format_is_written_and_read(tmp_path: Path, suffix: str) -> None:
    i, j = np.mgrid[:32, :40]
    pixels = np.stack([4 * i, 4 * j, 2 * (i + j)], axis=2).astype(np.uint8)
    write_image(tmp_path / f"a{suffix}", pixels)
    found = read_image(tmp_path / f"a{suffix}")
    assert found.shape == pixels.shape
    assert np.abs(found.astype(int) - pixels).mean() < 2
    write_image(tmp_path / f"f{suffix}", pixels / 255.0)
    again = read_image(tmp_path / f"f{suffix}")
    assert np.abs(again.astype(int) - pixels).mean() < 2


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    for name, pixels, text in (
        ("a.jpg", picture(4, 4, 4), "transparency"),
        ("a.jpg", picture(4, 4, dtype="uint16"), "16 bits"),
        ("a.tif", picture(4, 4, 3, dtype="uint16"), "16 bits"),
        ("a.xyz", picture(4, 4), "ends in"),
        ("no/a.png", picture(4, 4), "path"),
    ):
        with pytest.raises(LaminaError, match=text):
            write_image(tmp_path / name, pixels)
    assert list(tmp_path.iterdir()) == []


def damaged() -> dict[str, bytes]:
    colour, deep = io.BytesIO(), png(picture(20, 20, 3, dtype="uint16"), [4], 2)
    Image.fromarray(picture(40, 40, 3)).save(colour, "PNG")
    jpeg = io.BytesIO()
    Image.fromarray(picture(40, 40, 3)).save(jpeg, "JPEG")
    at = deep.index(b"IDAT", 60) + 40
    huge = bytearray(deep)
    huge[16:24] = b"\x7f\xff\xff\xff" * 2
    wrong = png(picture(5, 5, 3, dtype="uint16"), [0], 2)
    return {
        "empty": b"",
        "text": b"this is no picture at all, but a text",
        "cut png": colour.getvalue()[:-400],
        "cut jpeg": jpeg.getvalue()[:300],
        "cut deep png": deep[:-300],
        "cut in a deep png's head": deep[:40],
        "flipped byte": deep[:at] + bytes([deep[at] ^ 255]) + deep[at + 1 :],
        "huge": bytes(huge),
        "no end": wrong[:-12],
    }


@pytest.mark.parametrize("name", list(damaged()))
def test_damaged_files_are_one_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(damaged()[name])
    if name == "no end":  # all pixels are there
        assert read_image(path).shape == (5, 5, 3)
        return
    for call in (lambda: read_image(path), lambda: ImageField().fit(path)):
        with pytest.raises(DataError, match="expected") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_folder_and_a_missing_file_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="expected a whole picture"):
        read_image(tmp_path)


def test_a_path_is_fitted_as_its_pixels(tmp_path: Path) -> None:
    pixels = picture(12, 10, 3)
    write_image(tmp_path / "a.png", pixels)
    by_path = ImageField(rng=1).fit(tmp_path / "a.png", max_steps=20)
    by_array = ImageField(rng=1).fit(pixels, max_steps=20)
    assert np.array_equal(by_path.render(), by_array.render())
    assert by_path.psnr(str(tmp_path / "a.png")) == by_array.psnr(pixels)


def test_deep_pngs_are_told_from_others() -> None:
    assert png16.is_deep(png(picture(2, 2, 3, dtype="uint16"), [0], 2)[:33])
    assert not png16.is_deep(b"\x89PNG\r\n\x1a\n")
    assert not png16.is_deep(b"")

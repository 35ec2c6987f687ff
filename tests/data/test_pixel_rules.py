"""Pixels by rule: EXIF orientations, 16 bits, JPEGs that break off, and sizes; and what headers say without decoding."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from winnow.data.grey_levels import levels_left, to_8_bits
from winnow.data.image import ImageSizeError, ImageTooLargeError, levels_of, read_image, read_upright
from winnow.data.picture_facts import UNREADABLE, PictureFacts, facts_of_file, facts_table
from winnow.data.pixel_rule import PixelRule
from winnow.errors import DataError

ORIENTATION = 0x0112
TURNED = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels.transpose(1, 0, 2), 2),
    8: np.rot90,
}
"""Orientation → what viewers show of stored pixels (H, W, 3)."""


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 255, (16, 24, 3), np.uint8)


def save(path, pixels, orientation=None, **more):
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **more)
    return path


def read(path, size, **rule):
    return read_image(path, *size, PixelRule(**rule)).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_auto_turns_as_viewers_do_where_the_size_can_not_tell_and_follows_the_size_elsewhere(
    tmp_path, pixels, orientation, name
):
    path = save(tmp_path / name, pixels, orientation)
    shown = TURNED[orientation](pixels)
    assert (read(path, shown.shape[1::-1], exif="auto") == shown).all()
    assert (read_upright(path) == shown).all()
    assert (read_upright(path, turn=False, rule=PixelRule("auto")) == pixels).all()
    if orientation > 4:
        assert (read(path, (24, 16), exif="auto") == pixels).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_always_never_and_by_size_each_keep_their_word(tmp_path, pixels, orientation, name):
    path = save(tmp_path / name, pixels, orientation)
    shown = TURNED[orientation](pixels)
    assert (read(path, shown.shape[1::-1], exif="always") == shown).all()
    assert (read(path, (24, 16), exif="never") == pixels).all()
    if name == "a.png":  # Pillow turns TIFF by itself, and did so in runs from before
        assert (read(path, (24, 16), exif="by_size") == pixels).all()
    else:
        assert (read(path, shown.shape[1::-1], exif="by_size") == shown).all()
    if orientation > 4:
        with pytest.raises(ImageSizeError):
            read(path, (24, 16), exif="always")
        with pytest.raises(ImageSizeError):
            read(path, (16, 24), exif="never")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("orientation", [None, 3, 6])
def test_headers_say_what_decoding_finds(tmp_path, pixels, name, orientation):
    path = save(tmp_path / name, pixels, orientation)
    assert facts_of_file(str(path)) == PictureFacts(24, 16, orientation or 1, 8, True)
    assert facts_of_file(str(path)).shown == ((16, 24) if orientation == 6 else (24, 16))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_seen_in_the_header(tmp_path, name):
    Image.fromarray(np.zeros((16, 24), np.uint16)).save(tmp_path / name)
    assert facts_of_file(str(tmp_path / name)).bits == 16


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"<html>", b"\x89PNG\r\n\x1a\n\0\0"])
def test_what_is_no_picture_is_unreadable(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    assert facts_of_file(str(tmp_path / "a.jpg")) == UNREADABLE


@pytest.mark.parametrize(
    "exif", [b"", b"II*\0", b"MM\0*\0\0\0\x08\0\x01\x01\x12", b"II*\0\xff\xff\xff\x7f", b"no TIFF at all"]
)
def test_a_damaged_exif_makes_no_picture_unreadable(tmp_path, pixels, exif):
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif)
    assert facts_of_file(str(tmp_path / "a.jpg")) == PictureFacts(24, 16)


def facts_of(paths, cache):
    return [PictureFacts(*row) for row in facts_table(paths, cache).tolist()]


def test_facts_are_kept_and_only_what_has_changed_is_looked_at_again(tmp_path, pixels, monkeypatch):
    paths = [str(save(tmp_path / f"{number}.png", pixels)) for number in range(3)]
    found = facts_of(paths, tmp_path / "cache")
    looked_at = []
    monkeypatch.setattr(
        "winnow.data.picture_facts.facts_of_file", lambda path: (looked_at.append(path), facts_of_file(path))[1]
    )
    assert facts_of(paths, tmp_path / "cache") == found
    assert looked_at == []
    save(tmp_path / "1.png", pixels[:, :9], 3)
    changed = facts_of(paths, tmp_path / "cache")
    assert changed == [found[0], PictureFacts(9, 16, 3), found[2]]
    assert looked_at == [paths[1]]


def test_a_damaged_cache_is_made_anew(tmp_path, pixels):
    paths = [str(save(tmp_path / "a.png", pixels))]
    found = facts_of(paths, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"PK\x03\x04 no archive")
    assert facts_of(paths, tmp_path / "cache") == found


SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:80, 0:100], 90), axis=2).astype(np.uint8)
NOISE = np.random.default_rng(1).integers(0, 255, (80, 100, 3), np.uint8)


@pytest.mark.parametrize("pixels", [SMOOTH, NOISE, NOISE[:, :, 0]], ids=["smooth", "noise", "grey"])
@pytest.mark.parametrize("lost", [1, 2, 20])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_its_end_is_read_and_differs_only_there(tmp_path, pixels, lost, progressive):
    whole, cut = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    Image.fromarray(pixels).save(whole, progressive=progressive)
    cut.write_bytes(whole.read_bytes()[:-lost])
    assert not facts_of_file(str(cut)).has_end
    with pytest.raises(DataError, match=r"cut\.jpg cannot be read"):
        read(cut, (100, 80))
    found = read(cut, (100, 80), mends_ends=True).astype(int)
    differs = (np.abs(found - read(whole, (100, 80)).astype(int)) > 0).any(axis=2)
    assert differs.mean() < (0.15 if progressive else 0.1)
    if not progressive:
        assert not differs[:60].any()


@pytest.mark.parametrize("part", [0.3, 0.5, 0.8])
def test_a_jpeg_that_lacks_more_is_refused_all_the_same(tmp_path, part):
    path = save(tmp_path / "a.jpg", NOISE)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(DataError, match=r"a\.jpg cannot be read"):
        read(path, (100, 80), mends_ends=True)


def test_a_turned_jpeg_without_its_end_is_turned_too(tmp_path):
    path = save(tmp_path / "a.jpg", SMOOTH, 6)
    whole = read(path, (80, 100), exif="auto").astype(int)
    path.write_bytes(path.read_bytes()[:-2])
    assert (read(path, (80, 100), exif="auto", mends_ends=True) == whole).all()


def test_a_jpeg_with_something_behind_its_end_is_whole(tmp_path):
    path = save(tmp_path / "a.jpg", SMOOTH)
    path.write_bytes(path.read_bytes() + b"a film of the moment before" * 100)
    assert facts_of_file(str(path)).has_end


TWELVE_BITS = np.linspace(0, 4095, 16 * 24).round().astype(np.uint16).reshape(16, 24)


@pytest.mark.parametrize(("depth", "expected"), [
    ("upper8", TWELVE_BITS >> 8),
    ((0, 4095), np.round(TWELVE_BITS * (255 / 4095))),
    ((1000, 2000), np.clip(np.round((TWELVE_BITS - 1000.0) * 0.255), 0, 255)),
])  # fmt: skip
def test_16_bits_become_8_by_rule(tmp_path, depth, expected):
    Image.fromarray(TWELVE_BITS).save(tmp_path / "a.png")
    found = read(tmp_path / "a.png", (24, 16), depth=depth)
    assert (found == expected[:, :, None]).all()
    assert (read_upright(tmp_path / "a.png", rule=PixelRule(depth=depth)) == found).all()


def save_deep_colours(path):
    """Write a PNG with 16 bits in each colour, which Pillow does not write, and return its values."""
    values = np.random.default_rng(0).integers(0, 65536, (16, 24, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 24, 16, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    return values


def test_colours_of_16_bits_have_their_upper_8_and_nothing_else(tmp_path):
    values = save_deep_colours(tmp_path / "a.png")
    assert facts_of_file(str(tmp_path / "a.png")).bits == 16
    assert (read(tmp_path / "a.png", (24, 16)) == values >> 8).all()
    assert levels_of(tmp_path / "a.png", PixelRule()) is None
    with pytest.raises(DataError, match=r"a\.png has colours of 16 bits.*data\.depth=upper8"):
        read(tmp_path / "a.png", (24, 16), depth="percentile")


def test_percentiles_take_the_range_of_each_picture_without_its_outliers():
    values = np.full((100, 100), 3000, np.uint16)
    values[:50] = 2000
    values[0, 0], values[99, 99] = 0, 65535
    found = to_8_bits(values, "percentile")
    assert (found[0, 1], found[99, 98], found[0, 0], found[99, 99]) == (0, 255, 0, 255)


def test_what_16_bits_lose_is_counted():
    assert (levels_left(TWELVE_BITS, "upper8").after, levels_left(TWELVE_BITS, (0, 4095)).after) == (16, 256)
    assert levels_left(TWELVE_BITS, "upper8").are_few
    assert not levels_left(TWELVE_BITS, (0, 4095)).are_few


def test_8_bits_have_nothing_to_lose(tmp_path, pixels):
    assert levels_of(save(tmp_path / "a.png", pixels), PixelRule()) is None


def test_the_largest_size_is_a_key_and_may_be_any(tmp_path):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "a.png")  # Pillow itself gives up at 179 megapixels
    with pytest.raises(ImageTooLargeError, match=r"raise data\.max_pixels=166666666"):
        read(tmp_path / "a.png", (20_000, 10_000))
    with pytest.raises(ImageTooLargeError, match="at most 0 MB"):
        read(save(tmp_path / "b.png", SMOOTH), (100, 80), max_pixels=7_999)
    assert read(tmp_path / "b.png", (100, 80), max_pixels=8_000).shape == (80, 100, 3)


def test_a_pointer_in_the_place_of_a_picture_is_named(tmp_path):
    (tmp_path / "a.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    with pytest.raises(DataError, match=r"a\.jpg is a Git LFS pointer.*git lfs pull"):
        read(tmp_path / "a.jpg", (1, 1))

"""Decoding: every stored form ends as the same RGB pixels, and damage has a name."""

import contextlib
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from winnow.data.image import ImageSizeError, ImageTooLargeError, image_size, read_grey, read_image
from winnow.data.pixel_rule import MAX_PIXELS
from winnow.errors import DataError

WIDTH, HEIGHT = 24, 16
LANDSCAPE_ROTATED_BY_90 = 6
ORIENTATION = 0x0112


@pytest.fixture
def pixels():
    """Return a smooth RGB ramp, so that JPEG changes it little."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 10, y * 15, 255 - x * 10], axis=2).astype(np.uint8)


def read(path):
    return read_image(path, WIDTH, HEIGHT).permute(1, 2, 0).numpy()


def test_the_result_is_uint8_chw_on_channels_last_memory(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tensor = read_image(tmp_path / "a.png", WIDTH, HEIGHT)
    assert tensor.shape == (3, HEIGHT, WIDTH)
    assert tensor.dtype == torch.uint8
    assert tensor.permute(1, 2, 0).is_contiguous()
    assert (tensor.permute(1, 2, 0).numpy() == pixels).all()


@pytest.mark.parametrize(
    ("mode", "name", "tolerance"),
    [
        ("RGB", "a.jpg", 12),
        ("RGBA", "a.png", 0),
        ("CMYK", "a.jpg", 12),
        ("CMYK", "a.tif", 1),
        ("YCbCr", "a.tif", 4),
        ("RGB", "a.bmp", 0),
        ("RGB", "a.webp", 30),
    ],
)
def test_colour_images_of_any_mode_come_out_as_rgb(tmp_path, pixels, mode, name, tolerance):
    Image.fromarray(pixels).convert(mode).save(tmp_path / name)
    assert np.abs(read(tmp_path / name).astype(int) - pixels).max() <= tolerance


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_images_are_repeated_over_the_channels(tmp_path, pixels, mode):
    grey = Image.fromarray(pixels).convert("L")
    grey.convert(mode).save(tmp_path / "a.png")
    assert (read(tmp_path / "a.png") == np.asarray(grey)[:, :, None]).all()


def test_a_palette_with_transparency_keeps_its_colours(tmp_path, pixels):
    palette = Image.fromarray(pixels).quantize(16)
    palette.save(tmp_path / "a.png", transparency=bytes([0, 128] + [255] * 14))
    assert (read(tmp_path / "a.png") == np.asarray(palette.convert("RGB"))).all()


def test_bilevel_images_are_black_and_white(tmp_path, pixels):
    Image.fromarray(pixels).convert("1").save(tmp_path / "a.png")
    assert set(np.unique(read(tmp_path / "a.png"))) == {0, 255}


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_keeps_the_upper_8_bits_instead_of_clipping(tmp_path, name):
    values = np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    assert (read(tmp_path / name) == (values >> 8)[:, :, None]).all()


def test_32_bit_pixels_are_refused_for_their_range_is_unknown(tmp_path):
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif has 32-bit pixels"):
        read(tmp_path / "a.tif")


def save_rotated(path, pixels):
    exif = Image.Exif()
    exif[ORIENTATION] = LANDSCAPE_ROTATED_BY_90
    Image.fromarray(pixels).save(path, exif=exif)


def test_exif_rotation_is_applied_when_the_annotator_saw_it(tmp_path, pixels):
    save_rotated(tmp_path / "a.png", pixels)
    upright = read_image(tmp_path / "a.png", HEIGHT, WIDTH).permute(1, 2, 0).numpy()
    assert (upright == np.rot90(pixels, -1)).all()


def test_exif_rotation_is_ignored_when_boxes_belong_to_the_stored_pixels(tmp_path, pixels):
    save_rotated(tmp_path / "a.png", pixels)
    assert (read(tmp_path / "a.png") == pixels).all()


def test_exif_rotation_of_a_square_image_is_ignored(tmp_path, pixels):
    save_rotated(tmp_path / "a.png", pixels[:, :HEIGHT])
    square = read_image(tmp_path / "a.png", HEIGHT, HEIGHT).permute(1, 2, 0).numpy()
    assert (square == pixels[:, :HEIGHT]).all()


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (WIDTH, HEIGHT + 1)])
def test_another_size_than_annotated_is_an_error(tmp_path, pixels, size):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(ImageSizeError, match=r"a\.png has 24×16 pixels, but is annotated as"):
        read_image(tmp_path / "a.png", *size)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.bmp"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_truncated_files_are_named(tmp_path, name, part):
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(DataError, match=path.name):
        read(path)


def test_missing_files_and_other_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.jpg is missing"):
        read(tmp_path / "none.jpg")
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"page\.jpg cannot be read"):
        read(tmp_path / "page.jpg")


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.bmp", "a.webp", "a.gif"])
def test_damaged_bytes_end_in_pixels_or_in_a_data_error(tmp_path, pixels, name):
    Image.fromarray(pixels).save(tmp_path / name)
    whole, rng = (tmp_path / name).read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(damaged), 4):
            damaged[place] = rng.integers(256)
        (tmp_path / name).write_bytes(damaged)
        with contextlib.suppress(DataError):
            assert read(tmp_path / name).shape == (HEIGHT, WIDTH, 3)


def png_of(path, width, height):
    """Write a PNG that promises so many pixels and holds none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (header, b"IDAT" + zlib.compress(b""), b"IEND")
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    )
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("size", "words"), [
    ((12911, 12911), r"has 12911×12911 pixels, which take 500 MB decoded; at most 500 MB are allowed"),
    ((13_000, 13_500), r"has 13000×13500 pixels, which take 526 MB decoded; at most 500 MB are allowed"),
    ((2**31 - 1, 1000), r"has 2147483647×1000 pixels, which take 6,442,451 MB decoded; at most 500 MB are allowed"),
])  # fmt: skip
@pytest.mark.parametrize("read_file", [read_image, read_grey, lambda path, *_: image_size(path)])
def test_a_file_that_promises_more_than_fits_is_refused_by_its_header(tmp_path, size, words, read_file):
    path = png_of(tmp_path / "bomb.png", *size)
    with pytest.raises(ImageTooLargeError, match=r"bomb\.png " + words):
        read_file(path, *size)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_largest_image_that_is_allowed_is_read(tmp_path):
    side = int(MAX_PIXELS**0.5)
    assert image_size(png_of(tmp_path / "large.png", side, side)) == (side, side)


def test_postscript_is_not_run(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.eps")
    with pytest.raises(DataError, match=r"a\.eps is PostScript, a program"):
        read(tmp_path / "a.eps")

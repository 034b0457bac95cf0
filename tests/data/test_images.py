import io
import os

import numpy as np
import pytest
from PIL import Image

from adarank_jax import errors
from adarank_jax.data import images

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def picture(mode):
    source = Image.fromarray(RGB)
    if mode == "P":
        return source.quantize(16)
    return source.convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("RGB", "PNG"), ("RGB", "JPEG"), ("RGB", "BMP"), ("RGB", "WEBP")),
        *(("L", "PNG"), ("L", "JPEG"), ("P", "PNG"), ("P", "GIF"), ("1", "PNG")),
        *(("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("1", "TIFF")),
    ],
)
def test_decode_equals_pillow_where_pillow_is_right(mode, kind):
    content = encoded(picture(mode), kind)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    out = images.decode(content)
    np.testing.assert_array_equal(out, expected)
    assert out.dtype == np.uint8
    assert out.shape == RGB.shape


def test_decode_takes_content_path_picture_and_array(tmp_path):
    content = encoded(Image.fromarray(RGB))
    (tmp_path / "a.png").write_bytes(content)
    for form in (
        *(content, bytearray(content), memoryview(content)),
        *(tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(RGB), RGB),
    ):
        np.testing.assert_array_equal(images.decode(form), RGB)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_becomes_white(mode):
    source = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    source.putpixel((1, 0), (50, 50, 50, 255))
    if mode == "PA":
        image = source.convert("RGB").quantize(4).convert("PA")
        image.putalpha(source.getchannel("A"))
    else:
        image = source.convert(mode)
    np.testing.assert_array_equal(
        images.decode(image), [[[255, 255, 255], [50, 50, 50]]]
    )


def test_half_transparent_is_blended_with_white():
    image = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert images.decode(encoded(image))[0, 0].tolist() == [127, 127, 127]


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("PNG", {})])
def test_transparent_palette_entry_becomes_white(kind, options):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.putpixel((1, 0), 1)
    content = encoded(image, kind, transparency=0, **options)
    assert images.decode(content)[0].tolist() == [[255, 255, 255], [200, 0, 0]]


@pytest.mark.parametrize(
    ("mode", "kind"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I;16B", "TIFF")]
)
def test_ramp_of_16_bits_becomes_256_levels(mode, kind):
    ramp = np.arange(65536).astype(">u2" if mode == "I;16B" else "<u2").reshape(256, -1)
    image = Image.frombytes(mode, (256, 256), ramp.tobytes())
    content = encoded(image, kind)
    assert Image.open(io.BytesIO(content)).mode.startswith("I")
    levels, counts = np.unique(images.decode(content)[..., 0], return_counts=True)
    assert levels.tolist() == list(range(256))
    assert counts.tolist() == [129, *[257] * 254, 129]


def test_integers_of_32_bits_are_scaled_as_16():
    image = Image.fromarray(np.array([[0, 257, 65535]], np.int32))
    assert image.mode == "I"
    assert images.decode(image)[0, :, 1].tolist() == [0, 1, 255]


def test_integers_above_16_bits_are_refused():
    image = Image.fromarray(np.array([[0, 70000]], np.int32))
    with pytest.raises(ValueError, match="E324.*70,000, expected 0 to 65,535"):
        images.decode(image)


def test_transparent_16_bit_value_becomes_white():
    image = Image.fromarray(np.array([[0, 257]], np.uint16))
    content = encoded(image, "PNG", transparency=0)
    assert images.decode(content)[0, :, 0].tolist() == [255, 1]


def test_floating_point_is_refused():
    for form in (
        np.zeros((2, 2), np.float32),
        encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"),
    ):
        with pytest.raises(ValueError, match=r"E324.*holds floating point.*0\.\.255"):
            images.decode(form, "`x.tiff`")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation):
    upright = np.zeros((2, 3, 3), np.uint8)
    upright[0, 0], upright[1, 2] = (255, 0, 0), (0, 255, 0)
    turns = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turns[orientation]))
    content = encoded(stored, "PNG", exif=exif)
    np.testing.assert_array_equal(images.decode(content), upright)


def test_damaged_exif_asks_for_nothing():
    content = encoded(
        Image.fromarray(RGB), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"
    )
    np.testing.assert_array_equal(images.decode(content), RGB)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_first_frame_is_taken(kind):
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(first, kind, save_all=True, append_images=[second], **options)
    assert images.decode(content)[0, 0].tolist() == [255, 0, 0]


def test_too_many_pixels_are_refused_with_count_and_limit():
    for form in (encoded(Image.fromarray(RGB)), Image.fromarray(RGB)):
        with pytest.raises(ValueError, match=r"E326 `x`: 54 pixels .*limit is 53"):
            images.decode(form, "`x`", max_pixels=53)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_decompression_bomb_is_refused(tmp_path, side):
    file = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(file)
    assert file.stat().st_size < 100_000
    with pytest.raises(ValueError, match=rf"E326.*bomb\.png.*{side**2}.*\d{{8}}"):
        images.decode(file)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_truncated_file_is_refused_by_name(tmp_path, kind, share):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    file = tmp_path / "cut"
    file.write_bytes(content[: int(share * len(content))])
    for read in (images.decode, images.verify):
        with pytest.raises(ValueError, match="E331 .*cut`: .*again"):
            read(file)


@pytest.mark.parametrize(
    "content", [b"<html>not found</html>", b"%!PS-Adobe-3.0 EPSF-3.0", b"\0" * 100]
)
def test_what_is_no_image_is_refused_by_name(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"E331.*a\.jpg.*expected one of JPEG"):
        images.decode(tmp_path / "a.jpg")


def test_flipped_bit_in_a_png_is_found():
    content = bytearray(encoded(Image.fromarray(RGB)))
    content[60] ^= 16
    with pytest.raises(ValueError, match="E331 `x`: damaged"):
        images.decode(bytes(content), "`x`")


def test_missing_file_and_fifo_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        images.decode(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="E328.*no regular file"):
        images.decode(tmp_path / "pipe.png")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[7]], np.uint8), 7),
        (np.array([[[7]]], np.uint8), 7),
        (np.array([[True]]), 255),
        (np.array([[257 * 9 + 128]], np.uint16), 9),
        (np.array([[[1, 1, 1, 0]]], np.uint8), 255),
    ],
)
def test_arrays_become_rgb(array, expected):
    assert images.decode(array).tolist() == [[[expected] * 3]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 4), np.uint8), r"shape.*\(0, 4\)"),
        (np.zeros((2, 2, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((2, 2), np.int32), "int32"),
        (np.zeros((1, 1, 2, 2), np.uint8), "shape"),
    ],
)
def test_other_arrays_are_refused(array, message):
    with pytest.raises(errors.InputError, match=f"E333.*{message}"):
        images.decode(array)


def test_verify_describes_without_decoding(tmp_path):
    file = tmp_path / "a.gif"
    first, second = Image.new("RGB", (4, 5), "red"), Image.new("RGB", (4, 5), "blue")
    first.save(file, save_all=True, append_images=[second])
    header = images.verify(file)
    assert (header.width, header.height) == (4, 5)
    assert header.frames == 2
    assert not header.is_transparent
    Image.new("LA", (4, 5)).save(tmp_path / "b.png")
    assert images.verify(tmp_path / "b.png") == ("LA", 4, 5, 1, True)

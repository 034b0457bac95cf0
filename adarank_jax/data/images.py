"""Any picture -> 8-bit RGB, the way a person sees it.

Differs from `PIL.Image.convert("RGB")`, which clips 16-bit pictures to white, and from
a plain `open`, which leaves photographs sideways: see `decode`.
"""

import io
import os
import pathlib
import struct
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps

from adarank_jax import errors

Picture = bytes | bytearray | memoryview | str | os.PathLike | Image.Image | np.ndarray


def decode(
    image: Picture, name: str = "the image", max_pixels: int | None = None
) -> np.ndarray:
    """Turns a picture into 8-bit RGB.

    Grey, palette, CMYK and YCbCr pictures become RGB; what is transparent becomes
    white; 16-bit pictures are divided by 257 and rounded; the EXIF orientation is
    applied; of several frames or pages the first is taken.

    Args:
        image: the content of a file, its path, a PIL image, or an array `(height,
            width)` or `(height, width, 1 | 3 | 4)` of uint8, uint16 or bool.
        name: of the picture in messages; a path names itself.
        max_pixels: above it a picture is refused, because a small file can unpack to
            more than the memory holds; `MAX_PIXELS` by default.

    Returns:
        `(height, width, 3)` uint8.

    Raises:
        MissingError: there is no such file.
        InputError: the file is no whole picture of a known format, it has too many
            pixels, its values are floating point, or an array has another shape or
            dtype.
        TypeError: the argument is no picture.

    Examples:
        >>> import numpy as np
        >>> decode(np.array([[0, 65535]], np.uint16))[0, :, 0].tolist()
        [0, 255]
    """
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if isinstance(image, np.ndarray):
        return _from_array(image, name)
    if isinstance(image, str | os.PathLike):
        name, image = f"`{os.fspath(image)}`", _read(image)
    if isinstance(image, bytes | bytearray | memoryview):
        with _open(io.BytesIO(image), name, limit) as opened:
            return _pixels(opened, name)
    if isinstance(image, Image.Image):
        _check_pixels(image.size, name, limit)
        return _pixels(image, name)
    raise TypeError(
        f"{name} must be bytes, a path, a PIL image or an array, got "
        f"{type(image).__name__}."
    )


class Header(NamedTuple):
    """What a file says of its picture before it is decoded.

    Attributes:
        mode: of Pillow, for example "RGB", "L" or "CMYK".
        width: in pixels.
        height: in pixels.
        frames: 1, or more of an animation or several pages.
        is_transparent: whether it has an alpha channel or a transparent colour.
    """

    mode: str
    width: int
    height: int
    frames: int
    is_transparent: bool


def verify(path: str | os.PathLike, max_pixels: int | None = None) -> Header:
    """Reads the header of a file and looks for damage without decoding if possible.

    Args:
        path: of the file.
        max_pixels: as for `decode`.

    Returns:
        What the header says.

    Raises:
        MissingError: there is no such file.
        InputError: `decode` would refuse the file. Damage inside the pixels of a JPEG
            is found only if its end is missing.
    """
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    name = f"`{os.fspath(path)}`"
    with _open_file(path) as stream, _open(stream, name, limit) as image:
        header = Header(
            image.mode,
            *image.size,
            int(getattr(image, "n_frames", 1)),
            _is_transparent(image),
        )
        if image.mode == "F":
            raise _float_error(name)
        if image.format == "PNG":
            try:
                image.verify()
            except _DAMAGE as error:
                raise _damage(name, error) from error
            return header
        is_jpeg = image.format in ("JPEG", "MPO")
        if is_jpeg:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
        if not is_jpeg or _JPEG_END not in stream.read():
            decode(path, max_pixels=limit)
    return header


def _read(path):
    """Returns the content of a regular file."""
    with _open_file(path) as stream:
        return stream.read()


def _open_file(path):
    """Opens a regular file."""
    path = pathlib.Path(path)
    if not path.exists():
        raise errors.MissingError(
            "E101", "there is no such image", f"`{path}`", remedy="check the path"
        )
    if not path.is_file():
        raise errors.InputError("E328", "no regular file", f"`{path}`", "an image")
    try:
        return open(path, "rb")
    except PermissionError as error:
        raise errors.InputError(
            "E331", "it cannot be read", f"`{path}`", remedy="check its permissions"
        ) from error


def _open(stream, name, limit):
    """Reads the header of a picture whose size is acceptable."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    begins = stream.read(8)
    stream.seek(0)
    if not size:
        raise errors.InputError(
            "E331", "empty (0 bytes)", name, "an image", "fetch or make it again"
        )
    Image.init()
    known = [each for each in FORMATS if each in Image.OPEN]
    try:
        image = Image.open(stream, formats=known)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise errors.InputError(
            "E326", str(error).rstrip("."), name, remedy="make it smaller"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise errors.InputError(
            "E331",
            f"no whole image ({size:,} bytes, begins {begins!r})",
            where=name,
            expected=f"one of {', '.join(FORMATS)}",
            remedy="fetch or make it again",
        ) from error
    except _DAMAGE as error:
        raise _damage(name, error) from error
    try:
        _check_pixels(image.size, name, limit)
    except errors.InputError:
        image.close()
        raise
    return image


def _check_pixels(size, name, limit):
    """Raises if a picture would take too much memory, or none."""
    count = size[0] * size[1]
    if not count:
        raise errors.InputError("E331", f"no pixels: it is {size[0]} x {size[1]}", name)
    if count > limit:
        raise errors.InputError(
            "E326",
            f"{count:,} pixels ({size[0]} x {size[1]}), the limit is {limit:,}",
            where=name,
            remedy="make it smaller",
        )


def _pixels(image, name):
    """Decodes an opened picture."""
    try:
        if isinstance(image, ImageFile.ImageFile):
            image.load()
        return np.array(_rgb(_upright(image), name))
    except errors.InputError:
        raise
    except _DAMAGE as error:
        raise _damage(name, error) from error


def _damage(name, error):
    """Says that a file is damaged."""
    found = f"damaged ({str(error).rstrip('.')})"
    return errors.InputError("E331", found, name, remedy="fetch or make it again")


def _upright(image):
    """Turns a photograph as its EXIF orientation asks; a damaged EXIF asks nothing."""
    try:
        turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except (*_DAMAGE, UserWarning):
        return image
    return ImageOps.exif_transpose(image) if turned else image


def _rgb(image, name):
    """Converts the mode of a picture."""
    if image.mode == "F":
        raise _float_error(name)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray(_from_deep(image, name))
    if _is_transparent(image):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _is_transparent(image):
    """Tells whether anything behind the picture can be seen through it."""
    return "A" in image.getbands() or image.info.get("transparency") is not None


def _from_deep(image, name):
    """Scales 16-bit grey to 8 bits."""
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise errors.InputError(
            "E324",
            f"32-bit values from {low:,} to {high:,}",
            where=name,
            expected="0 to 65,535",
            remedy="scale it to 8 or 16 bits",
        )
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        values = np.where(values == clear, 65535, values)
    return np.repeat(_eight_bits(values)[..., None], 3, axis=-1)


def _eight_bits(values):
    """Divides by 257 and rounds; 257 is odd, so there is never a tie."""
    return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)


def _from_array(array, name):
    """Converts an array as `decode` says."""
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if not array.size or array.ndim not in (2, 3):
        raise errors.InputError(
            "E333",
            f"an array of shape {array.shape}",
            where=name,
            expected="(height, width) or (height, width, 1 | 3 | 4)",
        )
    if array.ndim == 3 and array.shape[-1] not in (3, 4):
        raise errors.InputError(
            "E333",
            f"an array of shape {array.shape}",
            where=name,
            expected="1, 3 or 4 channels last",
        )
    if np.issubdtype(array.dtype, np.floating):
        raise _float_error(name)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        array = _eight_bits(array)
    elif array.dtype != np.uint8:
        raise errors.InputError("E333", str(array.dtype), name, "uint8 or uint16")
    if array.ndim == 2:
        return np.repeat(array[..., None], 3, axis=-1)
    if array.shape[-1] == 3:
        return array
    return np.array(_rgb(Image.fromarray(np.ascontiguousarray(array)), name))


def _float_error(name):
    """Says that floating point has no known range."""
    return errors.InputError(
        "E324",
        "it holds floating point, whose range is unknown",
        where=name,
        expected="8 or 16 bits",
        remedy="scale it to 0..255 and save it again",
    )


_ORIENTATION = 0x0112
_JPEG_END = b"\xff\xd9"
_TAIL = 4096  # bytes; some cameras write a little after the end
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError),
    *(EOFError, OverflowError, MemoryError, NotImplementedError, RuntimeError),
    *(struct.error, zlib.error),
)
MAX_PIXELS = 89_478_485  # 256 MiB of RGB, where Pillow begins to warn
# No EPS or PSD: reading a picture must never start another program.
FORMATS = (*("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"),)

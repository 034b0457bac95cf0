"""From pixels to what a model takes."""

import dataclasses
import difflib
import functools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from adarank_jax import errors
from adarank_jax.data import images


def normalise(
    images: np.ndarray,
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
    std: tuple[float, float, float] = (0.5, 0.5, 0.5),
) -> np.ndarray:
    """Scales 8-bit images to [0, 1], subtracts the mean, divides by the deviation.

    Args:
        images: `(..., 3)`, uint8.
        mean: of each channel, in [0, 1].
        std: of each channel, above zero.

    Returns:
        Float32 of the same shape; in [-1, 1] with the defaults.

    Raises:
        TypeError: the images are not uint8.
        ValueError: there are no three channels.

    Examples:
        >>> import numpy as np
        >>> normalise(np.full((1, 1, 3), 255, np.uint8)).tolist()
        [[[1.0, 1.0, 1.0]]]
    """
    if images.dtype != np.uint8:
        raise TypeError(f"`images` must be uint8, got {images.dtype}.")
    if images.shape[-1] != 3:
        raise ValueError(
            f"`images` must have three channels last, got shape {images.shape}."
        )
    shift, scale = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return (images.astype(np.float32) / 255.0 - shift) / scale


OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class ClipTransform:
    """Resizes, crops and normalises, bit for bit as `CLIPImageProcessorPil` does.

    Attributes:
        size: of the shorter edge after resizing, or `(height, width)`; None to leave
            the size.
        crop: `(height, width)` of the centre that is kept, or the side of a square;
            what is missing is filled with black. None to keep all.
        mean: of each channel; None to leave the range.
        std: of each channel.
        resample: number of a Pillow filter; 3 is bicubic.
        rescale: factor of the 8-bit values; None for 1.

    Examples:
        >>> import numpy as np
        >>> ClipTransform(size=8, crop=8)(np.zeros((20, 10, 3), np.uint8)).shape
        (8, 8, 3)
    """

    size: int | tuple[int, int] | None = 224
    crop: int | tuple[int, int] | None = 224
    mean: tuple[float, float, float] | None = OPENAI_MEAN
    std: tuple[float, float, float] | None = OPENAI_STD
    resample: int = int(Image.Resampling.BICUBIC)
    rescale: float | None = 1 / 255

    def __post_init__(self):
        """Checks the ranges, all at once."""
        problems = []
        for name in ("size", "crop"):
            sides = getattr(self, name)
            sides = sides if isinstance(sides, tuple) else (sides,)
            if any(side is not None and side < 1 for side in sides):
                problems.append(f"`{name}` must be at least 1, got {sides}.")
        if (self.mean is None) != (self.std is None):
            problems.append("`mean` and `std` must be given together.")
        if self.std is not None and not all(value > 0 for value in self.std):
            problems.append(f"`std` must be above 0, got {self.std}.")
        if self.resample not in {*Image.Resampling}:
            problems.append(
                f"`resample` must be one of {[*map(int, Image.Resampling)]}, got "
                f"{self.resample}."
            )
        if problems:
            raise ValueError("\n".join(problems))

    def __call__(self, image: images.Picture) -> np.ndarray:
        """Transforms one picture.

        Args:
            image: what `images.decode` takes.

        Returns:
            `(height, width, 3)` float32.

        Raises:
            InputError: the picture is so long and thin that it would fill the memory
                before it is cropped; or as for `images.decode`.
        """
        pixels = images.decode(image)
        if self.size is not None:
            height, width = _resized(self.size, *pixels.shape[:2])
            if height * width > _MOST_PIXELS:
                raise errors.InputError(
                    "E326",
                    f"a picture of {pixels.shape[1]} x {pixels.shape[0]} pixels would "
                    f"be scaled to {width:,} x {height:,}, the limit is "
                    f"{_MOST_PIXELS:,} pixels",
                    remedy="crop it first",
                )
            resized = Image.fromarray(pixels).resize((width, height), self.resample)
            pixels = np.asarray(resized)
        if self.crop is not None:
            pixels = _crop_centre(pixels, _pair(self.crop))
        table = self._values
        return np.stack([table[c][pixels[..., c]] for c in range(3)], axis=-1)

    @functools.cached_property
    def _values(self):
        """Tabulates the result of each of 256 values in each channel."""
        values = np.arange(256).astype(np.float64)
        if self.rescale is not None:
            values = values * self.rescale
        values = np.repeat(values.astype(np.float32)[None], 3, axis=0)
        if self.mean is None:
            return values
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return (values - mean[:, None]) / std[:, None]


def from_preprocessor_config(
    config: str | os.PathLike | Mapping[str, Any],
) -> ClipTransform:
    """Reads the transform that a checkpoint was trained with.

    Args:
        config: path of a `preprocessor_config.json`, or what it holds.

    Returns:
        The transform.

    Raises:
        MissingError: there is no such file.
        InputError: the file is no JSON object, or asks for what `ClipTransform` does
            not do; all that is wrong is listed.

    Examples:
        >>> from_preprocessor_config({"size": 32, "crop_size": 32}).crop
        (32, 32)
    """
    if isinstance(config, Mapping):
        where, given = "preprocessor configuration", config
    else:
        where, given = f"`{os.fspath(config)}`", _read_json(config)
    given = given.get("image_processor", given)
    if not isinstance(given, Mapping):
        raise errors.InputError(
            "E330", f"it holds {given!r} as `image_processor`", where, "an object"
        )
    problems = [_unknown(key) for key in given if key not in {*_READ, *_IGNORED}]
    kind = given.get("image_processor_type", given.get("feature_extractor_type"))
    if kind is not None and not (isinstance(kind, str) and kind in _KINDS):
        problems.append(f"image processor {kind!r}, expected one of {sorted(_KINDS)}")
    values = {key: given.get(key, default) for key, default in _READ.items()}
    for key in (key for key in _READ if key.startswith("do_")):
        if values[key] is None:
            values[key] = _READ[key]
        elif not isinstance(values[key], bool):
            problems.append(f"{key} = {values[key]!r}, expected true or false")
    for key in ("do_pad", "use_square_size"):
        if given.get(key):
            problems.append(f"{key} = {given[key]!r}, which is not supported")
    size = _sides(values["size"], "size", problems)
    crop = _sides(values["crop_size"], "crop_size", problems)
    crop = (crop, crop) if isinstance(crop, int) else crop
    mean = _channels(values["image_mean"], "image_mean", problems)
    std = _channels(values["image_std"], "image_std", problems)
    if std is not None and not all(value > 0 for value in std):
        problems.append(f"image_std = {[*std]}, expected three numbers above 0")
    if values["resample"] not in [*Image.Resampling]:
        problems.append(
            f"resample = {values['resample']!r}, expected one of "
            f"{[*map(int, Image.Resampling)]}"
        )
    factor = values["rescale_factor"]
    if isinstance(factor, bool) or not isinstance(factor, int | float):
        problems.append(f"rescale_factor = {factor!r}, expected a number")
    if problems:
        raise errors.InputError(
            "E330",
            "it cannot be used",
            where=where,
            remedy="take that of the model, or write the transform as a "
            "`ClipTransform` if you know what the model expects:\n  "
            + "\n  ".join(problems),
        )
    return ClipTransform(
        size=size if values["do_resize"] else None,
        crop=crop if values["do_center_crop"] else None,
        mean=mean if values["do_normalize"] else None,
        std=std if values["do_normalize"] else None,
        resample=int(values["resample"]),
        rescale=float(factor) if values["do_rescale"] else None,
    )


def _resized(size, height, width):
    """Returns the size after resizing, whose fractions are cut off."""
    if isinstance(size, tuple):
        return size
    short, long = sorted((height, width))
    longer = int(size * long / short)
    return (longer, size) if width <= height else (size, longer)


def _crop_centre(pixels, size):
    """Keeps the centre; pads with zeros, the odd row or column first, if too small."""
    height, width = size
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    # A floored negative offset is the padding above, which gets the odd pixel.
    above, before = max(0, -top), max(0, -left)
    kept = pixels[max(0, top) :, max(0, left) :][: height - above, : width - before]
    out = np.zeros((height, width, 3), np.uint8)
    out[above : above + kept.shape[0], before : before + kept.shape[1]] = kept
    return out


def _pair(sides):
    """Returns height and width."""
    return (sides, sides) if isinstance(sides, int) else sides


def _read_json(path):
    """Reads an object from a JSON file."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.MissingError(
            "E101", "there is no such file", f"`{path}`", "a preprocessor_config.json"
        )
    with open(path, "rb") as stream:
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise errors.InputError(
            "E330",
            f"it has more than {_MOST_BYTES:,} bytes",
            where=f"`{path}`",
            expected="a short preprocessor_config.json",
        )
    try:
        config = json.loads(content.decode())
    except RecursionError:
        raise errors.InputError(
            "E330", "it is nested too deeply", f"`{path}`", remedy="fetch it again"
        ) from None
    except ValueError as error:
        raise errors.InputError(
            "E330", f"it is no JSON: {error}", f"`{path}`", remedy="fetch it again"
        ) from error
    if not isinstance(config, dict):
        raise errors.InputError(
            "E330",
            f"it holds a {type(config).__name__}",
            where=f"`{path}`",
            expected="an object with `size`, `crop_size`, …",
        )
    return config


def _unknown(key):
    """Says that a key is unknown, with the nearest known one."""
    near = difflib.get_close_matches(str(key), _READ, 1)
    return f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _sides(value, name, problems):
    """Reads a size: a number, a shortest edge, or height and width."""
    found = None
    if isinstance(value, Mapping):
        given = {key: side for key, side in value.items() if side is not None}
        if given.keys() == {"shortest_edge"}:
            found = given["shortest_edge"]
            if name == "crop_size":
                found = None
        elif given.keys() == {"height", "width"}:
            found = (given["height"], given["width"])
    else:
        found = tuple(value) if isinstance(value, list) else value
    whole = found if isinstance(found, tuple) else (found,)
    if len(whole) > 2 or not all(type(side) is int and side > 0 for side in whole):
        problems.append(
            f"{name} = {value!r}, expected a number above 0, "
            + ("" if name == "crop_size" else "a shortest_edge, ")
            + "or height and width"
        )
        return None
    return found


def _channels(value, name, problems):
    """Reads one number a channel."""
    if isinstance(value, list | tuple) and len(value) == 3:
        if all(isinstance(number, int | float) for number in value):
            return tuple(map(float, value))
    problems.append(f"{name} = {value!r}, expected three numbers")
    return None


_MOST_BYTES = 2**20  # of a configuration
_MOST_PIXELS = 4 * images.MAX_PIXELS
_READ = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": int(Image.Resampling.BICUBIC),
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": OPENAI_MEAN,
    "image_std": OPENAI_STD,
    "do_convert_rgb": True,  # pictures are RGB before they come here
}
_KINDS = {
    *("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil"),
    "CLIPFeatureExtractor",
}
_IGNORED = {
    *("image_processor_type", "feature_extractor_type", "processor_class"),
    *("data_format", "input_data_format", "return_tensors", "device"),
    *("disable_grouping", "default_to_square", "_valid_processor_keys"),
    *("do_pad", "pad_size", "use_square_size"),
}

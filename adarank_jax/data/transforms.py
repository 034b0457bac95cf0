"""From pixels to what a model takes."""

import numpy as np


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

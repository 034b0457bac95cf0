import numpy as np
import pytest

from adarank_jax.data import transforms


def test_normalise_maps_bytes_to_the_unit_range():
    images = np.array([[[0, 255, 51]]], np.uint8)
    np.testing.assert_allclose(
        transforms.normalise(images), [[[-1.0, 1.0, -0.6]]], rtol=1e-6
    )


def test_normalise_uses_each_channel_of_mean_and_deviation():
    images = np.full((1, 1, 3), 255, np.uint8)
    out = transforms.normalise(images, (0.0, 0.5, 1.0), (1.0, 0.5, 2.0))
    np.testing.assert_allclose(out, [[[1.0, 1.0, 0.0]]])


def test_normalise_refuses_floats():
    with pytest.raises(TypeError, match="uint8"):
        transforms.normalise(np.zeros((1, 1, 3), np.float32))


def test_normalise_refuses_grey_images():
    with pytest.raises(ValueError, match="three channels"):
        transforms.normalise(np.zeros((4, 4, 1), np.uint8))

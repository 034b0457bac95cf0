import numpy as np
import pytest

from adarank_jax import errors
from adarank_jax.data.batches import Transformed
from adarank_jax.data.npz import NpzImages
from adarank_jax.data.sources import Arrays
from adarank_jax.data.transforms import ClipTransform

IMAGES = np.random.default_rng(0).normal(size=(3, 4, 5, 3))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_preprocessed_images_are_given_out_as_they_are(tmp_path, dtype):
    images = IMAGES.astype(dtype)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([2, 0, 1]))
    source = NpzImages(tmp_path / "a.npz")
    assert source.is_preprocessed
    image, label = source[0]
    assert label == 2
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, images[0].astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.bool_])
def test_pictures_are_not_taken_for_preprocessed(dtype):
    assert not Arrays(np.zeros((2, 4, 5, 3), dtype)).is_preprocessed


def test_preprocessed_images_are_not_transformed_a_second_time():
    images = Transformed(Arrays(IMAGES, name="`a.npz`"), ClipTransform(4, 4))
    with pytest.raises(ValueError, match="float"):
        images[0]


@pytest.mark.parametrize(
    ("place", "value"), [((1, 0, 0, 2), np.nan), ((1, 3, 4, 0), np.inf)]
)
def test_preprocessed_images_must_be_finite(tmp_path, place, value):
    images = IMAGES.copy()
    images[place] = value
    np.savez(tmp_path / "a.npz", images=images)
    with pytest.raises(
        ValueError, match=r"E220.*a\.npz`: 1 of 3 .*are not finite.* number 1"
    ):
        NpzImages(tmp_path / "a.npz")


def test_preprocessed_images_must_be_finite_in_float32():
    with pytest.raises(ValueError, match="E220.*3 of 3 .* not finite"):
        Arrays(np.full((3, 4, 5, 3), 1e300))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[0], r"float64 of shape \(4, 5, 3\).*0\.\.255"),
        (IMAGES[..., :1], "float64 of shape"),
        (IMAGES.astype(np.complex64), "complex64"),
        (IMAGES.astype(np.int32), "int32"),
    ],
)
def test_other_arrays_are_refused(images, message):
    with pytest.raises(errors.InputError, match=f"E333.*{message}"):
        Arrays(images)

import json

import numpy as np
import pytest
from PIL import Image

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


def reference(picture, **options):
    """Transforms with transformers, channels last."""
    from transformers.models.clip.image_processing_pil_clip import (
        CLIPImageProcessorPil,
    )

    processor = CLIPImageProcessorPil(**options)
    out = processor(picture, return_tensors="np")["pixel_values"][0]
    return np.moveaxis(out, 0, -1)


def noise(*shape):
    rng = np.random.default_rng(sum(shape))
    return rng.integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width"),
    [
        *((224, 224), (28, 28), (32, 32), (48, 48), (96, 96), (375, 500), (500, 333)),
        *((223, 225), (225, 223), (301, 400), (97, 641), (1, 1), (3, 5), (7, 2)),
        *((1, 400), (300, 1)),
        pytest.param(1, 5000, marks=pytest.mark.slow),
        pytest.param(5000, 1, marks=pytest.mark.slow),
    ],
)
def test_clip_transform_equals_the_reference_bit_for_bit(height, width):
    pixels = noise(height, width, 3)
    out = transforms.ClipTransform()(pixels)
    assert out.dtype == np.float32
    assert out.shape == (224, 224, 3)
    np.testing.assert_array_equal(out, reference(Image.fromarray(pixels)))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "RGBA", "LA", "YCbCr"])
def test_clip_transform_equals_the_reference_in_every_mode(mode):
    rgba = Image.fromarray(noise(50, 70, 4))
    picture = rgba.convert("RGB").quantize(32) if mode == "P" else rgba.convert(mode)
    np.testing.assert_array_equal(
        transforms.ClipTransform()(picture), reference(picture)
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_clip_transform_equals_the_reference_on_files(tmp_path, mode, kind):
    file = tmp_path / f"a.{kind.lower()}"
    Image.fromarray(noise(60, 81, 3)).convert(mode).save(file)
    with Image.open(file) as opened:
        expected = reference(opened)
    np.testing.assert_array_equal(transforms.ClipTransform()(file), expected)


@pytest.mark.parametrize("size", [None, 20, 33, (40, 51)])
@pytest.mark.parametrize("crop", [None, (32, 32), (30, 31), (31, 30), (301, 7)])
def test_clip_transform_crops_and_pads_as_the_reference(size, crop):
    options = {"do_resize": size is not None, "do_center_crop": crop is not None}
    if isinstance(size, int):
        options["size"] = {"shortest_edge": size}
    elif size:
        options["size"] = {"height": size[0], "width": size[1]}
    if crop:
        options["crop_size"] = {"height": crop[0], "width": crop[1]}
    for shape in [(5, 9), (30, 30), (29, 28), (32, 35), (100, 41)]:
        pixels = noise(*shape, 3)
        expected = reference(Image.fromarray(pixels), **options)
        out = transforms.ClipTransform(size=size, crop=crop)(pixels)
        np.testing.assert_array_equal(out, expected)
        config = transforms.from_preprocessor_config(options)
        np.testing.assert_array_equal(config(pixels), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"do_normalize": False},
        {"do_rescale": False},
        {"resample": 2},
        {"rescale_factor": 1 / 127.5, "image_mean": [0.5] * 3, "image_std": [1.5] * 3},
    ],
)
def test_preprocessor_config_is_followed(options):
    pixels = noise(40, 30, 3)
    out = transforms.from_preprocessor_config(options)(pixels)
    np.testing.assert_array_equal(out, reference(Image.fromarray(pixels), **options))
    assert out.dtype == np.float32


def test_preprocessor_config_of_a_checkpoint_is_read(tmp_path):
    from transformers.models.clip.image_processing_pil_clip import (
        CLIPImageProcessorPil,
    )

    CLIPImageProcessorPil(size=336, crop_size=336).save_pretrained(tmp_path)
    expected = transforms.ClipTransform(size=336, crop=(336, 336))
    file = tmp_path / "preprocessor_config.json"
    assert transforms.from_preprocessor_config(file) == expected


def test_preprocessor_config_of_2021_is_read():
    config = {
        "crop_size": 224,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": 224,
    }
    expected = transforms.ClipTransform(crop=(224, 224))
    assert transforms.from_preprocessor_config(config) == expected
    wrapped = {"image_processor": config, "processor_class": "CLIPProcessor"}
    assert transforms.from_preprocessor_config(wrapped) == expected


def test_preprocessor_config_lists_all_that_it_cannot_do(tmp_path):
    config = {
        "image_processor_type": "SiglipImageProcessor",
        "crop_sise": 3,
        "do_pad": True,
        "size": {"longest_edge": 224},
        "resample": 99,
        "image_mean": [0.5],
        "image_std": [0.0, 1.0, 1.0],
        "do_resize": "yes",
        "rescale_factor": "1/255",
    }
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"E330 .*preprocessor_config\.json") as caught:
        transforms.from_preprocessor_config(file)
    for part in (
        *("SiglipImageProcessor", "'crop_sise'; did you mean 'crop_size'", "do_pad"),
        *("longest_edge", "resample = 99", "image_mean = [0.5]", "do_resize = 'yes'"),
        *("rescale_factor = '1/255'", "image_std = [0.0, 1.0, 1.0], expected three"),
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[1]", '{"image_processor": 3}', '{"resample": []}'),
        *('{"image_processor_type": {}}', "[" * 100_000, "{" + " " * 2**20 + "}"),
        b"\xff{}",
    ],
    ids=lambda content: str(content[:20]),
)
def test_damaged_preprocessor_config_is_refused_by_name(tmp_path, content):
    raw = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "p.json").write_bytes(raw)
    with pytest.raises(ValueError, match=r"E330 .*p\.json"):
        transforms.from_preprocessor_config(tmp_path / "p.json")
    with pytest.raises(FileNotFoundError, match=r"E101 .*q\.json"):
        transforms.from_preprocessor_config(tmp_path / "q.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "`size`"),
        ({"crop": (0, 3)}, "`crop`"),
        ({"std": None}, "together"),
        ({"std": (0.0, 1.0, 1.0)}, "above 0"),
        ({"resample": 99}, "`resample`"),
    ],
)
def test_clip_transform_refuses_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        transforms.ClipTransform(**options)


def test_clip_transform_refuses_what_would_fill_the_memory():
    with pytest.raises(
        ValueError, match="E326.*1 x 100000 pixels would be scaled to 224"
    ):
        transforms.ClipTransform()(np.zeros((100_000, 1, 3), np.uint8))

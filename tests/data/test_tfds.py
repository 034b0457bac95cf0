import contextlib
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

os.environ["NO_GCE_CHECK"] = "true"

import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants
from tensorflow_datasets.core.features import image_feature

from adarank_jax import errors
from adarank_jax.data import loading, registry, sources
from adarank_jax.data.registry import Tfds
from adarank_jax.data.tfds_source import TfdsImages

BUILDERS = sorted(
    {
        (data.tfds.builder, data.tfds.splits[1], data.num_classes)
        for name in registry.names()
        if isinstance((data := registry.get(name)).tfds, Tfds)
    }
)


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Bytes of files, which tfds can prepare without TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = {}  # nothing is downloaded

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["round", "square"]),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples()}

    def _generate_examples(self):
        for i in range(5):
            image = np.full((4 + i, 6, 3), i, np.uint8)
            yield i, {"image": io.BytesIO(png(image)), "label": i % 2}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    builder = TinyShapes(data_dir=str(folder), file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    return folder


def test_prepared_set_is_read_at_random(prepared):
    source = TfdsImages("tiny_shapes", "test", prepared)
    found = {}
    for index in (3, 0, 4, 2, 1):
        image, label = source[index]
        value = int(image[0, 0, 0])
        np.testing.assert_array_equal(image, np.full((4 + value, 6, 3), value))
        assert label == value % 2
        found[value] = source.labels[index]
    assert found == {0: 0, 1: 1, 2: 0, 3: 1, 4: 0}
    assert len(source) == 5
    assert source.classes == ("round", "square")
    assert sources.labels_of(source).dtype == np.int32


def test_unknown_split_and_builder_are_refused(prepared):
    with pytest.raises(ValueError, match=r"E163.*splits \['test'\], expected 'val'"):
        TfdsImages("tiny_shapes", "val", prepared)
    with pytest.raises(errors.InputError, match="E314.*no builder 'tiny_shape'"):
        TfdsImages("tiny_shape", "test", prepared)


def test_set_without_random_access_is_refused(prepared, tmp_path):
    target = tmp_path / "tiny_shapes" / "1.0.0"
    target.mkdir(parents=True)
    for file in (prepared / "tiny_shapes" / "1.0.0").iterdir():
        text = file.read_bytes().replace(b"array_record", b"tfrecord")
        (target / file.name.replace("array_record", "tfrecord")).write_bytes(text)
    with pytest.raises(ValueError, match=r"E168.*as tfrecord.*experiments\.prepare"):
        TfdsImages("tiny_shapes", "test", tmp_path)


def test_unprepared_set_names_the_command(tmp_path):
    command = r"experiments\.prepare --dataset svhn_cropped --data-dir"
    with pytest.raises(FileNotFoundError, match=command):
        TfdsImages("svhn_cropped", "test", tmp_path)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("builder", ["svhn_cropped", "emnist/digits"])
def test_unprepared_set_names_the_folder_of_all_sets(tmp_path, monkeypatch, builder):
    monkeypatch.setattr(constants, "DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"--data-dir {tmp_path}` "):
        TfdsImages(builder, "test")


def test_fingerprint_names_builder_version_and_split(prepared):
    source = TfdsImages("tiny_shapes", "test", prepared)
    assert [*source.content()] == [b"tiny_shapes/1.0.0 test"]
    assert sources.fingerprint(source) == sources.fingerprint(source)


@pytest.mark.parametrize(("builder", "split", "num_classes"), BUILDERS)
def test_registered_builders_give_images(
    tmp_path, monkeypatch, builder, split, num_classes
):
    # tfds would encode its invented images with TensorFlow.
    encoder = image_feature._ImageEncoder
    squeezed = lambda self, array: png(array[..., 0] if array.shape[-1] == 1 else array)
    monkeypatch.setattr(encoder, "_encode_image", squeezed)
    # It also refuses the boxes that it invents.
    no_box = lambda self, box: np.zeros(4, np.float32)
    monkeypatch.setattr(tfds.features.BBoxFeature, "encode_example", no_box)
    with tfds.testing.mock_data(num_examples=2):
        source = TfdsImages(builder, split, tmp_path)
        assert len(source) == 2
        for index in range(2):
            image, label = source[index]
            assert image.dtype == np.uint8
            assert image.shape[-1] == 3
            assert 0 <= label < num_classes
        assert source.labels.tolist() == [source[0][1], source[1][1]]
    assert "tensorflow" not in sys.modules


def test_load_takes_a_prepared_set_and_checks_its_size(prepared, monkeypatch):
    table = registry._TABLES["official"]
    small = table["KMNIST"]._replace(
        num_classes=2, test_sizes=(5,), tfds=Tfds("tiny_shapes")
    )
    monkeypatch.setitem(table, "KMNIST", small)
    with_numbers = small._replace(tfds=Tfds("tiny_shapes", numbers=(1, 0)))
    monkeypatch.setitem(table, "KMNIST", with_numbers)
    source = loading.load("kmnist", data_dir=prepared, kind="tfds")
    assert source.classes == ("square", "round")
    assert sorted(sources.labels_of(source)) == [0, 0, 1, 1, 1]
    monkeypatch.setitem(table, "KMNIST", small)
    classes = ("square", "round")
    source = loading.load("kmnist", data_dir=prepared, classes=classes, offline=True)
    assert sorted(sources.labels_of(source)) == [0, 0, 1, 1, 1]
    monkeypatch.setitem(table, "KMNIST", small._replace(test_sizes=(6,)))
    with pytest.raises(ValueError, match="tfds has 5 images, expected 6"):
        loading.load("kmnist", data_dir=prepared, kind="tfds")
    monkeypatch.setitem(table, "KMNIST", small._replace(num_classes=3))
    with pytest.raises(ValueError, match="E305.*2 classes, expected 3"):
        loading.load("kmnist", data_dir=prepared, kind="tfds")


def test_importing_the_data_room_is_light():
    code = (
        "import sys, adarank_jax.data.loading, adarank_jax.data.batches\n"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'pyarrow', 'huggingface_hub',"
        " 'transformers', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stderr

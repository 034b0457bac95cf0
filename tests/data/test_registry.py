import os

import pytest

from adarank_jax import errors
from adarank_jax.data import class_order, prompts, registry, tfds_source
from adarank_jax.data.registry import Hub, Tfds

ALL = [(name, profile) for name in registry.names() for profile in registry.PROFILES]


def test_official_suites_are_those_of_the_paper():
    assert registry.suite(8) == (
        *("Cars", "DTD", "EuroSAT", "GTSRB", "MNIST", "RESISC45", "SUN397", "SVHN"),
    )
    assert registry.suite(14)[8:] == (
        *("CIFAR100", "STL10", "Flowers102", "OxfordIIITPet", "PCAM", "FER2013"),
    )
    assert registry.suite(20)[14:] == (
        *("EMNIST", "CIFAR10", "Food101", "FashionMNIST", "RenderedSST2", "KMNIST"),
    )


@pytest.mark.parametrize("num_tasks", [8, 14, 20])
def test_leagues_merge_the_same_tasks_in_another_order(num_tasks):
    official = registry.suite(num_tasks)
    fusion_bench = registry.suite(num_tasks, "fusion_bench")
    assert sorted(official) == sorted(fusion_bench)
    assert official != fusion_bench


def test_test_sets_have_the_published_sizes():
    sizes = {name: registry.get(name).test_sizes[0] for name in registry.names()}
    assert sum(sizes[name] for name in registry.suite(8)) == 87_433
    assert sum(sizes.values()) == 248_679
    assert registry.get("SUN397").test_sizes == (19_850, 19_887)


@pytest.mark.parametrize(
    ("name", "official", "fusion_bench"),
    [
        ("EMNIST", (10, (40_000,)), (26, (20_800,))),
        ("FER2013", (7, (3_589,)), (7, (7_178,))),
        ("MNIST", (10, (10_000,)), (10, (10_000,))),
    ],
)
def test_leagues_differ_in_emnist_and_fer2013(name, official, fusion_bench):
    for profile, expected in zip(
        registry.PROFILES, (official, fusion_bench), strict=True
    ):
        data = registry.get(name, profile)
        assert (data.num_classes, data.test_sizes) == expected
        assert data.profile == profile


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("stanford-cars", "Cars"), ("stanford_cars", "Cars"), ("cars", "Cars")),
        *(("oxford-iiit-pet", "OxfordIIITPet"), ("oxford_iiit_pet", "OxfordIIITPet")),
        *(("rendered-sst2", "RenderedSST2"), ("emnist_letters", "EMNIST")),
        *(("emnist", "EMNIST"), ("fashion_mnist", "FashionMNIST")),
        *(("oxford_flowers102", "Flowers102"), ("svhn_cropped", "SVHN")),
    ],
)
def test_data_sets_are_found_by_every_name(name, expected):
    assert registry.get(name).name == expected
    assert registry.get(name.upper()).name == expected


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(errors.InputError, match="E314.*did you mean 'SUN397'"):
        registry.get("sun_379")
    with pytest.raises(KeyError, match="official"):
        registry.get("SVHN", "offical")
    with pytest.raises(KeyError, match="official"):
        registry.suite(8, "offical")
    with pytest.raises(ValueError, match=r"\[8, 14, 20\], got 9"):
        registry.suite(9)


@pytest.mark.parametrize(("name", "profile"), ALL)
def test_every_data_set_comes_from_somewhere_or_says_why_not(name, profile):
    data = registry.get(name, profile)
    assert isinstance(data.hub, Hub) or isinstance(data.tfds, Tfds)
    for place in (data.hub, data.tfds):
        assert place
        numbers = None if isinstance(place, str) else place.numbers
        if numbers:
            assert sorted(numbers) == list(range(data.num_classes))


@pytest.mark.parametrize(("name", "profile"), ALL)
def test_tfds_builders_have_the_classes_and_columns(name, profile):
    data = registry.get(name, profile)
    if not isinstance(data.tfds, Tfds):
        assert len(data.tfds) > 10
        return
    os.environ["NO_GCE_CHECK"] = "true"
    import tensorflow_datasets as tfds

    builder = tfds.builder(data.tfds.builder, data_dir="/nowhere", try_gcs=False)
    assert builder.info.features["label"].num_classes == data.num_classes
    assert "image" in builder.info.features
    names = builder.info.features["label"].names
    if name == "Food101":
        numbers = data.tfds.numbers
        assert [names[numbers.index(i)] for i in range(len(names))] == sorted(names)


@pytest.mark.parametrize(("name", "profile"), ALL)
def test_class_names_of_the_heads_agree(name, profile):
    data = registry.get(name, profile)
    head = prompts.class_names(data.key, profile)
    assert len(head) == data.num_classes
    if isinstance(data.tfds, Tfds):
        builder = tfds_source.make_builder(data.tfds.builder, "/nowhere")
        names = tfds_source.class_names(builder)
        numbers = data.tfds.numbers or range(len(names))
        ours = [names[numbers.index(i)] for i in range(len(names))]
        assert class_order.renumbering(ours, head, name) == list(range(len(head)))


def test_size_is_compared_with_the_literature():
    registry.check_size(registry.get("SUN397"), 19_887, "here")
    with pytest.raises(
        ValueError, match=r"E316 .*SVHN.*here has 7 images, expected 26,"
    ):
        registry.check_size(registry.get("SVHN"), 7, "here")
    with pytest.raises(ValueError, match="the `fusion_bench` league; choose"):
        registry.check_size(registry.get("FER2013"), 7_178, "here")

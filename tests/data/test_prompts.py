import pytest

from adarank_jax.data import prompts

# classes (official, fusion_bench) and templates of every data set.
COUNTS = {
    "sun397": (397, 397, 2),
    "cars": (196, 196, 8),
    "resisc45": (45, 45, 18),
    "eurosat": (10, 10, 3),
    "svhn": (10, 10, 1),
    "gtsrb": (43, 43, 3),
    "mnist": (10, 10, 1),
    "dtd": (47, 47, 8),
    "flowers102": (102, 102, 1),
    "pcam": (2, 2, 1),
    "fer2013": (7, 7, 6),
    "oxford_iiit_pet": (37, 37, 1),
    "stl10": (10, 10, 2),
    "cifar100": (100, 100, 18),
    "cifar10": (10, 10, 18),
    "food101": (101, 101, 1),
    "fashion_mnist": (10, 10, 2),
    "emnist": (10, 26, 1),
    "kmnist": (10, 10, 1),
    "rendered_sst2": (2, 2, 1),
}
BOTH = [(d, p) for d in prompts.DATASETS for p in prompts.PROFILES]


def test_every_data_set_is_counted():
    assert set(prompts.DATASETS) == set(COUNTS)
    assert len(prompts.DATASETS) == 20


@pytest.mark.parametrize(("dataset", "profile"), BOTH)
def test_counts_are_those_of_the_data_set(dataset, profile):
    official, fusion_bench, templates = COUNTS[dataset]
    expected = official if profile == "official" else fusion_bench
    assert len(prompts.class_names(dataset, profile)) == expected
    assert len(prompts.templates(dataset, profile)) == templates


@pytest.mark.parametrize(("dataset", "profile"), BOTH)
def test_names_are_unique_and_trimmed(dataset, profile):
    names = prompts.class_names(dataset, profile)
    assert len(set(names)) == len(names)
    assert all(name and name == " ".join(name.split()) for name in names)


@pytest.mark.parametrize(("dataset", "profile"), BOTH)
def test_templates_hold_one_place_for_the_name(dataset, profile):
    templates = prompts.templates(dataset, profile)
    assert len(set(templates)) == len(templates)
    for template in templates:
        assert prompts.fill(template, "#").count("#") == 1
        assert "{" not in prompts.fill(template, "#")


@pytest.mark.parametrize("dataset", prompts.DATASETS)
def test_every_file_says_where_it_comes_from(dataset):
    source = prompts._content(dataset)["source"]
    assert set(source) == set(prompts.PROFILES)
    assert all(len(text) > 20 for text in source.values())


def differences(dataset):
    pairs = zip(
        prompts.class_names(dataset, "official"),
        prompts.class_names(dataset, "fusion_bench"),
        strict=True,
    )
    return {i: pair for i, pair in enumerate(pairs) if pair[0] != pair[1]}


def test_profiles_share_what_is_the_same():
    same = {d for d in set(prompts.DATASETS) - {"emnist"} if not differences(d)}
    assert same == set(prompts.DATASETS) - {
        "cifar100",
        "emnist",
        "fashion_mnist",
        "fer2013",
        "flowers102",
        "food101",
        "kmnist",
        "oxford_iiit_pet",
    }
    for dataset in prompts.DATASETS:
        assert prompts.templates(dataset, "official") == prompts.templates(
            dataset, "fusion_bench"
        )


def test_fer2013_prints_lists_and_has_another_order():
    official = prompts.class_names("fer2013", "official")
    assert official == tuple(
        str(words)
        for words in (
            ["angry"],
            ["disgusted"],
            ["fearful"],
            ["happy", "smiling"],
            ["sad", "depressed"],
            ["surprised", "shocked", "spooked"],
            ["neutral", "bored"],
        )
    )
    assert prompts.fill("they look {}.", official[0]) == "they look ['angry']."
    plain = prompts.class_names("fer2013", "fusion_bench")
    assert plain[3:] == ("happy", "neutral", "sad", "surprised")


def test_pets_keep_underscores_in_one_profile_only():
    pairs = differences("oxford_iiit_pet")
    assert len(pairs) == 37
    assert pairs[1] == ("American Bulldog", "american_bulldog")
    assert all(a == b.replace("_", " ").title() for a, b in pairs.values())


def test_cifar100_misses_a_letter_in_one_profile():
    assert differences("cifar100") == {26: ("crab", "cra")}
    names = prompts.class_names("cifar100")
    assert list(names) == sorted(names)
    assert "aquarium_fish" in names


def test_kmnist_is_romanised_in_one_profile_only():
    assert differences("kmnist")[3] == ("tsu", "つ")
    assert len(differences("kmnist")) == 10


def test_emnist_is_digits_or_letters():
    assert "".join(prompts.class_names("emnist")) == "0123456789"
    letters = "".join(prompts.class_names("emnist", "fusion_bench"))
    assert letters == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert prompts.templates("emnist") == ('a photo of the digit character: "{}".',)


def test_flowers102_differs_in_three_names():
    assert differences("flowers102") == {
        15: ("globe flower", "globe-flower"),
        59: ("pink and yellow dahlia", "pink-yellow dahlia?"),
        92: ("air plant", "ball moss"),
    }


def test_food101_keeps_underscores_in_the_official_profile_only():
    pairs = differences("food101")
    assert pairs[0] == ("apple_pie", "apple pie")
    assert all(a.replace("_", " ") == b for a, b in pairs.values())
    names = prompts.class_names("food101")
    assert list(names) == sorted(names)
    assert names[16:18] == ("cheese_plate", "cheesecake")


def test_fashion_mnist_differs_in_one_name():
    assert differences("fashion_mnist") == {0: ("T-shirt/top", "T - shirt / top")}


@pytest.mark.parametrize(
    ("dataset", "index", "name"),
    [
        ("sun397", 0, "abbey"),
        ("sun397", 206, "jail cell"),
        ("sun397", 207, "jail indoor"),
        ("sun397", 396, "youth hostel"),
        ("cars", 0, "AM General Hummer SUV 2000"),
        ("cars", 173, "Ram C/V Cargo Van Minivan 2012"),
        ("cars", 195, "smart fortwo Convertible 2012"),
        ("resisc45", 35, "sea ice"),
        ("dtd", 7, "cracked"),
        ("gtsrb", 14, "stop"),
        ("gtsrb", 42, "white circle with gray strike bar indicating no passing "
         "for trucks has ended"),
        ("eurosat", 0, "annual crop land"),
        ("eurosat", 9, "lake or sea"),
        ("stl10", 2, "car"),
        ("pcam", 1, "lymph node containing metastatic tumor tissue"),
        ("rendered_sst2", 1, "positive"),
    ],
)  # fmt: skip
def test_names_stand_at_their_label(dataset, index, name):
    for profile in prompts.PROFILES:
        assert prompts.class_names(dataset, profile)[index] == name


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(KeyError, match="'CIFAR-100'; did you mean 'cifar100'"):
        prompts.class_names("CIFAR-100")
    with pytest.raises(KeyError, match="'fusionbench'; did you mean 'fusion_bench'"):
        prompts.templates("dtd", "fusionbench")
    with pytest.raises(KeyError, match="choose from .*sun397"):
        prompts.class_names("zzzzzzzzz")


@pytest.mark.parametrize("template", ["a photo.", "a {} of a {}.", "a {name}."])
def test_fill_refuses_templates_without_one_place(template):
    with pytest.raises(ValueError, match="E318.*expected once"):
        prompts.fill(template, "dog")


def test_fill_leaves_braces_of_a_name_alone():
    assert prompts.fill("a {}.", "{x} {}") == "a {x} {}."

"""The 20 image data sets of the model merging papers: sizes, classes and sources.

Two leagues of checkpoints exist. `official` is that of the AdaRank, TALL-masks and Task
Arithmetic checkpoints, `fusion_bench` that of `tanganke/*` on the Hub. They use the
same names for data sets that differ: EMNIST is digits in one and letters in the other,
FER2013 has another test set and another order of classes.
"""

import difflib
from collections.abc import Sequence
from typing import Literal, NamedTuple

from adarank_jax import errors

Profile = Literal["official", "fusion_bench"]
PROFILES: tuple[Profile, ...] = ("official", "fusion_bench")


class Hub(NamedTuple):
    """A parquet data set on the Hugging Face Hub.

    Attributes:
        repo: ``owner/name``.
        config: of the data set; None if there is one only.
        splits: name of the training and the test split.
        image: names that the column of images may have.
        label: names that the column of class numbers may have.
        revision: branch; ``refs/convert/parquet`` where the data set itself is in
            another format.
        numbers: number in the league of each class of the source; None if equal, or if
            the files name their classes.
        verified: whether rows, columns and files were seen on the data set's page.
    """

    repo: str
    config: str | None = None
    splits: tuple[str, str] = ("train", "test")
    image: tuple[str, ...] = ("image", "img")
    label: tuple[str, ...] = ("label", "labels")
    revision: str | None = None
    numbers: tuple[int, ...] | None = None
    verified: bool = True


class Tfds(NamedTuple):
    """A builder of TensorFlow Datasets.

    Attributes:
        builder: name with its configuration.
        splits: name of the training and the test split.
        numbers: number in the league of each class of the builder; None if equal.
        note: what is known to go wrong while it is prepared.
    """

    builder: str
    splits: tuple[str, str] = ("train", "test")
    numbers: tuple[int, ...] | None = None
    note: str = ""


class DataSet(NamedTuple):
    """One data set of one league.

    Attributes:
        name: of the official code, for example "Cars".
        slug: of FusionBench checkpoints, for example "stanford-cars".
        profile: the league.
        num_classes: number of classes.
        test_sizes: numbers of test images in the literature, the usual one first.
        hub: where the Hub has it, or why it does not.
        tfds: where tfds has it, or why it does not.
    """

    name: str
    slug: str
    profile: str
    num_classes: int
    test_sizes: tuple[int, ...]
    hub: Hub | str
    tfds: Tfds | str

    @property
    def key(self) -> str:
        """Name of files that belong to the data set, for example "oxford_iiit_pet"."""
        return _KEYS.get(self.name, self.name.lower())


def get(name: str, profile: str = "official") -> DataSet:
    """Finds a data set.

    Args:
        name: official name, FusionBench slug or tfds builder; case, hyphens and
            underscores do not matter.
        profile: league of the checkpoints.

    Returns:
        Its row.

    Raises:
        InputError: there is no such data set; the message has the nearest.
        KeyError: there is no such league.

    Examples:
        >>> get("stanford-cars").name
        'Cars'
        >>> get("EMNIST", "fusion_bench").num_classes
        26
    """
    if profile not in PROFILES:
        raise KeyError(f"`profile` must be one of {[*PROFILES]}, got {profile!r}.")
    names = _NAMES
    if _plain(name) not in names:
        near = difflib.get_close_matches(_plain(name), names, 1)
        known = f"known are {', '.join(_TABLES['official'])}"
        raise errors.InputError(
            "E314",
            f"there is no data set {name!r}",
            remedy=f"did you mean {names[near[0]]!r}? All {known}" if near else known,
        )
    return _TABLES[profile][names[_plain(name)]]


def suite(num_tasks: int, profile: str = "official") -> tuple[str, ...]:
    """Lists the tasks of a published suite, in the order of its league.

    Args:
        num_tasks: 8, 14 or 20.
        profile: league of the checkpoints.

    Returns:
        Official names.

    Raises:
        KeyError: there is no such league.
        ValueError: there is no such suite.

    Examples:
        >>> suite(8)[:3]
        ('Cars', 'DTD', 'EuroSAT')
    """
    if profile not in PROFILES:
        raise KeyError(f"`profile` must be one of {[*PROFILES]}, got {profile!r}.")
    if num_tasks not in SUITES:
        raise ValueError(f"`num_tasks` must be one of {[*SUITES]}, got {num_tasks}.")
    return _ORDER[profile][:num_tasks]


def check_size(data: DataSet, found: int, where: str) -> None:
    """Compares the number of test images with that of the literature.

    Args:
        data: the row.
        found: number of test images.
        where: they come from, for the message.

    Raises:
        InputError: another number of images is expected.
    """
    if found in data.test_sizes:
        return
    expected = " or ".join(f"{size:,}" for size in data.test_sizes)
    others = [
        other
        for other in PROFILES
        if found in _TABLES[other][data.name].test_sizes and other != data.profile
    ]
    advice = (
        f"that is the test set of the `{others[0]}` league; choose that profile"
        if others
        else "numbers on another test set cannot be compared with published ones: "
        "check the split, fetch the data set again, or give it as your own data"
    )
    raise errors.InputError(
        "E316",
        f"the test set of {data.name} ({data.profile}) in {where} has {found:,} images",
        expected=expected,
        remedy=advice,
    )


def names() -> Sequence[str]:
    """Returns the official names of all data sets, in the official order."""
    return _ORDER["official"]


def _plain(name):
    """Drops what does not tell two names apart."""
    return name.casefold().replace("-", "").replace("_", "").replace("/", "")


def _same(name, slug, num_classes, test_size, hub, tfds):
    """Makes the row of a data set that both leagues share."""
    sizes = (test_size,) if isinstance(test_size, int) else test_size
    return {
        profile: DataSet(name, slug, profile, num_classes, sizes, hub, tfds)
        for profile in PROFILES
    }


SUITES = (8, 14, 20)
_ORDER = {
    "official": (
        *("Cars", "DTD", "EuroSAT", "GTSRB", "MNIST", "RESISC45", "SUN397", "SVHN"),
        *("CIFAR100", "STL10", "Flowers102", "OxfordIIITPet", "PCAM", "FER2013"),
        *("EMNIST", "CIFAR10", "Food101", "FashionMNIST", "RenderedSST2", "KMNIST"),
    ),
    "fusion_bench": (
        *("SUN397", "Cars", "RESISC45", "EuroSAT", "SVHN", "GTSRB", "MNIST", "DTD"),
        *("Flowers102", "PCAM", "FER2013", "OxfordIIITPet", "STL10", "CIFAR100"),
        *("CIFAR10", "Food101", "FashionMNIST", "EMNIST", "KMNIST", "RenderedSST2"),
    ),
}
_KEYS = {
    "OxfordIIITPet": "oxford_iiit_pet",
    "FashionMNIST": "fashion_mnist",
    "RenderedSST2": "rendered_sst2",
}
_CHEESE = (*range(16), 17, 16, *range(18, 101))
_PARQUET = "refs/convert/parquet"
_NO_SUCH_SPLIT = "tfds has one split only and no list of the published test images"
_ROWS = [
    _same(
        *("Cars", "stanford-cars", 196, 8_041),
        Hub("tanganke/stanford_cars"),
        Tfds("cars196", note="the upstream host has answered 404 since 2023"),
    ),
    _same(
        # The official code reads a hand-made folder of the same size.
        *("DTD", "dtd", 47, 1_880),
        Hub("tanganke/dtd"),
        Tfds("dtd"),
    ),
    _same(
        *("EuroSAT", "eurosat", 10, 2_700),
        # The page was seen, the number of its test rows was not.
        Hub("tanganke/eurosat", verified=False),
        _NO_SUCH_SPLIT,
    ),
    _same(
        *("GTSRB", "gtsrb", 43, 12_630),
        Hub("tanganke/gtsrb"),
        "tfds has only a version scaled to 72 pixels",
    ),
    _same(*("MNIST", "mnist", 10, 10_000), Hub("ylecun/mnist", "mnist"), Tfds("mnist")),
    _same(
        *("RESISC45", "resisc45", 45, 6_300),
        Hub("tanganke/resisc45"),
        _NO_SUCH_SPLIT + "; it asks for a manual download as well",
    ),
    _same(
        # 19,850 is the published partition and that of TALL masks and FusionBench;
        # 19,887 is that of the Task Arithmetic and AdaMerging logs.
        *("SUN397", "sun397", 397, (19_850, 19_887)),
        Hub("tanganke/sun397"),
        "its splits are others than the published ones",
    ),
    _same(
        *("SVHN", "svhn", 10, 26_032),
        Hub("ufldl-stanford/svhn", "cropped_digits"),
        Tfds("svhn_cropped"),
    ),
    _same(
        *("CIFAR100", "cifar100", 100, 10_000),
        # The columns were not seen; its ancestor calls them img and fine_label.
        Hub(
            "tanganke/cifar100",
            label=("fine_label", "label", "labels"),
            verified=False,
        ),
        Tfds("cifar100"),
    ),
    _same(*("STL10", "stl10", 10, 8_000), Hub("tanganke/stl10"), Tfds("stl10")),
    _same(
        *("Flowers102", "oxford_flowers102", 102, 6_149),
        Hub("dpdl-benchmark/oxford_flowers102"),
        Tfds("oxford_flowers102"),
    ),
    _same(
        *("OxfordIIITPet", "oxford-iiit-pet", 37, 3_669),
        Hub("timm/oxford-iiit-pet"),
        Tfds("oxford_iiit_pet"),
    ),
    _same(
        # Labels are booleans on the Hub.
        *("PCAM", "pcam", 2, 32_768),
        Hub("1aurent/PatchCamelyon"),
        Tfds("patch_camelyon"),
    ),
    {
        "official": DataSet(
            *("FER2013", "fer2013", "official", 7, (3_589,)),
            # Classes: angry, disgusted, fearful, happy, sad, surprised, neutral. The
            # converted branch was seen, its columns and class names were not.
            Hub(
                "Jeneral/fer-2013",
                "default",
                revision=_PARQUET,
                image=("image", "img", "img_bytes"),
                verified=False,
            ),
            "tfds does not have it",
        ),
        "fusion_bench": DataSet(
            # Classes: angry, disgusted, fearful, happy, neutral, sad, surprised.
            *("FER2013", "fer2013", "fusion_bench", 7, (7_178,)),
            Hub(
                "clip-benchmark/wds_fer2013",
                "default",
                revision=_PARQUET,
                image=("jpg", "image"),
                label=("cls", "label"),
            ),
            "tfds does not have it",
        ),
    },
    {
        "official": DataSet(
            *("EMNIST", "emnist_letters", "official", 10, (40_000,)),
            "no data set of the digits on the Hub is known to keep the orientation of "
            "the original files, which the checkpoints were trained on",
            Tfds("emnist/digits"),
        ),
        "fusion_bench": DataSet(
            *("EMNIST", "emnist_letters", "fusion_bench", 26, (20_800,)),
            Hub("tanganke/emnist_letters", "emnist-letters"),
            "tfds has 14,800 test letters, which count from 1",
        ),
    },
    _same(
        # The columns were not seen; its ancestor calls them img and label.
        *("CIFAR10", "cifar10", 10, 10_000),
        Hub("tanganke/cifar10", verified=False),
        Tfds("cifar10"),
    ),
    _same(
        # Both sources count cheesecake before cheese plate, the heads of both leagues
        # after it. Whether FusionBench fine-tuned with the two exchanged is not known.
        *("Food101", "food101", 101, 25_250),
        Hub("ethz/food101", splits=("train", "validation"), numbers=_CHEESE),
        Tfds("food101", ("train", "validation"), _CHEESE),
    ),
    _same(
        *("FashionMNIST", "fashion_mnist", 10, 10_000),
        Hub("zalando-datasets/fashion_mnist", "fashion_mnist"),
        Tfds("fashion_mnist"),
    ),
    _same(
        # The rows were seen; the converted branch serves whatever format it is in.
        *("RenderedSST2", "rendered-sst2", 2, 1_821),
        Hub("nateraw/rendered-sst2", "default", revision=_PARQUET, verified=False),
        "tfds does not have it",
    ),
    _same(
        *("KMNIST", "kmnist", 10, 10_000),
        Hub("tanganke/kmnist", "kmnist"),
        Tfds("kmnist"),
    ),
]
_TABLES = {
    profile: {row[profile].name: row[profile] for row in _ROWS} for profile in PROFILES
}
_NAMES = {
    _plain(each): data.name
    for profile in PROFILES
    for data in _TABLES[profile].values()
    for each in (
        *(data.name, data.slug, data.slug.partition("_letters")[0]),
        *((data.tfds.builder,) if isinstance(data.tfds, Tfds) else ()),
    )
} | {"pets": "OxfordIIITPet", "flowers": "Flowers102", "fer": "FER2013"}

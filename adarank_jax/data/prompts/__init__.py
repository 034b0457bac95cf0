"""Class names and prompt templates of the twenty image data sets.

Two code bases fine-tuned the public experts, and they do not always call a class the
same. An encoder was trained against the words of its own code base, so a head comes in
two profiles: `official` (task arithmetic, TALL-masks, AdaRank) and `fusion_bench`. One
JSON file a data set holds both, and says where each list comes from; what a profile
does not hold is the same as in `official`.
"""

import difflib
import functools
import json
from importlib import resources

from adarank_jax import errors

PROFILES = ("official", "fusion_bench")

DATASETS = (
    "sun397",
    "cars",
    "resisc45",
    "eurosat",
    "svhn",
    "gtsrb",
    "mnist",
    "dtd",
    "flowers102",
    "pcam",
    "fer2013",
    "oxford_iiit_pet",
    "stl10",
    "cifar100",
    "cifar10",
    "food101",
    "fashion_mnist",
    "emnist",
    "kmnist",
    "rendered_sst2",
)


def class_names(dataset: str, profile: str = "official") -> tuple[str, ...]:
    """Returns the names of the classes, in the order of the labels.

    Args:
        dataset: one of `DATASETS`.
        profile: one of `PROFILES`.

    Raises:
        KeyError: there is no such data set or profile.

    Examples:
        >>> class_names("eurosat")[5]
        'pasture land'
        >>> class_names("fer2013")[3], class_names("fer2013", "fusion_bench")[3]
        ("['happy', 'smiling']", 'happy')
    """
    return _entry(dataset, profile, "class_names")


def templates(dataset: str, profile: str = "official") -> tuple[str, ...]:
    """Returns the prompt templates; `{}` stands for the name of a class.

    Args:
        dataset: one of `DATASETS`.
        profile: one of `PROFILES`.

    Raises:
        KeyError: there is no such data set or profile.

    Examples:
        >>> templates("mnist")
        ('a photo of the number: "{}".',)
    """
    return _entry(dataset, profile, "templates")


def fill(template: str, name: str) -> str:
    """Puts the name of a class into a template; other braces are left alone.

    Args:
        template: with `{}` exactly once.
        name: of the class.

    Raises:
        UsageError: `{}` is missing, or there more than once.

    Examples:
        >>> fill("a photo of a {}.", "Ram C/V Cargo Van")
        'a photo of a Ram C/V Cargo Van.'
    """
    if template.count("{}") != 1:
        raise errors.UsageError(
            "E318",
            f"the template {template!r} holds {{}} {template.count('{}')} times",
            expected="once",
            remedy="write {} where the name of the class belongs",
        )
    return template.replace("{}", name)


def _entry(dataset, profile, key):
    """Returns a list of one profile, or of `official` where they are the same."""
    _check("data set", dataset, DATASETS)
    _check("profile", profile, PROFILES)
    content = _content(dataset)
    return tuple(content[profile].get(key, content["official"][key]))


def _check(what, name, known):
    """Raises a KeyError that names what comes nearest."""
    if name not in known:
        near = difflib.get_close_matches(str(name).lower(), known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {list(known)}."
        raise KeyError(f"There are no prompts for the {what} {name!r}; {hint}")


@functools.cache
def _content(dataset):
    """Reads the file of one data set."""
    file = resources.files(__name__) / f"{dataset}.json"
    return json.loads(file.read_text(encoding="utf-8"))

"""The tasks of the text demo: where their texts come from and how experts are trained.

Everything here decides texts or weights, and so the names of their folders.
"""

from typing import NamedTuple

from experiments import text_demo_archives as archives
from experiments import text_demo_data as data
from experiments.text_demo_archives import Archive
from experiments.text_training import Recipe


class Task(NamedTuple):
    """Where the texts of a task come from.

    Attributes:
        archive: that carries them.
        wanted: pattern of the files that are read out of it.
        extract: texts and labels out of these files.
        num_train: examples to train on, at most.
        num_test: examples to test on, at most.
        inner: an archive in the archive.
    """

    archive: Archive
    wanted: str
    extract: data.Extract
    num_train: int = 6_000
    num_test: int = 1_200
    inner: str | None = None


SEED = 0
MAX_LENGTH = 32
BUCKETS = (8, 16, 24, 32)

TASKS = {
    "nouns": Task(archives.WORDNET, r".*/(lexnames|data\.noun)", data.noun_topics),
    "verbs": Task(archives.WORDNET, r".*/(lexnames|data\.verb)", data.verb_classes),
    "films": Task(
        archives.SENTIMENT,
        r"movie\w+_GroundTruth\.txt",
        data.film_polarity,
        inner="additional_resources/hutto_ICWSM_2014.tar.gz",
    ),
    "products": Task(
        archives.SENTIMENT,
        r"amazon\w+_GroundTruth\.txt",
        data.product_polarity,
        num_train=2_000,
        num_test=1_000,
        inner="additional_resources/hutto_ICWSM_2014.tar.gz",
    ),
    "languages": Task(archives.DJANGO, r".*\.po", data.languages),
    "services": Task(archives.BOTOCORE, r".*/service-2\.json\.gz", data.services),
    "countries": Task(archives.CITIES, r".*/cities1000\.json", data.countries),
}
"""The tasks of the demo, in the order of every table."""

RECIPES = dict.fromkeys(TASKS, Recipe())
"""How each expert is trained."""

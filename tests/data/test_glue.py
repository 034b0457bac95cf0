import contextlib
import csv
import io
import json
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

os.environ["NO_GCE_CHECK"] = "true"

import tensorflow_datasets as tfds

from adarank_jax import errors
from adarank_jax.data import glue, parquet, text_tfds

SIZES = {
    "cola": 1_043,
    "sst2": 872,
    "mrpc": 408,
    "qqp": 40_430,
    "mnli": 9_815,
    "qnli": 5_463,
    "rte": 277,
}


def table(task, count, labels=None):
    columns = {
        name: [f"{name} {i}" for i in range(count)] for name in glue.get(task).columns
    }
    num_classes = len(glue.get(task).class_names)
    labels = [i % num_classes for i in range(count)] if labels is None else labels
    return columns | {"label": labels, "idx": [*range(count)]}


def write_hub(folder, task, split, count, named=True):
    """Writes a file as the Hub has it, with the class names in its schema."""
    made = pa.table(table(task, count))
    if named:
        label = {"names": [*glue.get(task).class_names], "_type": "ClassLabel"}
        info = {"info": {"features": {"label": label}}}
        made = made.replace_schema_metadata({"huggingface": json.dumps(info)})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{split}-00000-of-00001.parquet"
    pq.write_table(made, path)
    return path


def small(monkeypatch, task, count):
    """Lets the judged split of a task have few examples."""
    row = glue.get(task)
    sizes = {**row.sizes, row.split: count}
    monkeypatch.setitem(glue._TASKS, task, row._replace(sizes=sizes))


def test_the_seven_tasks_have_their_published_sizes():
    assert glue.names() == [*SIZES]
    for name, size in SIZES.items():
        task = glue.get(name)
        assert task.sizes[task.split] == size
        assert task.metric == ("matthews" if name == "cola" else "accuracy")
    assert glue.get("mnli").split == "validation_matched"


@pytest.mark.parametrize("name", SIZES)
def test_tasks_are_those_of_tfds(name):
    with tfds.testing.mock_data(num_examples=3):
        task = glue.get(name)
        made = text_tfds.tfds_source.make_builder(f"glue/{name}")
        assert tuple(made.info.features["label"].names) == task.class_names
        source = text_tfds.open_tfds(f"glue/{name}", task.columns, split=task.split)
        assert len(source) == 3
        (first, second), label = source[1]
        assert isinstance(first, str)
        assert isinstance(second, str) == (len(task.columns) == 2)
        assert 0 <= label < len(task.class_names)
        assert source.class_names == task.class_names
    assert "tensorflow" not in sys.modules


def test_stsb_is_refused_as_regression():
    for name in ("stsb", "STS-B"):
        with pytest.raises(ValueError, match="E308.*STS-B is a regression"):
            glue.get(name)
    with tfds.testing.mock_data(num_examples=3):
        with pytest.raises(errors.InputError, match="E308.*float.*regression"):
            text_tfds.open_tfds("glue/stsb", ("sentence1", "sentence2"))


def test_unknown_tasks_have_the_nearest():
    with pytest.raises(errors.InputError, match="E314.*task 'qnl'.*mean 'qnli'"):
        glue.get("qnl")


class TinyTexts(tfds.core.GeneratorBasedBuilder):
    """Texts that tfds prepares without TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = {}  # nothing is downloaded

    def _info(self):
        features = {
            "sentence": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["no", "yes"]),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples()}

    def _generate_examples(self):
        for i in range(5):
            yield i, {"sentence": f"söme text {i}", "label": -1 if i == 4 else i % 2}


def test_prepared_texts_are_read(tmp_path):
    builder = TinyTexts(data_dir=str(tmp_path), file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    options = {"split": "test", "data_dir": tmp_path}
    source = text_tfds.open_tfds("tiny_texts", "sentence", **options)
    found = {text: label for (text, _), label in (source[i] for i in range(5))}
    labels = [0, 1, 0, 1, -1]
    assert found == {f"söme text {i}": label for i, label in enumerate(labels)}
    assert source.class_names == ("no", "yes")
    with pytest.raises(ValueError, match="E344.*no column 'sentense'.*mean 'sentence'"):
        text_tfds.open_tfds("tiny_texts", "sentense", **options)
    with pytest.raises(ValueError, match=r"E163.*splits \['test'\], expected 'train'"):
        text_tfds.open_tfds("tiny_texts", "sentence", split="train", data_dir=tmp_path)


def test_own_parquet_files_are_found_and_their_size_checked(tmp_path):
    write_hub(tmp_path / "rte", "rte", "validation", 277)
    source = glue.load("RTE", data_dir=tmp_path, offline=True)
    assert source[3] == (("sentence1 3", "sentence2 3"), 1)
    assert source.class_names == ("entailment", "not_entailment")
    write_hub(tmp_path / "rte", "rte", "validation", 276)
    with pytest.raises(
        ValueError, match="E316.*local: it has 276 examples, expected 277"
    ):
        glue.load("rte", data_dir=tmp_path)


def test_mnli_takes_the_matched_split_and_the_other_on_request(tmp_path, monkeypatch):
    small(monkeypatch, "mnli", 6)
    folder = tmp_path / "mnli"
    write_hub(folder, "mnli", "validation_matched", 6)
    write_hub(folder, "mnli", "validation_mismatched", 9_832)
    assert len(glue.load("mnli", data_dir=tmp_path)) == 6
    other = glue.load("mnli", "validation_mismatched", tmp_path)
    assert len(other) == 9_832


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_own_text_files_are_found(tmp_path, monkeypatch, ending):
    small(monkeypatch, "qnli", 4)
    (tmp_path / "qnli").mkdir()
    words = ["entailment", "not_entailment"]
    columns = table("qnli", 4, [words[i % 2] for i in range(4)])
    rows = [*zip(*columns.values(), strict=True)]
    with open(tmp_path / "qnli" / f"validation.{ending}", "w", newline="") as stream:
        if ending == "jsonl":
            for row in rows:
                stream.write(json.dumps(dict(zip(columns, row, strict=True))) + "\n")
        else:
            mark = "," if ending == "csv" else "\t"
            csv.writer(stream, delimiter=mark).writerows([[*columns], *rows])
    source = glue.load("qnli", data_dir=tmp_path, kind="local")
    assert source.labels.tolist() == [0, 1, 0, 1]
    assert source[2][0] == ("question 2", "sentence 2")
    with pytest.raises(
        ValueError, match=r"E351.*name 2 columns, .* got \['sentence'\]"
    ):
        glue.load("qnli", data_dir=tmp_path, columns="sentence")
    swapped = glue.load("qnli", data_dir=tmp_path, columns=("sentence", "question"))
    assert swapped[2][0] == ("sentence 2", "question 2")


def test_quotes_of_a_tsv_are_plain_characters(tmp_path, monkeypatch):
    small(monkeypatch, "sst2", 3)
    (tmp_path / "sst2").mkdir()
    text = 'sentence\tlabel\n"a film\t0\nno end\t0\nof it"\t1\n'
    (tmp_path / "sst2/validation.tsv").write_text(text)
    source = glue.load("sst2", data_dir=tmp_path)
    assert [source[i][0][0] for i in range(3)] == ['"a film', "no end", 'of it"']
    with pytest.raises(ValueError, match="has 1 examples, expected 3"):
        glue.load("sst2", data_dir=tmp_path, quotes=True)
    (tmp_path / "sst2/validation.csv").write_text(text.replace("\t", ","))
    with pytest.raises(ValueError, match="has 1 examples, expected 3"):
        glue.load("sst2", data_dir=tmp_path)
    assert len(glue.load("sst2", data_dir=tmp_path, quotes=False)) == 3


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_folder_of_the_users_without_the_split_ends_the_search(
    tmp_path, monkeypatch, ending
):
    (tmp_path / "cola").mkdir()
    if ending == "csv":
        (tmp_path / "cola/train.csv").write_text("sentence,label\na,0\n")
    else:
        made = pa.table(table("cola", 2, [0, 1]))
        pq.write_table(made, tmp_path / "cola" / "train.parquet")
    asked = []
    monkeypatch.setattr(parquet, "fetch", lambda *args: asked.append(args))
    with pytest.raises((FileNotFoundError, ValueError), match="validation") as error:
        glue.load("cola", data_dir=tmp_path)
    assert str(tmp_path / "cola") in str(error.value)
    assert "hub:" not in str(error.value)
    assert asked == []


@pytest.mark.parametrize("named", [True, False])
def test_labels_are_numbered_as_an_expert_does(tmp_path, monkeypatch, named):
    small(monkeypatch, "mnli", 6)
    write_hub(tmp_path / "mnli", "mnli", "validation_matched", 6, named)
    names = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")
    source = glue.load("mnli", data_dir=tmp_path, class_names=names)
    assert source.labels.tolist() == [2, 1, 0, 2, 1, 0]
    assert source.class_names == names
    generic = glue.load(
        "mnli", data_dir=tmp_path, class_names=[f"LABEL_{i}" for i in range(3)]
    )
    assert generic.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert generic.class_names == glue.get("mnli").class_names
    assert source.warnings == []
    (told,) = generic.warnings
    assert told.code == "W311" and "names no classes" in told.found
    assert "'entailment', 'neutral'" in told.found


def test_hidden_labels_are_none(tmp_path):
    (tmp_path / "sst2").mkdir()
    made = pa.table(table("sst2", 5, [-1] * 5))
    pq.write_table(made, tmp_path / "sst2" / "test.parquet")
    source = glue.load("sst2", "test", tmp_path)
    np.testing.assert_array_equal(source.labels, -1)
    assert source.warnings == []


def test_hub_has_one_folder_a_task(tmp_path, monkeypatch):
    small(monkeypatch, "cola", 7)
    write_hub(tmp_path / "cola", "cola", "validation", 7)
    write_hub(tmp_path / "sst2", "sst2", "validation", 3)
    asked = []

    def fetch(*args):
        asked.append(args)
        return tmp_path

    monkeypatch.setattr(parquet, "fetch", fetch)
    source = glue.load("cola", kind="hub")
    assert len(source) == 7
    assert asked == [("nyu-mll/glue", "validation", "cola", None, False)]
    assert source.name == "`nyu-mll/glue` cola (validation)"
    pattern = "cola/validation-*.parquet"
    assert pattern in parquet.patterns("validation", "cola")


def test_texts_of_any_set_are_prepared_without_tensorflow(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tiny_texts.* --source tfds`\."):
        text_tfds.open_tfds("tiny_texts", "sentence", split="test", data_dir=tmp_path)


def test_missing_task_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)E315.*local: .*tfds: .*hub: "):
        glue.load("cola", data_dir=tmp_path, offline=True)
    command = rf"prepare --dataset glue/cola --data-dir {tmp_path} --source tfds`\."
    with pytest.raises(FileNotFoundError, match=command):
        glue.load("cola", data_dir=tmp_path, kind="tfds")
    with pytest.raises(ValueError, match="`kind` must be"):
        glue.load("cola", kind="disk")
    (tmp_path / "cola").mkdir()
    with pytest.raises(FileNotFoundError, match=r"E163.*holds none of validation\.csv"):
        glue.load("cola", data_dir=tmp_path, kind="local")

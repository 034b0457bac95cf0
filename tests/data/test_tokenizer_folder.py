"""What decides the ids: the files of a tokenizer, and what is loaded from them."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from adarank_jax.data import tokenizer_folder
from adarank_jax.data.texts import Texts
from adarank_jax.data.tokens import load_tokenizer, tokenize
from tests.data import tiny_tokenizers

FAMILIES = ("bert", "roberta", "gpt2")
TEXTS = Texts([["The CAT sat", "an ünbelievable story", "the film was awful; worse"]])


def saved(folder, family):
    """Writes a tokenizer of three files, one of which has all of it."""
    vocabulary = getattr(tiny_tokenizers, family)(folder / "vocabulary")
    load_tokenizer(vocabulary).save_pretrained(folder / "saved")
    tiny_tokenizers.write(folder / "saved/config.json", {"model_type": family})
    return folder / "saved"


def change(file, **values):
    """Changes keys of a file of JSON."""
    tiny_tokenizers.write(file, json.loads(file.read_text()) | values)


def ids(tokenizer):
    return tokenize(TEXTS, tokenizer, 6)[:]["input_ids"].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_files_that_agree_are_loaded(family, tmp_path):
    folder = saved(tmp_path, family)
    tokenizer = load_tokenizer(folder)
    assert ids(tokenizer) == ids(load_tokenizer(tmp_path / "vocabulary"))
    tokenizer_folder.check_same(folder, tokenizer)
    tokenizer_folder.check_same(tmp_path / "vocabulary", tokenizer)


CONTRADICTIONS = (
    # family, file, changes
    ("bert", "tokenizer_config.json", {"do_lower_case": False}),
    ("bert", "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer"}),
    ("bert", "tokenizer.json", {"normalizer": None}),
    ("bert", "tokenizer.json", {"post_processor": None}),
    ("roberta", "tokenizer_config.json", {"add_prefix_space": True}),
    ("gpt2", "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer"}),
    ("gpt2", "tokenizer_config.json", {"add_prefix_space": True}),
)


@pytest.mark.parametrize(("family", "file", "changes"), CONTRADICTIONS)
def test_files_that_contradict_each_other_are_refused(family, file, changes, tmp_path):
    folder = saved(tmp_path, family)
    change(folder / file, **changes)
    with pytest.raises(ValueError, match=r"E347.*contradict each other: .* the ids \["):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("tokenizer_config.json", {"model_max_length": 7, "clean_up": True}),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ("tokenizer_config.json", {"tokenizer_class": "BertTokenizerFast"}),
        ("tokenizer.json", {"truncation": None, "padding": None}),
        ("tokenizer.json", {"decoder": None}),
    ],
)
def test_what_changes_no_id_is_silent(file, changes, tmp_path):
    folder = saved(tmp_path, "bert")
    before = load_tokenizer(folder)
    change(folder / file, **changes)
    assert ids(load_tokenizer(folder)) == ids(before)
    tokenizer_folder.check_same(folder, before)


def lower(value):
    return {"do_lower_case": value}


def test_an_expert_with_other_ids_is_refused(tmp_path):
    base = load_tokenizer(tiny_tokenizers.bert(tmp_path / "base"))
    expert = shutil.copytree(tmp_path / "base", tmp_path / "expert")
    tiny_tokenizers.write(expert / "tokenizer_config.json", lower(True))
    tokenizer_folder.check_same(expert, base)
    tiny_tokenizers.write(expert / "tokenizer_config.json", lower(False))
    assert ids(load_tokenizer(expert)) != ids(base)
    with pytest.raises(
        ValueError, match=r"E340.*expert`: .*not that of the base: 'Hello"
    ):
        tokenizer_folder.check_same(expert, base)


def test_an_expert_that_cuts_on_the_other_side_is_refused(tmp_path):
    base = load_tokenizer(tiny_tokenizers.bert(tmp_path / "base"))
    expert = shutil.copytree(tmp_path / "base", tmp_path / "expert")
    tiny_tokenizers.write(expert / "tokenizer_config.json", {"truncation_side": "left"})
    assert ids(load_tokenizer(expert)) != ids(base)
    with pytest.raises(ValueError, match="E340.*on the left, there on the right"):
        tokenizer_folder.check_same(expert, base)


def test_bare_vocabularies_and_tokenizers_without_padding_are_no_fault(tmp_path):
    base = load_tokenizer(saved(tmp_path, "bert"))
    expert = tiny_tokenizers.bert(tmp_path / "expert", config=False)
    tokenizer_folder.check_same(expert, base)
    (tmp_path / "saved/tokenizer_config.json").unlink()
    (tmp_path / "saved/config.json").unlink()
    tokenizer_folder.check_same(tmp_path / "saved", base)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("kind", ["T5Tokenizer", "os.system", 7])
def test_other_classes_are_refused_by_name(kind, file, tmp_path):
    folder = tiny_tokenizers.bert(tmp_path)
    values = {"model_type": "bert", "tokenizer_class": kind}
    tiny_tokenizers.write(folder / file, values)
    with pytest.raises(
        ValueError, match=f"E347 .*{file}`: it names the `tokenizer_class` {kind!r}"
    ):
        load_tokenizer(folder)


def test_a_class_that_does_not_read_the_vocabulary_is_refused(tmp_path):
    folder = tiny_tokenizers.bert(tmp_path)
    values = {"tokenizer_class": "RobertaTokenizer"}
    tiny_tokenizers.write(folder / "tokenizer_config.json", values)
    with pytest.raises(
        ValueError, match=r"E347.*lacks \d+ of the .* of `.*vocab\.txt`"
    ):
        load_tokenizer(folder)


@pytest.mark.parametrize("given", [None, "info"])
def test_the_environment_stays_as_it_is(given, tmp_path):
    folder = tiny_tokenizers.bert(tmp_path)
    code = (
        "import os, sys\n"
        "from adarank_jax.data.tokens import load_tokenizer\n"
        f"load_tokenizer({str(folder)!r})\n"
        "assert 'transformers' in sys.modules\n"
        "print(os.environ.get('TRANSFORMERS_VERBOSITY'))"
    )
    others = {k: v for k, v in os.environ.items() if k != "TRANSFORMERS_VERBOSITY"}
    given_too = {} if given is None else {"TRANSFORMERS_VERBOSITY": given}
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=others | given_too,
    )
    assert shown.stdout.strip() == str(given), shown.stderr
    assert ("PyTorch was not found" in shown.stderr) == (given == "info")

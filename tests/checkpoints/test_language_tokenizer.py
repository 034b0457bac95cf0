import json
import shutil

import pytest

from adarank_jax.checkpoints import language
from adarank_jax.checkpoints.language_tokenizer import check_tokenizer, read_tokenizer
from adarank_jax.data.tokens import load_tokenizer
from tests import language_family
from tests.checkpoints import tiny_language
from tests.checkpoints.tiny_language import BARE, SPECIAL, WORDS, write_tokenizer


def base_of(folder, family, **options):
    path = tiny_language.write(folder, BARE[family], **options)
    return language.read_language(path)


@pytest.mark.parametrize("family", BARE)
def test_the_own_tokenizer_fits(family, tmp_path):
    base = base_of(tmp_path / "base", family)
    assert check_tokenizer(base, base.folder) == []
    write_tokenizer(tmp_path / "expert", family)
    assert check_tokenizer(base, tmp_path / "expert") == []


def files(folder):
    read = read_tokenizer(folder)
    return read.ids, read.special


@pytest.mark.parametrize("family", BARE)
def test_old_files_say_the_same(family, tmp_path):
    base = base_of(tmp_path / "base", family)
    old = tmp_path / "old"
    old.mkdir()
    words = WORDS[family]
    if family == "bert":
        (old / "vocab.txt").write_text("\n".join(words) + "\n")
    else:
        ids = {word: i for i, word in enumerate(words[:-1])}
        (old / "vocab.json").write_text(json.dumps(ids))
        (old / "added_tokens.json").write_text(json.dumps({words[-1]: len(ids)}))
    named = {role: {"content": token} for role, token in SPECIAL[family].items()}
    (old / "special_tokens_map.json").write_text(json.dumps(named))
    assert files(old) == files(base.folder)
    assert check_tokenizer(base, old) == []


def test_merges_are_read_in_both_spellings(tmp_path):
    ids = {word: i for i, word in enumerate(WORDS["gpt2"])}
    pairs = [["w", "1"], ["Ġ", "w2"]]
    read = []
    for name, merges in (("old", [" ".join(p) for p in pairs]), ("new", pairs)):
        model = {"type": "BPE", "vocab": ids, "merges": merges}
        write_tokenizer(tmp_path / name, "gpt2", model=model)
        read.append(read_tokenizer(tmp_path / name).merges)
    files = tmp_path / "files"
    files.mkdir()
    (files / "vocab.json").write_text(json.dumps(ids))
    (files / "merges.txt").write_text("#version: 0.2\nw 1\nĠ w2\n", encoding="utf-8")
    read.append(read_tokenizer(files).merges)
    assert read == [[("w", "1"), ("Ġ", "w2")]] * 3


def test_truncation_and_padding_are_not_the_models(tmp_path):
    base = base_of(tmp_path / "base", "bert")
    parts = {"truncation": {"max_length": 128}, "padding": {"strategy": "BatchLongest"}}
    write_tokenizer(tmp_path / "expert", "bert", **parts)
    ours, theirs = (read_tokenizer(p) for p in (base.folder, tmp_path / "expert"))
    assert ours.sha256 != theirs.sha256
    assert check_tokenizer(base, tmp_path / "expert") == []


def test_other_ways_of_cutting_are_told(tmp_path):
    base = base_of(tmp_path / "base", "bert")
    cased = {"normalizer": {"type": "BertNormalizer", "lowercase": False}}
    write_tokenizer(tmp_path / "expert", "bert", **cased)
    (warning,) = check_tokenizer(base, tmp_path / "expert")
    assert "differs in normalizer" in str(warning)
    assert base.source in str(warning)


@pytest.mark.parametrize(
    ("key", "own", "other"),
    [
        ("tokenizer_class", "BertTokenizer", "RobertaTokenizer"),
        ("do_lower_case", True, False),
        ("truncation_side", "right", "left"),
        ("add_prefix_space", False, True),
        ("add_bos_token", False, True),
    ],
)
def test_other_settings_are_told_of_the_same_tokenizer_json(key, own, other, tmp_path):
    base = base_of(tmp_path / "base", "bert")
    write_tokenizer(tmp_path / "expert", "bert")
    for folder, value in ((base.folder, own), (tmp_path / "expert", other)):
        settings = SPECIAL["bert"] | {key: value}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (warning,) = check_tokenizer(base, tmp_path / "expert")
    assert f"differs in {key}" in str(warning)


def test_special_tokens_are_compared_of_the_same_tokenizer_json(tmp_path):
    base = base_of(tmp_path / "base", "bert")
    write_tokenizer(tmp_path / "expert", "bert")
    special = SPECIAL["bert"] | {"mask_token": "w1", "eos_token": "w2"}
    (tmp_path / "expert/tokenizer_config.json").write_text(json.dumps(special))
    (base.folder / "tokenizer_config.json").write_text(
        json.dumps(special | {"eos_token": "w3"})
    )
    assert "eos token is 'w2', that of the base 'w3'" in refused(
        base, tmp_path / "expert"
    )


def refused(base, folder):
    with pytest.raises(ValueError, match="is not that of") as error:
        check_tokenizer(base, folder)
    assert str(folder) in str(error.value)
    assert "the tokenizer that the model was trained with" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("family", "other", "parts"),
    [
        ("roberta", "gpt2", ("bos token '<|endoftext|>' has the id 19", "states 0")),
        ("gpt2", "roberta", ("bos token '<s>' has the id 0", "states 19")),
        ("bert", "roberta", ("pad token '<pad>' has the id 1", "states 0")),
    ],
)
def test_the_tokenizer_of_another_model_is_refused(family, other, parts, tmp_path):
    base = base_of(tmp_path / "base", family)
    write_tokenizer(tmp_path / "expert", other)
    text = refused(base, tmp_path / "expert")
    for part in (*parts, "tokens have other ids than in the base"):
        assert part in text


def test_ids_beyond_the_embeddings_are_refused(tmp_path):
    base = base_of(tmp_path / "base", "bert")
    write_tokenizer(tmp_path / "expert", "bert", [*WORDS["bert"], "new", "newer"])
    text = refused(base, tmp_path / "expert")
    assert "2 of its 22 tokens have no row in the embeddings, which have 20" in text
    assert "'new' (20), 'newer' (21)" in text
    assert "2 tokens have other ids than in the base" in text


def test_fewer_tokens_than_rows_are_no_fault_of_a_base(tmp_path):
    base = base_of(tmp_path / "base", "bert")
    write_tokenizer(base.folder, "bert", WORDS["bert"][:15])
    assert check_tokenizer(base, base.folder) == []


def test_shuffled_words_are_refused(tmp_path):
    base = base_of(tmp_path / "base", "bert")
    words = [*WORDS["bert"][:4], *reversed(WORDS["bert"][4:])]
    write_tokenizer(tmp_path / "expert", "bert", words)
    assert "16 tokens have other ids" in refused(base, tmp_path / "expert")


def test_other_merges_of_the_same_tokens_are_refused(tmp_path):
    ids = {word: i for i, word in enumerate(WORDS["gpt2"])}
    base = base_of(tmp_path / "base", "gpt2")
    for folder, merges in ((base.folder, ["w 1", "w 2"]), (tmp_path / "e", ["w 2"])):
        model = {"type": "BPE", "vocab": ids, "merges": merges}
        write_tokenizer(folder, "gpt2", model=model)
    assert "but its merges are not" in refused(base, tmp_path / "e")


def test_special_tokens_are_compared_with_the_configuration(tmp_path):
    base = base_of(tmp_path / "base", "bert")
    special = SPECIAL["bert"] | {"pad_token": "[UNK]", "sep_token": "[END]"}
    write_tokenizer(tmp_path / "expert", "bert", special=special)
    text = refused(base, tmp_path / "expert")
    assert "pad token '[UNK]' has the id 1, but `" in text
    assert "config.json` states 0" in text
    assert "sep token '[END]' is not in its vocabulary" in text
    assert "sep token is '[END]', that of the base '[SEP]'" in text


def test_the_configuration_of_the_expert_counts_too(tmp_path):
    base = base_of(tmp_path / "base", "bert")
    folder = tmp_path / "expert"
    tiny_language.write(folder, "BertModel", changes={"pad_token_id": 3})
    text = refused(base, folder)
    assert f"`{folder / 'config.json'}` states 3" in text


def test_a_family_has_its_usual_special_tokens(tmp_path):
    base = base_of(tmp_path / "base", "roberta")
    for place in (base.folder, tmp_path / "expert"):
        write_tokenizer(place, "roberta", WORDS["gpt2"], special={})
    text = refused(base, base.folder)
    assert "bos token '<s>' is not in its vocabulary" in text
    write_tokenizer(base.folder, "roberta", special={})
    assert check_tokenizer(base, base.folder) == []


def test_a_pad_token_that_only_the_expert_names_is_no_fault(tmp_path):
    base = base_of(tmp_path / "base", "gpt2")
    special = SPECIAL["gpt2"] | {"pad_token": "<|endoftext|>"}
    write_tokenizer(tmp_path / "expert", "gpt2", special=special)
    assert check_tokenizer(base, tmp_path / "expert") == []


def test_a_base_without_a_tokenizer_checks_what_it_can(tmp_path):
    base = base_of(tmp_path / "base", "roberta", tokenizer=False)
    write_tokenizer(tmp_path / "expert", "roberta")
    assert check_tokenizer(base, tmp_path / "expert") == []
    write_tokenizer(tmp_path / "expert", "gpt2")
    assert "bos token" in refused(base, tmp_path / "expert")
    with pytest.raises(FileNotFoundError, match=r"no tokenizer \(tokenizer\.json"):
        check_tokenizer(base, base.folder)


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("tokenizer.json", b"{", "no valid JSON"),
        ("tokenizer.json", b"{}", "no vocabulary in 'model'"),
        ("tokenizer.json", b"[]", "must be a JSON object"),
        ("tokenizer.json", b'{"model": {"vocab": 3}}', "no vocabulary in 'model'"),
        ("tokenizer.json", b'{"model": {}}', "no vocabulary in 'model'"),
        ("tokenizer.json", b'{"model": {"vocab": {}}}', "vocabulary is empty"),
        ("tokenizer.json", b'{"model": {"vocab": {"a": "0"}}}', "no number for ['a']"),
        ("tokenizer.json", b'{"model": {"vocab": {"a": -1}}}', "no number for ['a']"),
        ("tokenizer.json", b'{"model": {"vocab": {"a": 0}, "merges": 4}}', "merges"),
        ("tokenizer.json", b'{"model": {"vocab": {"a": 0}, "merges": [4]}}', "merges"),
        (
            "tokenizer.json",
            b'{"model": {"vocab": {"a": 0}}, "added_tokens": [{"content": "b"}]}',
            "no number for ['b']",
        ),
        ("vocab.json", b'{"a": null}', "no number for ['a']"),
        ("vocab.txt", b"\xff\xfe\n", "no UTF-8 text"),
        ("vocab.txt", b"", "vocabulary is empty"),
    ],
)
def test_damaged_files_are_told(name, content, part, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_tokenizer(tmp_path)
    assert part in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_scores_of_a_unigram_model_are_no_ids(tmp_path):
    model = {"type": "Unigram", "vocab": [["<s>", 0.0], ["<pad>", -1.5], ["a", -2]]}
    special = {"pad_token": "<pad>"}
    write_tokenizer(tmp_path, "roberta", ["<s>", "<pad>", "a"], special, model=model)
    assert read_tokenizer(tmp_path).ids == {"<s>": 0, "<pad>": 1, "a": 2}


def test_a_warning_is_given_where_ids_change_and_only_there(tmp_path):
    language_family.write_base(tmp_path / "base", "bert")
    base = language.read_language(str(tmp_path / "base"))
    own = load_tokenizer(base.folder)
    expert = shutil.copytree(base.folder, tmp_path / "expert")
    for values, changes in (({}, False), ({"do_lower_case": False}, True)):
        text = json.dumps({"do_lower_case": True})
        (base.folder / "tokenizer_config.json").write_text(text)
        text = json.dumps({"do_lower_case": True} | values)
        (expert / "tokenizer_config.json").write_text(text)
        ids = [t("The CAT").input_ids for t in (own, load_tokenizer(expert))]
        assert (ids[0] != ids[1]) == changes
        assert bool(check_tokenizer(base, expert)) == changes

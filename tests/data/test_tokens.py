import random
import shutil
import subprocess
import sys

import numpy as np
import pytest

from adarank_jax.data import sources, tokens
from adarank_jax.data.texts import Texts
from adarank_jax.data.tokens import Tokens, bucket_lengths, load_tokenizer, tokenize
from tests.data import tiny_tokenizers

FAMILIES = ("bert", "roberta", "gpt2")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizers")
    makers = {name: getattr(tiny_tokenizers, name) for name in FAMILIES}
    return {name: load_tokenizer(make(root / name)) for name, make in makers.items()}


def draw(seed, count, is_pair, most=30):
    rng = random.Random(seed)

    def text():
        return " ".join(rng.choices(tiny_tokenizers.WORDS, k=rng.randrange(most)))

    pairs = [(text(), text() if is_pair else None) for _ in range(count)]
    return [(pair, -1) for pair in pairs]


def expected(tokenizer, source, max_length):
    """What `transformers` itself gives; an empty GPT-2 text is told apart here."""
    firsts, seconds = zip(*[pair for pair, _ in source], strict=True)
    found = tokenizer(
        list(firsts),
        list(seconds) if seconds[0] is not None else None,
        truncation=True,
        max_length=max_length,
        padding="max_length",
        return_tensors="np",
    )
    mask = found["attention_mask"]
    mask[mask.sum(axis=1) == 0, 0] = 1
    types = found.get("token_type_ids", np.zeros_like(mask))
    return dict(found) | {"attention_mask": mask, "token_type_ids": types}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("is_pair", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_transformers(loaded, family, is_pair, side, monkeypatch):
    tokenizer = loaded[family]
    monkeypatch.setattr(tokenizer, "truncation_side", side)
    source = draw(0, 120, is_pair)
    for max_length in (6, 7, 8, 17, 48, 200):
        found = tokenize(source, tokenizer, max_length)
        theirs = expected(tokenizer, source, max_length)
        assert set(found[:]) == set(theirs)
        for name, array in found[:].items():
            np.testing.assert_array_equal(array, theirs[name], err_msg=name)
            assert array.dtype == np.int32
            assert array.shape == (120, max_length)
        np.testing.assert_array_equal(found.lengths, theirs["attention_mask"].sum(1))
        long = expected(tokenizer, source, 1000)["attention_mask"].sum(axis=1)
        assert found.num_truncated == (long > max_length).sum()
        assert found.num_truncated > 0 or max_length >= 48


@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_is_without_a_token(loaded, family):
    source = Texts([["", "the cat", " "]])
    found = tokenize(source, loaded[family], 8)
    assert found.lengths.min() >= 1
    assert found[:]["attention_mask"][:, 0].all()
    assert found.num_empty >= 1
    added = loaded[family].num_special_tokens_to_add(False)
    assert found.lengths[0] == max(added, 1)
    assert found[0]["input_ids"][0] in loaded[family].all_special_ids


def test_gpt2_pads_with_its_end_and_the_mask_tells(loaded):
    tokenizer = loaded["gpt2"]
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    row = tokenize(Texts([["the cat"]]), tokenizer, 12)[0]
    count = row["attention_mask"].sum()
    assert 0 < count < 12
    assert (row["input_ids"][count:] == tokenizer.eos_token_id).all()
    assert (row["input_ids"][:count] != tokenizer.eos_token_id).all()


def test_bert_tells_the_second_text_by_its_type_and_roberta_does_not(loaded):
    source = Texts([["the cat", "a mat"], ["a story", "the film was awful"]])
    for family, highest in (("bert", 1), ("roberta", 0), ("gpt2", 0)):
        found = tokenize(source, loaded[family], 30)[:]
        assert found["token_type_ids"].max() == highest
        assert (found["token_type_ids"] <= found["attention_mask"]).all()


def test_padding_on_the_left_is_put_on_the_right(tmp_path):
    folder = tiny_tokenizers.bert(tmp_path)
    config = {"tokenizer_class": "BertTokenizer", "padding_side": "left"}
    tiny_tokenizers.write(folder / "tokenizer_config.json", config)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.padding_side == "right"
    assert tokenize(Texts([["the cat"]]), tokenizer, 9)[0]["attention_mask"][0] == 1


def test_long_chunks_do_not_change_the_tokens(loaded, monkeypatch):
    source = draw(3, 50, True)
    whole = tokenize(source, loaded["bert"], 20)
    for name, value in (("_CHUNK_TEXTS", 7), ("_CHUNK_LETTERS", 100)):
        monkeypatch.setattr(tokens, name, value)
        parts = tokenize(source, loaded["bert"], 20)
        assert [*map(bytes, parts.content())] == [*map(bytes, whole.content())]


def test_ids_are_kept_in_16_bits_and_wider_where_they_must(loaded):
    found = tokenize(Texts([["the cat"]]), loaded["bert"], 9)
    assert found._ids.dtype == np.uint16

    class Wide:
        def __init__(self, tokenizer):
            self._tokenizer = tokenizer

        def __getattr__(self, name):
            return getattr(self._tokenizer, name)

        def __call__(self, *args, **options):
            found = self._tokenizer(*args, **options)
            return Encodings([Encoding(e.ids) for e in found.encodings])

    wide = tokenize(Texts([["the cat"]]), Wide(loaded["bert"]), 9)
    np.testing.assert_array_equal(
        wide[0]["input_ids"][:2], found[0]["input_ids"][:2] + 2**16
    )


class Encodings:
    def __init__(self, encodings):
        self.encodings = encodings


class Encoding:
    def __init__(self, ids):
        self.ids = [each + 2**16 for each in ids]
        self.type_ids = [0] * len(ids)


def test_ids_without_a_row_are_refused_with_text_and_id(loaded, monkeypatch):
    tokenizer = loaded["bert"]
    ids = tokenizer(["the", "cat"], add_special_tokens=False)["input_ids"]
    highest = max(map(max, ids))
    source = Texts([["the"] * 9 + ["the cat"] + ["the"]], name="`x.csv`")
    monkeypatch.setattr(tokens, "_CHUNK_TEXTS", 4)
    only = max(ids[0])
    if only >= highest:
        source = Texts([["cat"] * 9 + ["the cat"] + ["cat"]], name="`x.csv`")
    with pytest.raises(
        ValueError,
        match=rf"E341 text 9 of `x.csv`: it has the token id {highest}.* {highest}, ",
    ):
        tokenize(source, tokenizer, 16, vocabulary_size=highest)
    tokenize(source, tokenizer, 16, vocabulary_size=highest + 1)


def test_types_without_a_row_are_refused(loaded):
    source = Texts([["the", "a"], ["cat", "mat"]])
    with pytest.raises(
        ValueError, match=r"E341 text 0 .*token type 1, but the model has 1"
    ):
        tokenize(source, loaded["bert"], 16, num_token_types=1)
    tokenize(source, loaded["bert"], 16, num_token_types=2)
    tokenize(source, loaded["roberta"], 16, num_token_types=1)


@pytest.mark.parametrize(
    ("family", "max_length", "message"),
    [
        ("bert", 513, "E349.*at most 512, .* got 513"),
        ("bert", 2, "at least 3, of which the tokenizer adds 2, got 2"),
        ("gpt2", 0, "at least 1"),
    ],
)
def test_bad_lengths_are_refused(loaded, family, max_length, message):
    with pytest.raises(ValueError, match=message):
        tokenize(Texts([["the"]]), loaded[family], max_length, max_positions=512)


def test_pairs_and_single_texts_do_not_mix(loaded):
    source = [(("the", None), 0), (("the", "cat"), 0)]
    with pytest.raises(ValueError, match="pairs of texts and some are single"):
        tokenize(source, loaded["bert"], 16)


def test_tokens_are_indexed_like_an_array(loaded):
    found = tokenize(draw(5, 9, False), loaded["bert"], 16)
    whole = found[:]
    for index in (0, -1, slice(2, 5), [3, 0, 3], np.array([8, 1]), np.int64(4)):
        for name, array in found[index].items():
            np.testing.assert_array_equal(array, whole[name][index])
    with pytest.raises(IndexError):
        found[9]
    assert len(found) == 9


@pytest.mark.parametrize("lengths", [[2, 2], [3, 0], [0, 3]])
def test_tokens_refuse_lengths_that_do_not_fit(lengths):
    ids = np.zeros(3, np.uint16)
    with pytest.raises(ValueError, match="`lengths` must"):
        Tokens(ids, ids, np.array(lengths), 3, 0)


def test_fingerprint_of_tokens_changes_with_the_tokenizer(loaded):
    source = Texts([["the cat", "a mat"]])
    digests = {
        sources.fingerprint(tokenize(source, loaded[family], length))
        for family in FAMILIES
        for length in (8, 9)
    }
    assert len(digests) == 6


@pytest.mark.parametrize(
    ("lengths", "width"), [([1, 3], 4), ([4, 4], 4), ([5], 8), ([9, 1], 12), ([0], 4)]
)
def test_trim_cuts_to_the_smallest_bucket(lengths, width):
    mask = (np.arange(12) < np.array(lengths)[:, None]).astype(np.int32)
    ids = np.arange(mask.size).reshape(mask.shape)
    for lead in ((), (1,), (1, 1)):
        inputs = {"input_ids": ids, "attention_mask": mask}
        inputs = {
            name: leaf.reshape(*lead, *mask.shape) for name, leaf in inputs.items()
        }
        found = tokens.trim(inputs, (8, 4))
        for name, leaf in found.items():
            np.testing.assert_array_equal(leaf, inputs[name][..., :width])


def test_buckets_end_with_the_largest_length():
    assert bucket_lengths(128) == (32, 64, 128)
    assert bucket_lengths(512) == (32, 64, 128, 256, 512)
    assert bucket_lengths(20) == (20,)
    assert bucket_lengths(50, (48, 16, 48, 90)) == (16, 48, 50)
    for bad in ((0, ()), (8, (0, 4))):
        with pytest.raises(ValueError, match="at least 1"):
            bucket_lengths(*bad)


def test_folder_with_tokenizer_json_gives_the_same_ids(tmp_path, loaded):
    source = draw(2, 30, True)
    for family in FAMILIES:
        loaded[family].save_pretrained(tmp_path / family)
        assert not (tmp_path / family / "vocab.txt").exists()
        again = tokenize(source, load_tokenizer(tmp_path / family), 16)
        before = tokenize(source, loaded[family], 16)
        assert [*map(bytes, again.content())] == [*map(bytes, before.content())]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("all", "no such folder"),
        (
            "merges.txt",
            r"E346.*it holds 'config.json', 'vocab.*`vocab.json` and `merges.txt`",
        ),
        ("config.json", "E347.*cannot be read.*`config.json`"),
    ],
)
def test_folders_without_a_tokenizer_are_refused(tmp_path, missing, message):
    folder = tiny_tokenizers.gpt2(tmp_path / "gpt2")
    if missing == "all":
        shutil.rmtree(folder)
    else:
        (folder / missing).unlink()
    error = ValueError if missing == "config.json" else FileNotFoundError
    with pytest.raises(error, match=message):
        load_tokenizer(folder)


@pytest.mark.parametrize("text", ["", "{", '{"version": "1.0"}', "[]"])
def test_damaged_tokenizer_is_refused(tmp_path, text):
    folder = tiny_tokenizers.bert(tmp_path)
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ValueError, match=r"E347.*cannot be read.*fetch it again"):
        load_tokenizer(folder)


def test_tokenizer_without_padding_and_end_is_refused(tmp_path, loaded):
    loaded["bert"].save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match="E348.*neither a padding nor an end token"):
        load_tokenizer(tmp_path)


def test_code_beside_a_tokenizer_is_never_run(tmp_path):
    folder = tiny_tokenizers.bert(tmp_path / "evil")
    mark = tmp_path / "mark"
    (folder / "evil.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nclass Tok: ...\n"
    )
    auto = {"auto_map": {"AutoTokenizer": ["evil.Tok", "evil.Tok"]}}
    config = {"tokenizer_class": "Tok"} | auto
    tiny_tokenizers.write(folder / "tokenizer_config.json", config)
    tiny_tokenizers.write(folder / "config.json", {"model_type": "evil"} | auto)
    with pytest.raises(ValueError, match="names the `tokenizer_class` 'Tok'"):
        load_tokenizer(folder)
    tiny_tokenizers.write(folder / "tokenizer_config.json", auto)
    with pytest.raises(ValueError, match="cannot be read"):
        load_tokenizer(folder)
    assert not mark.exists()


def test_importing_the_rooms_of_text_is_light():
    code = (
        "import sys, adarank_jax.data.tokens, adarank_jax.data.texts,"
        " adarank_jax.data.glue, adarank_jax.adaptation.metrics\n"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'pyarrow', 'huggingface_hub',"
        " 'transformers', 'tokenizers', 'torch', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stderr

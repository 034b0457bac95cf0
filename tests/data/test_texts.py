import csv
import gzip
import json
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adarank_jax import errors
from adarank_jax.data import sources, texts
from adarank_jax.data.texts import Texts, TextSource, open_csv, open_jsonl, open_parquet

ROWS = [
    ("the cat, it sat", "a mat", 1),
    ('she said "no"\nand left', "söme ünï 猫", 0),
    ("", " ", 1),
]
NAMES = ("first", "second", "label")


def write_csv(path, rows=ROWS, names=NAMES, **options):
    with open(path, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, **options).writerows([names, *rows])
    return path


def write_jsonl(path, rows=ROWS, names=NAMES):
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_parquet(path, rows=ROWS, names=NAMES):
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), path)
    return path


def lines(tmp_path, text, ending="csv"):
    path = tmp_path / f"x.{ending}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


KINDS = {
    "csv": (open_csv, write_csv),
    "tsv": (open_csv, lambda path: write_csv(path, delimiter="\t")),
    "jsonl": (open_jsonl, write_jsonl),
    "parquet": (open_parquet, write_parquet),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_texts(tmp_path, kind):
    opener, write = KINDS[kind]
    source = opener(write(tmp_path / f"x.{kind}"), NAMES[:2])
    assert isinstance(source, TextSource)
    assert [source[i] for i in range(len(source))] == [((a, b), c) for a, b, c in ROWS]
    assert source.labels.dtype == np.int32
    assert source.is_pair
    assert source.class_names is None
    single = opener(tmp_path / f"x.{kind}", "second")
    assert single[1] == (("söme ünï 猫", None), 0)
    assert not single.is_pair


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprint_is_that_of_the_content(tmp_path, kind):
    opener, write = KINDS[kind]
    source = opener(write(tmp_path / f"x.{kind}"), NAMES[:2])
    memory = Texts([[r[0] for r in ROWS], [r[1] for r in ROWS]], [1, 0, 1])
    assert sources.fingerprint(source) == sources.fingerprint(memory)


def test_fingerprint_changes_with_texts_labels_and_classes():
    base = (["ab", "c"],), [0, 1], None
    others = [
        ((["a", "bc"],), [0, 1], None),
        ((["c", "ab"],), [0, 1], None),
        ((["ab", "c"],), [1, 0], None),
        ((["ab", "c"],), [0, 1], ("x", "y")),
        ((["ab"], ["c"]), [0], None),
        ((["ab", "c"],), None, None),
    ]
    digests = [sources.fingerprint(Texts(*each)) for each in (base, *others)]
    assert len({*digests}) == len(digests)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_columns_are_listed_with_the_nearest(tmp_path, kind):
    opener, write = KINDS[kind]
    path = write(tmp_path / f"x.{kind}")
    with pytest.raises(
        ValueError, match=r"E344.*no column 'secnd'; it has 'first', 'second', 'label';"
        " did you mean 'second'"
    ):  # fmt: skip
        opener(path, ["first", "secnd"])
    with pytest.raises(ValueError, match=r"E344.*no column 'lable'.*mean 'label'"):
        opener(path, "first", "lable")
    with pytest.raises(ValueError, match="E351.* is 'first', which `columns` names"):
        opener(path, "first", "first")
    with pytest.raises(FileNotFoundError, match="E101.*no such file"):
        opener(tmp_path / "gone", "first")
    for columns in ((), ("first", "first"), NAMES):
        with pytest.raises(ValueError, match="E351 `columns` must name one column"):
            opener(path, columns)


def test_label_column_is_label_if_there_is_one(tmp_path):
    names = ("text", "class", "label")
    rows = [("a", "x", 0), ("b", "y", 1), ("c", "x", 1)]
    path = write_csv(tmp_path / "x.csv", rows, names)
    assert open_csv(path, "text").labels.tolist() == [0, 1, 1]
    named = open_csv(path, "text", "class")
    assert named.labels.tolist() == [0, 1, 0]
    assert named.class_names == ("x", "y")
    assert not named.is_ordered
    without = open_csv(path, "label")
    assert without.labels.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "E320.*is empty"),
        ("first,label\n", "E320.*has no example"),
        ("first,label\na,0\nb,1,2\n", "E345 line 3 .* has 3 fields, expected 2"),
        ("first,label\na\n", "E345 line 2 .* has 1 fields, expected 2"),
        ("first,label,first\na,0,b\n", "E345 line 1 .* names columns twice: 'first'"),
        ('first,label\n"a\nb",0\n"c,1\nd,0\n', "E345 line 4 .* no row.*quotes=False"),
        ('first,label\n"a"b,0\n', "E345 line 2 .* is no row"),
        (b"first,label\na,0\nb\xe9,1\n", "E343 line 3 .* UTF-8: byte 0xE9, number 1 "),
        (b"first,label\na\x00,0\n", "E343 line 2 .* NUL character at 1"),
        (b"first,label\n\xed\xa0\x80,0\n", "E343 line 2 .* not UTF-8: byte 0xED"),
        ("first,label\na,0\n".encode("utf-16"), "E343.*in UTF-16"),
        (gzip.compress(b"first,label\na,0\n", mtime=0), "E343.*packed with gzip"),
        (b"PAR1....", "E343.*a parquet file"),
        (b"PK\x03\x04....", "E343.*a zip archive"),
    ],
)
def test_bad_csv_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        open_csv(lines(tmp_path, text), "first")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "E320.*has no example"),
        ('{"first": "a"}\n{"first": "b"\n', "E345 line 2 .* is no JSON"),
        (
            '{"first": "a"}\n{"first": "b", "label": 1}',
            "E312 line 2 .* has a 'label', but line 1 has none",
        ),
        ('["a"]\n', "E345 line 1 .* is a JSON list, expected an object"),
        ("[" * 100_000, "E345 line 1 .* is no JSON"),
        ("7" * 5_000, "E345 line 1 .* is no JSON"),
        ('{"first": "a", "first": "b"}', "E345.*names 'first' twice"),
        ('{"first": "a"}\n{"frist": "b"}', "E344 line 2 .* mean 'frist'"),
        ('{"first": "a", "label": 0}\n{"first": "b"}', "E344 line 2 .*'label'"),
        ('{"first": "a"}\n\n{"first": 7}', "E350 line 3 .* holds 7, expected a"),
        ('{"first": null}', "E350 line 1 .* holds None, expected a text"),
        (r'{"first": "a\u0000b"}', "E343 line 1 .* NUL character at 1"),
        (r'{"first": "ab\ud800"}', r"E343 line 1 .* U\+D800\) at 2"),
        ('{"first": "a", "label": 0.5}', "E308 line 1 .* 0.5, .*regression"),
        ('{"first": "a", "label": [0]}', r"E313 line 1 .* label \[0\]"),
        ('{"first": "a", "label": -2}', "E313 line 1 .* label -2"),
        (b'{"first": "\xff"}', "E343 line 1 .* not UTF-8: byte 0xFF, number 11"),
    ],
)
def test_bad_jsonl_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(errors.InputError, match=message):
        open_jsonl(lines(tmp_path, text, "jsonl"), "first")


def test_byte_order_mark_and_windows_lines_are_read(tmp_path):
    text = "\ufefffirst,label\r\na,0\r\n\r\nb,1\r\n"
    source = open_csv(lines(tmp_path, text), "first")
    assert [source[0][0][0], source[1][0][0]] == ["a", "b"]
    (told,) = map(str, source.warnings)
    assert told == f"W344 `{tmp_path}/x.csv`: 1 empty lines are left out."
    text = '\ufeff{"first": "a"}\r\n\r\n{"first": "b"}\r\n'
    assert len(open_jsonl(lines(tmp_path, text, "jsonl"), "first")) == 2


def test_quotes_may_be_plain_characters(tmp_path):
    path = lines(tmp_path, 'first\tlabel\n"a quote\t0\nno "end\t1\n', "tsv")
    with pytest.raises(ValueError, match="quotes=False"):
        open_csv(path, "first")
    source = open_csv(path, "first", quotes=False)
    assert source[0][0][0] == '"a quote'


def test_examples_that_a_quote_swallows_are_warned_of(tmp_path):
    text = 'first{0}label\n"a{0}0\nb{0}0\nc"{0}1\nd{0}0\n'
    source = open_csv(lines(tmp_path, text.format("\t"), "tsv"), "first")
    assert len(source) == 2
    (told,) = map(str, source.warnings)
    assert told.startswith(f"W345 `{tmp_path}/x.tsv`: 1 rows have quoted fields")
    assert "the first in line 2" in told
    assert "quotes=False" in told
    own = open_csv(lines(tmp_path, text.format(","), "csv"), "first")
    assert own.warnings == []


def test_long_texts_are_read_and_the_limit_of_the_library_is_kept(tmp_path):
    before = csv.field_size_limit()
    path = write_csv(tmp_path / "x.csv", [("x" * 300_000, "b", 0)])
    assert len(open_csv(path, "first")[0][0][0]) == 300_000
    assert csv.field_size_limit() == before


def test_lines_are_counted_over_texts_with_line_ends(tmp_path):
    text = 'first,label\n"a\nb\nc",0\n\n"d\ne",9\n'
    with pytest.raises(ValueError, match="E313 line 6 .* label '9'"):
        open_csv(lines(tmp_path, text), "first", class_names=("no", "yes"))


@pytest.mark.parametrize(
    ("given", "names", "numbers"),
    [
        (["1", "0", ""], None, [1, 0, -1]),
        (["1", "0", "-1"], ("a", "b"), [1, 0, -1]),
        (["b", "a", ""], ("b", "a"), [0, 1, -1]),
        (["Not_Entailment", "entailment"], ("entailment", "not entailment"), [1, 0]),
        (["2", "1"], ("1", "2"), [1, 0]),
        ([True, False, None], None, [1, 0, -1]),
        (np.array([1, -1]), ("a", "b"), [1, -1]),
        (["a", 1], ("a", "b"), [0, 1]),
        ([" 1", "0\t", " "], None, [1, 0, -1]),
        (["1.5 ", "2.5"], ("1.5", "2.5"), [0, 1]),
    ],
)
def test_labels_are_numbers_or_names(given, names, numbers):
    source = Texts([["x"] * len(given)], given, names)
    assert source.labels.tolist() == numbers
    assert source.class_names == names


@pytest.mark.parametrize(
    ("given", "names", "message"),
    [
        (["0", "2"], ("a", "b"), "E313 example 1 of x: .* label '2', .* from 0 to 1"),
        (["a", "beta"], ("a", "betta"), "label 'beta'.*did you mean 'betta'"),
        (["a", 0], None, "E313 example 1 of x: it has the label 0"),
        (["good", "1.0"], ("good", "bad"), "label '1.0'"),
        ([0, -2], None, "label -2, expected a class number from 0"),
        ([10**30], ("a", "b"), "label 1000"),
        ([0, 1, 0], None, "one label an example, got 3 for 2"),
        ([0, 1], ("a", "a"), "E304.*at least two different names"),
    ],
)
def test_bad_labels_are_refused(given, names, message):
    with pytest.raises(ValueError, match=message):
        Texts([["t"] * min(len(given), 2)], given, names, "x")


@pytest.mark.parametrize("given", [["0", "2.5"], ["1.0"], ["-3e-1"], ["good", ".5"]])
def test_numbers_in_words_are_no_classes(given):
    with pytest.raises(errors.InputError, match=r"E308 example \d of x.*regression"):
        Texts([["t"] * len(given)], given, None, "x")


def test_words_that_are_no_numbers_are_classes():
    names = ("3.5.1", "inf", "nan", "v2.0")
    assert Texts([["t"] * 4], names).class_names == names


def test_oddities_are_warned_of():
    source = Texts([["a", "", " "], ["b", "c", "d"]], [0, 0, None], ("p", "q"), "x")
    assert [*map(str, source.warnings)] == [
        "W343 x: 2 of 3 texts (column 1) are empty.",
        "W312 x: 1 of 3 examples have no label.",
        "W306 x: all labels are of one class, 'p', so an accuracy says little.",
    ]
    first = errors.Message("W344", "first")
    source = Texts([["a", "b"]], [0, 2], ("p", "q", "r"), "x", warnings=[first])
    other = "1 of 3 classes have no example: 'q'"
    assert source.warnings == [first, errors.Message("W305", other, "x")]
    assert Texts([["a", "b"]]).warnings == []


def source_of(labels, names):
    return Texts([["t"] * len(labels)], labels, names, "x")


MNLI = ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("names", "numbers", "shown"),
    [
        (MNLI, [0, 1, 2, -1], MNLI),
        (("CONTRADICTION", "NEUTRAL", "ENTAILMENT"), [2, 1, 0, -1], None),
        (("contradiction", "entailment", "neutral"), [1, 2, 0, -1], None),
        (("LABEL_0", "LABEL_1", "LABEL_2"), [0, 1, 2, -1], MNLI),
        (("0", "1", "2"), [0, 1, 2, -1], MNLI),
        (("LABEL_2", "LABEL_0", "LABEL_1"), [1, 2, 0, -1],
         ("contradiction", "entailment", "neutral")),
    ],
)  # fmt: skip
def test_labels_are_numbered_as_the_head_does(names, numbers, shown):
    source = source_of([0, 1, 2, -1], MNLI)
    found = texts.renumbered(source, names)
    assert found.labels.tolist() == numbers
    assert found.class_names == (shown or names)
    assert source.labels.tolist() == [0, 1, 2, -1]
    is_trusted = texts.generic_numbers(names) is not None
    assert found.warnings[is_trusted:] == source.warnings
    if is_trusted:
        told = "the head names no classes, so the order of x is taken for that of its"
        assert found.warnings[0].code == "W311"
        assert found.warnings[0].found.startswith(told)
        assert "'entailment', 'neutral', 'contradiction'" in found.warnings[0].found
    assert found[0] == (("t", None), numbers[0])


def test_names_in_the_order_of_the_alphabet_say_nothing_about_a_head():
    source = source_of(["pos", "neg", "pos"], None)
    assert texts.renumbered(source, ("pos", "neg")).labels.tolist() == [0, 1, 0]
    assert texts.renumbered(source, ("neg", "meh", "POS")).labels.tolist() == [2, 0, 2]
    with pytest.raises(errors.InputError, match="E311.*Nothing tells which is which"):
        texts.renumbered(source, ("LABEL_0", "LABEL_1"))
    with pytest.raises(ValueError, match="Nothing tells which is which"):
        texts.renumbered(source, ("LABEL_0", "LABEL_1", "LABEL_2"))
    words = source_of(["LABEL_1", "LABEL_0"], None)
    found = texts.renumbered(words, ("LABEL_1", "LABEL_0"))
    assert found.labels.tolist() == [0, 1] and found.warnings == words.warnings
    with pytest.raises(ValueError, match="E310.*'pos'; the head has 2, 'good', 'bad'"):
        texts.renumbered(source, ("good", "bad"))


def test_numbers_without_names_are_those_of_the_head():
    source = source_of([2, 0], None)
    found = texts.renumbered(source, ("a", "b", "c"))
    assert found.labels.tolist() == [2, 0]
    assert found.class_names == ("a", "b", "c")
    with pytest.raises(ValueError, match="E305.*up to 2, but the head has 2 classes"):
        texts.renumbered(source, ("a", "b"))


def test_classes_of_another_task_are_refused_and_trust_is_told():
    with pytest.raises(ValueError, match="E305.*has 3 classes, .*; the head has 2"):
        texts.renumbered(source_of([0, 2], MNLI), ("entailment", "neutral"))
    with pytest.raises(ValueError, match="E310.*same name and another number"):
        texts.renumbered(source_of([0, 2], MNLI), ("neutral", "wrong", "other"))
    found = texts.renumbered(source_of([0, 1], ("good", "bad")), ("up", "down"))
    assert found.labels.tolist() == [0, 1]
    assert "W311 x: 0 of 2 class names match" in str(found.warnings[-1])


def test_shared_texts_are_told():
    one = Texts([["a", "b", "c"]])
    two = Texts([["c", "d"]])
    three = Texts([["c", "d"], ["c", "d"]])
    (found,) = texts.shared_texts({"one": one, "two": two, "three": three})
    assert "W329 tasks 'one' and 'two': 1 texts in common, of 3 and 2" in str(found)
    many = [f"text {i}" for i in range(300)]
    assert not texts.shared_texts(
        {"one": Texts([[*many, "ok"]]), "two": Texts([[*map(str.upper, many), "ok"]])}
    )


def test_sources_refuse_what_is_no_table():
    for columns in ([], [["a"], ["a", "b"]], [["a"]] * 3):
        with pytest.raises(ValueError, match="must be one list of texts, or two"):
            Texts(columns)
    with pytest.raises(errors.InputError, match="E320.*has no example"):
        Texts([[]])


def test_parquet_of_several_files_knows_row_and_file(tmp_path):
    files = [
        write_parquet(
            tmp_path / f"validation-0000{i}-of-00002.parquet", ROWS[i : i + 2]
        )
        for i in range(2)
    ]
    source = open_parquet(tmp_path, NAMES[:2])
    assert [source[i][0][0] for i in range(4)] == [ROWS[i][0] for i in (0, 1, 1, 2)]
    write_parquet(files[1], [("a", "b", 1), ("a", "b", 7)])
    with pytest.raises(ValueError, match=rf"E313 row 1 of `{files[1]}`: .* label 7"):
        open_parquet(tmp_path, NAMES[:2], class_names=("no", "yes"))
    files[1].unlink()
    with pytest.raises(ValueError, match="E164.*lacks 1 of 2 parquet files"):
        open_parquet(tmp_path, NAMES[:2])


def test_parquet_reads_other_types_of_text(tmp_path):
    columns = {
        "large": pa.array(["a", "b"], pa.large_string()),
        "coded": pa.array(["a", "b"]).dictionary_encode(),
        "view": pa.array(["a", "b"], pa.string_view()),
        "label": pa.array(["yes", "no"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    for name in ("large", "coded", "view"):
        source = open_parquet(tmp_path / "x.parquet", name)
        assert source[1] == (("b", None), 0)
        assert source.class_names == ("no", "yes")


def test_bad_parquet_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    columns = {"text": ["a", None], "count": [1, 2], "raw": [b"a", b"b"]}
    pq.write_table(pa.table(columns | {"score": [0.5, 4.0]}), path)
    with pytest.raises(errors.InputError, match="E350 row 1 .* holds None"):
        open_parquet(path, "text")
    for name, kind in (("count", "int64"), ("raw", "binary")):
        with pytest.raises(
            errors.InputError, match=f"E350 column '{name}' .* is {kind}, expected"
        ):
            open_parquet(path, name)
    with pytest.raises(errors.InputError, match="E308 column 'score' .*double.*regr"):
        open_parquet(path, "text", "score")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="E162.*no whole parquet file"):
        open_parquet(path, "text")
    bad = pa.StringArray.from_buffers(
        1, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")
    )
    pq.write_table(pa.table({"text": bad}), path)
    with pytest.raises(errors.InputError, match="E343.*not UTF-8"):
        open_parquet(path, "text")


def test_many_named_labels_are_numbered_in_no_time():
    started = time.process_time()
    labels = ["good", "bad"] * 20_000
    found = Texts([["a"] * len(labels)], labels)
    assert found.labels[:2].tolist() == [1, 0]
    assert time.process_time() - started < 5

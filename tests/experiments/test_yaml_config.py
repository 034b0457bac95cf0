import math
import time

import pytest

from adarank_jax import errors
from experiments import presets, yaml_config
from experiments.image_config import ImageMergeConfig
from experiments.yaml_config import read_config

GOOD = """\
base: base
experts:
  cats:
    model: experts/cats
    data: ./images/cats
    classes: [tabby, siamese]
  dogs:
    model: experts/dogs
    data: {folder: images/dogs, on_bad_image: skip}
    head: heads/dogs.safetensors
method:
  name: adarank
  coefficient: 1.5
adaptation:
  num_steps: 100
  learning_rate: 1e-3
"""


@pytest.fixture
def read(tmp_path):
    def read(text, *overrides):
        (tmp_path / "my.yaml").write_text(text)
        return read_config(ImageMergeConfig, tmp_path / "my.yaml", overrides)

    return read


@pytest.fixture
def refused(read, tmp_path):
    """Returns the message of a refusal, without the folder."""

    def refused(text, *overrides):
        with pytest.raises(errors.AdaRankError) as caught:
            read(text, *overrides)
        assert caught.value.exit_code == 2
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refused


def replaced(old, new):
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_good_file_is_read(read):
    config = read(GOOD)
    assert config.task_names == ("cats", "dogs")
    assert str(config.experts["cats"].data.folder) == "images/cats"
    assert config.experts["dogs"].data.on_bad_image == "skip"
    assert (config.method.origin, config.method.objective) == ("cart", "entropy")
    assert config.adaptation.learning_rate == 1e-3  # a text in YAML 1.1
    assert config.adaptation.batch_size == 16


@pytest.mark.parametrize("number", ["1e-3", "0.001", "'0.001'", "1.0E-3", "1e-03"])
def test_numbers_may_be_written_in_any_way(read, number):
    config = read(replaced("1e-3", number))
    assert config.adaptation.learning_rate == 1e-3


MISTAKES = [
    (
        *("  learning_rate", "  leraning_rate"),
        "E010 my.yaml:16:3: unknown key `adaptation.leraning_rate`, expected one of "
        "|; did you mean `learning_rate`?",
    ),
    ("method:", "methods:", "11:1: unknown key `methods`|; did you mean `method`?"),
    ("classes:", "clases:", "6:5: unknown key `experts.cats.clases`|; did you mean"),
    ("on_bad_image", "on_bad_images", "9:33: unknown key `experts.dogs.data.on_bad_"),
    (
        "    model: experts/dogs\n",
        "",
        "E015 my.yaml:8:5: `experts.dogs.model` is",
    ),
    (
        "num_steps: 100",
        "num_steps: many",
        "E011 |my.yaml:15:14: `adaptation.num_steps` is",
    ),
    ("num_steps: 100", "num_steps: 1.5", "15:14: `adaptation.num_steps` is 1.5: "),
    ("num_steps: 100", "num_steps: -1", "`num_steps` must be at least 0, got -1."),
    ("num_steps: 100", "temperature: 0", "above 0 and finite, got 0"),
    ("1e-3", ".nan", "`learning_rate` must be above 0 and finite, got nan"),
    ("1e-3", ".inf", "`learning_rate` must be above 0 and finite, got inf"),
    ("1e-3", "-1", "`learning_rate` must be above 0 and finite, got -1.0"),
    ("coefficient: 1.5", "coefficient: .nan", "13:16: `method.coefficient` is nan: "),
    ("coefficient: 1.5", "rank_ratio: 0", "13:15: `method.rank_ratio` is 0: "),
    ("coefficient: 1.5", "rank_ratio: 1.1", "less than or equal to 1"),
    ("name: adarank", "name: adarnk", "my.yaml:12:9: `method.name` is 'adarnk'"),
    ("name: adarank", "name: pretrained", "E013 |pretrained has no coefficient; leave"),
    ("skip", "ignore", "9:47: `experts.dogs.data.on_bad_image` is 'ignore'"),
    ("[tabby, siamese]", "[tabby]", "E304 |at least two classes, got 1"),
    (
        *("folder: images/dogs", "folder: a, npz: b"),
        "name exactly one of dataset, folder, npz, parquet, got ['folder', 'npz']",
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_mistake_is_told_with_its_place(refused, old, new, message):
    told = refused(replaced(old, new))
    assert all(part in told for part in message.split("|")), told


def test_every_mistake_is_told_at_once(refused):
    text = replaced("num_steps: 100", "num_step: 100")
    text = text.replace("method:", "metod:").replace("model: experts/dogs", "modl: x")
    lines = refused(text).splitlines()
    assert len(lines) == 4
    for part in ("num_step`", "metod`", "modl`", "dogs.model` is missing"):
        assert any(part in line for line in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "base: other\n", "E012 my.yaml:17:1: 'base' is there twice"),
        (replaced("  dogs:", "  cats:"), "my.yaml:7:3: 'cats' is there twice"),
        ("base: &b x\nexperts: *b\n", "my.yaml:2:10: aliases (*b) are not supported"),
        ("base: !!python/object/apply:os.system [true]\n", "my.yaml:1:7: tag "),
        ("base: !!python/name:os.system\n", "my.yaml:1:7: tag "),
        ("base: !include other.yaml\n", "my.yaml:1:7: tag '!include'"),
        ("base: !!set {a}\n", "my.yaml:1:7: tag "),
        ("base:\n\tx: 1\n", "my.yaml:2:1: not valid YAML"),
        ("base: [x\nexperts: y", "my.yaml:2:8: not valid YAML"),
        ("base: 'x\n", "not valid YAML"),
        ("? [a, b]\n: c\n", "my.yaml:1:3: a key must be a word"),
        ("<<: {base: x}\n", "tag:yaml.org,2002:merge' is not supported"),
        ("- base\n", "my.yaml: no mapping, expected a mapping with the keys base, exp"),
        ("", "my.yaml: no mapping, expected a mapping with the keys base, exp"),
        ("just words\n", "my.yaml: no mapping, expected a mapping"),
        ("a: 1\n---\nb: 2\n", "my.yaml"),
        ("base: x\x00y\n", "my.yaml"),
        (
            "base: " + "[" * 5000 + "]" * 5000,
            "my.yaml:1:27: nested more than 20 levels",
        ),
    ],
    ids=lambda text: text[:24].replace("\n", " ").strip("\0"),
)
def test_yaml_that_is_none_is_refused(refused, text, message):
    told = refused(text)
    assert message in told and len(told) < 2000


def test_bomb_of_aliases_is_refused_at_once(refused):
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    assert "aliases (*a0) are not supported" in refused("\n".join(lines))


def test_large_file_is_refused_before_it_is_read(refused):
    assert "larger than 300,000 bytes" in refused("#" * 300_001)


def test_largest_file_is_read_in_time(read):
    text = GOOD.replace("tabby", ", ".join(f"a class {i}" for i in range(20_000)))
    assert 250_000 < len(text) < 300_000
    started = time.process_time()
    assert len(read(text).experts["cats"].classes) == 20_001
    assert time.process_time() - started < 5


def test_other_text_is_refused(tmp_path):
    (tmp_path / "my.yaml").write_bytes(b"base: \xff\xfe\n")
    with pytest.raises(errors.UsageError, match="E012 .*my.yaml` is not UTF-8 text"):
        read_config(ImageMergeConfig, tmp_path / "my.yaml")


def test_missing_file_is_answered_with_the_nearest(tmp_path):
    (tmp_path / "my_merge.yaml").write_text(GOOD)
    with pytest.raises(errors.UsageError, match="did you mean `.*my_merge.yaml`"):
        read_config(ImageMergeConfig, tmp_path / "my_merg.yaml")
    for other in ("nowhere/x.yaml", "pairs.yaml"):
        with pytest.raises(errors.UsageError, match=r"E017 there is no file `.*`\.$"):
            read_config(ImageMergeConfig, tmp_path / other)


def test_overrides_change_single_values(read):
    config = read(
        GOOD,
        *("adaptation.num_steps=7", "seed=3", "method.origin=tsv_m", "tasks=[dogs]"),
        *("adaptation.learning_rate=1e-4", "experts.cats.data=./elsewhere"),
        *(
            "experts.dogs.data.on_bad_image=skip",
            "prompts=fusion_bench",
            "method.coefficient=",
        ),
    )
    assert (config.adaptation.num_steps, config.seed) == (7, 3)
    assert (config.method.origin, config.method.coefficient) == ("tsv_m", None)
    assert config.adaptation.learning_rate == 1e-4
    assert config.task_names == ("dogs",)
    assert str(config.experts["cats"].data.folder) == "elsewhere"
    assert config.experts["dogs"].data.on_bad_image == "skip"
    assert config.prompts == "fusion_bench"
    for nothing in ("", " ", "~", "null", "# none"):
        assert read(GOOD, f"method.coefficient={nothing}").method.coefficient is None


def test_override_spells_out_a_short_form(read):
    text = replaced("data: ./images/cats", "data: cars")
    data = read(text, "experts.cats.data.source=hub").experts["cats"].data
    assert (data.dataset, data.source) == ("cars", "hub")
    data = read(GOOD, "experts.cats.data.on_bad_image=skip").experts["cats"].data
    assert (str(data.folder), data.on_bad_image) == ("images/cats", "skip")
    text = GOOD.replace("method:\n  name: adarank\n  coefficient: 1.5", "method: cart")
    assert read(text, "method.coefficient=2").method.name == "cart"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "sead=1",
            "E010 command line, sead=1: unknown key `sead`|did you mean `seed`",
        ),
        ("seed=x", "command line, seed=x: `seed` is 'x'"),
        ("seed", "E018 `seed` is neither a file nor `dotted.key=value`"),
        ("=1", "`=1` is neither a file nor"),
        ("seed.x=1", "command line, seed.x=1: `seed`: Input should be a valid integer"),
        ("experts.cats.model.x.y=1", "has no keys"),
        ("adaptation.num_steps=-3", "`num_steps` must be at least 0"),
        ("seed=[1", "`seed=[1`:1:3: not valid YAML"),
        ("seed=!!python/name:os.system", "os.system' is not supported"),
        ("seed=&a [*a]", "aliases (*a) are not supported"),
        ("tasks=[dgos]", "E016 |did you mean 'dogs'"),
        ("tasks=[]", "E302 |`tasks` must name each task once"),
        ("experts.cats.head.=1", "a key is empty"),
        ("a..b=1", "a key is empty"),
    ],
)
def test_override_that_does_not_fit_is_refused(refused, override, message):
    told = refused(GOOD, override)
    assert all(part in told for part in message.split("|")), told


@pytest.mark.parametrize("name", ["tsv_m", "iso_c", "weight_averaging", "cart"])
def test_option_that_a_method_lacks_is_refused(refused, name):
    told = refused(GOOD, f"method={{name: {name}, origin: cart}}")
    assert f"{name} has no origin" in told


def test_names_that_are_one_are_refused(refused):
    for twin in ("CATS", "' cats'", '"ca\\u0074s "'):
        text = replaced("  dogs:", f"  {twin}:")
        assert "one name twice" in refused(text) or "there twice" in refused(text)


def test_every_preset_can_be_read_again(tmp_path):
    for name, preset in presets.all_presets().items():
        config = yaml_config.validate(ImageMergeConfig, preset.values, {}, (), name)
        again = ImageMergeConfig.model_validate(config.model_dump(mode="json"))
        assert again == config
        assert math.isfinite(config.adaptation.learning_rate)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("experts.dogs.data.split=train", "folder has no split"),
        ("experts.dogs.data.source=hub", "folder has no source"),
        (
            "experts.dogs.data={npz: a.npz, on_bad_image: skip}",
            "npz has no on_bad_image",
        ),
        ("experts.dogs.data={folder: a, npz: a.npz}", "exactly one of"),
        ("experts.dogs.templates=['a {}']", "`templates` build a head"),
        ("published={league: FusionBench}", "`prompts` must be fusion_bench"),
    ],
)
def test_option_that_would_be_ignored_is_refused(refused, override, message):
    assert message in refused(GOOD, override)


def test_configuration_is_written_so_that_it_reads_back(read):
    config = read(GOOD)
    values = config.model_dump(mode="json", exclude_none=True)
    assert yaml_config.validate(ImageMergeConfig, values, {}, (), "again") == config

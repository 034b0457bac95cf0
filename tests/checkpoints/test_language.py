import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import load_file, save_file

from adarank_jax import tree
from adarank_jax.checkpoints import language, language_base, language_names
from tests import torch_python
from tests.checkpoints import tiny_clip, tiny_language
from tests.checkpoints.tiny_language import BARE, CLASSIFIERS, write

SHA = "0123456789abcdef0123456789abcdef01234567"


def assert_trees(ours, theirs):
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b, strict=True), ours, theirs
    )


def read(folder, model, tensors=None, base=None, **options):
    return language.read_language(write(folder, model, tensors, **options), base)


def bare(model, tensors):
    """Takes an encoder out of a model with a head, as the bare class saves it."""
    prefix = language_names.PREFIXES[tiny_language.family_of(model)]
    return {
        name.removeprefix(prefix): array
        for name, array in tensors.items()
        if name.startswith(prefix)
    }


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_a_classifier_is_read_whole(family, tmp_path):
    names = {"id2label": {"0": "no", "1": "maybe", "2": "yes"}}
    read_ = read(tmp_path, CLASSIFIERS[family], changes=names)
    state = tiny_language.state(CLASSIFIERS[family])
    assert (read_.family, read_.class_names) == (family, ("no", "maybe", "yes"))
    assert (read_.folder, read_.revision, read_.warnings) == (tmp_path, None, ())
    num = tree.num_parameters(read_.encoder) + tree.num_parameters(read_.head)
    assert num == sum(x.size for x in state.values())
    leaves = jax.tree.leaves((read_.encoder, read_.head))
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_heads_are_kernels_of_inputs_by_outputs(family, tmp_path):
    state = tiny_language.state(CLASSIFIERS[family])
    head = read(tmp_path, CLASSIFIERS[family]).head
    names = {
        "bert": {"kernel": "classifier.weight", "bias": "classifier.bias"},
        "roberta": {
            "dense/kernel": "classifier.dense.weight",
            "dense/bias": "classifier.dense.bias",
            "out_proj/kernel": "classifier.out_proj.weight",
            "out_proj/bias": "classifier.out_proj.bias",
        },
        "gpt2": {"kernel": "score.weight"},
    }[family]
    expected = {path: state[name].T for path, name in names.items()}
    assert_trees(tree.flatten(head), expected)


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_all_layouts_give_the_same_encoder(family, tmp_path):
    whole = tiny_language.state(CLASSIFIERS[family])
    expected = read(tmp_path / "whole", CLASSIFIERS[family], whole).encoder
    aside = {
        "bert": {"cls.predictions.bias": np.zeros(20, np.float32)},
        "roberta": {
            "lm_head.bias": np.zeros(20, np.float32),
            "roberta.pooler.dense.weight": np.zeros((8, 8), np.float32),
        },
        "gpt2": {"lm_head.weight": whole.get("transformer.wte.weight")},
    }[family]
    prefix = language_names.PREFIXES[family]
    encoder = {n: x for n, x in whole.items() if n.startswith(prefix)}
    layouts = {
        "bare": bare(CLASSIFIERS[family], whole),
        "language model": encoder | {n: x.copy() for n, x in aside.items()},
        "ddp": {f"module.{n}": x for n, x in whole.items()},
    }
    for name, tensors in layouts.items():
        found = read(tmp_path / name, BARE[family], tensors)
        assert_trees(found.encoder, expected)
        assert (found.head is None) == (name != "ddp")


@pytest.mark.parametrize(
    "model",
    [n for n in tiny_language.NAMES if n[0] in "BRG" and n != "BertForMaskedLM"],
)
def test_the_own_encoder_gives_the_very_bytes(model, tmp_path):
    checkpoint = read(tmp_path, model, tiny_language.state(model, dtype=np.float16))
    state = language.with_encoder(checkpoint, checkpoint.encoder)
    tiny_clip.assert_same(state, checkpoint.state.tensors)


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_another_encoder_leaves_the_rest_alone(family, tmp_path):
    checkpoint = read(tmp_path / "a", CLASSIFIERS[family])
    other = tiny_language.state(CLASSIFIERS[family], seed=7)
    encoder = read(tmp_path / "b", CLASSIFIERS[family], other).encoder
    written = language.with_encoder(checkpoint, encoder)
    head = {
        n: x for n, x in checkpoint.state.tensors.items() if n[:3] in ("cla", "sco")
    }
    assert head
    tiny_clip.assert_same(written, other | head, in_order=False)


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_to_state_undoes_the_reading(family, tmp_path):
    state = tiny_language.state(CLASSIFIERS[family])
    checkpoint = read(tmp_path, CLASSIFIERS[family], state)
    layout = language_names.full_layout(family, 2)
    written = language.to_state(checkpoint.encoder, checkpoint.head, layout)
    tiny_clip.assert_same(written, state, in_order=False)
    assert all(array.flags.c_contiguous for array in written.values())
    alone = language.to_state(checkpoint.encoder, None, layout._replace(prefix=""))
    assert {*alone} == {*bare(CLASSIFIERS[family], state)}


def test_trees_that_do_not_fit_are_not_written(tmp_path):
    bert = read(tmp_path / "bert", CLASSIFIERS["bert"])
    roberta = read(tmp_path / "roberta", CLASSIFIERS["roberta"])
    with pytest.raises(ValueError, match="`head` does not fit") as error:
        language.to_state(bert.encoder, roberta.head, bert.layout)
    assert "missing are ['bias', 'kernel']" in str(error.value)
    assert "'out_proj/kernel'" in str(error.value)
    with pytest.raises(ValueError, match="only in `/.*bert`: pooler/dense/bias"):
        language.with_encoder(bert, roberta.encoder)


def test_what_is_not_finite_in_the_dtype_of_the_file_is_not_written(tmp_path):
    state = tiny_language.state("GPT2Model", dtype=np.float16)
    checkpoint = read(tmp_path, "GPT2Model", state)
    encoder = jax.tree.map(lambda x: x * 1e6, checkpoint.encoder)
    with pytest.raises(ValueError, match="E220 .*hold NaN or infinity") as error:
        language.with_encoder(checkpoint, encoder)
    assert "wte.weight" in str(error.value)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_dtypes_become_float32(dtype, tmp_path):
    state = tiny_language.state("BertModel", dtype=dtype)
    checkpoint = read(tmp_path, "BertModel", state)
    table = checkpoint.encoder["embeddings"]["word_embeddings"]["embedding"]
    expected = state["embeddings.word_embeddings.weight"].astype(np.float32)
    np.testing.assert_array_equal(table, expected, strict=True)
    assert checkpoint.layout.dtype == np.dtype(dtype).name


def test_a_file_that_mixes_dtypes_says_so(tmp_path):
    state = tiny_language.state("GPT2Model")
    state["wte.weight"] = state["wte.weight"].astype(np.float16)
    assert read(tmp_path, "GPT2Model", state).layout.dtype == "mixed"


@pytest.mark.parametrize("ending", ["bin", "safetensors"])
def test_a_file_of_torch_with_tied_weights_is_read(ending, tmp_path):
    data = tiny_language.FILE.parent
    write(tmp_path, "GPT2LMHeadModel")
    (tmp_path / "model.safetensors").unlink()
    name = "pytorch_model.bin" if ending == "bin" else "model.safetensors"
    shutil.copy(data / f"language_gpt2.{ending}", tmp_path / name)
    checkpoint = language.read_language(str(tmp_path))
    expected = load_file(data / "language_gpt2.safetensors")
    table = expected["transformer.wte.weight"]
    np.testing.assert_array_equal(checkpoint.encoder["wte"]["embedding"], table)
    kernel = expected["transformer.h.1.attn.c_attn.weight"]
    ours = checkpoint.encoder["h_1"]["attn"]["c_attn"]["kernel"]
    np.testing.assert_array_equal(ours, kernel)
    written = language.with_encoder(checkpoint, checkpoint.encoder)
    tiny_clip.assert_same(written, expected, in_order=False)


def swapped(model, name, array):
    return tiny_language.state(model) | {name: array}


def bad_value(value):
    array = tiny_language.state("GPT2Model")["h.1.mlp.c_fc.weight"]
    array[3, 2] = value
    return swapped("GPT2Model", "h.1.mlp.c_fc.weight", array)


FLOAT = np.float32
BERT = tiny_language.state("BertForSequenceClassification")
WORDS = "embeddings.word_embeddings.weight"
BAD = {
    "integers": (
        "BertModel",
        swapped("BertModel", "pooler.dense.weight", np.ones((8, 8), np.int8)),
        {},
        ("1 weights that are no floating-point", "pooler.dense.weight: int8"),
    ),
    "not a number": (
        "GPT2Model",
        bad_value(np.nan),
        {},
        ("h.1.mlp.c_fc.weight: 1 of 64, first at (3, 2)", "model.safetensors"),
    ),
    "infinity": (
        "GPT2Model",
        bad_value(-np.inf),
        {},
        ("h.1.mlp.c_fc.weight: 1 of 64",),
    ),
    "too large for float32": (
        "BertModel",
        swapped("BertModel", "pooler.dense.bias", np.full(8, 1e60)),
        {},
        ("pooler.dense.bias: 8 of 8",),
    ),
    "a missing last layer": (
        "GPT2Model",
        {n: x for n, x in tiny_language.state("GPT2Model").items() if "h.1." not in n},
        {},
        ("holds 1 layers", "states 2", "layers are missing"),
    ),
    "config.json of another size": (
        "BertModel",
        None,
        {"intermediate_size": 32},
        (
            "6 tensors whose shapes do not fit",
            "encoder.layer.0.intermediate.dense.weight is (16, 8), expected (32, 8)",
        ),
    ),
    "config.json of another family": (
        "BertModel",
        None,
        {"model_type": "gpt2"},
        ("is no GPT2", "'wte.weight'"),
    ),
    "a kernel the wrong way round": (
        "GPT2Model",
        swapped("GPT2Model", "h.0.attn.c_attn.weight", np.ones((24, 8), FLOAT)),
        {},
        ("h.0.attn.c_attn.weight is (24, 8), expected (8, 24)",),
    ),
    "embeddings of more tokens than stated": (
        "BertModel",
        swapped("BertModel", WORDS, np.ones((22, 8), FLOAT)),
        {},
        ("holds embeddings of 22 tokens", "states 20", "tokens were added"),
    ),
    "a regression": (
        "BertForSequenceClassification",
        {k: x[:1] if "classifier" in k else x for k, x in BERT.items()},
        {"problem_type": "regression"},
        ("'regression' with 1 class", "entropy undefined; exclude it"),
    ),
    "a regression without its problem type": (
        "GPT2ForSequenceClassification",
        swapped(
            "GPT2ForSequenceClassification", "score.weight", np.ones((1, 8), FLOAT)
        ),
        {},
        ("a head with 1 class", "entropy undefined; exclude it"),
    ),
    "several labels a text": (
        "RobertaForSequenceClassification",
        None,
        {"problem_type": "multi_label_classification"},
        ("'multi_label_classification'", "entropy undefined; exclude it"),
    ),
    "a head of another width": (
        "BertForSequenceClassification",
        BERT | {"classifier.weight": np.ones((3, 9), FLOAT)},
        {},
        ("classifier.weight is (3, 9), expected (3, 8)",),
    ),
    "a head whose bias has other rows": (
        "BertForSequenceClassification",
        swapped("BertForSequenceClassification", "classifier.bias", np.ones(4, FLOAT)),
        {},
        ("classifier.bias is (4,), expected (3,)",),
    ),
    "a head that is a number": (
        "GPT2ForSequenceClassification",
        swapped("GPT2ForSequenceClassification", "score.weight", np.ones((), FLOAT)),
        {},
        ("score.weight is (), expected",),
    ),
    "class names of another head": (
        "BertForSequenceClassification",
        None,
        {"id2label": {"0": "a", "1": "b"}},
        ("'id2label'", "the 3 rows of the head"),
    ),
    "a classifier of tokens": (
        "BertForSequenceClassification",
        None,
        {"architectures": ["BertForTokenClassification"]},
        ("BertForTokenClassification",),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_checkpoints_are_told(case, tmp_path):
    model, state, changes, parts = BAD[case]
    with pytest.raises(ValueError) as error:
        read(tmp_path / "expert", model, state, changes=changes)
    assert str(tmp_path / "expert") in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_base_needs_its_configuration(tmp_path):
    with pytest.raises(
        ValueError, match=r"E144 .*there is no `.*config\.json` beside"
    ) as error:
        read(tmp_path, "BertModel", config=False)
    assert "number of heads" in str(error.value)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="'model_type' None"):
        language.read_language(str(tmp_path))
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="must be a JSON object"):
        language.read_language(str(tmp_path))


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_an_expert_takes_configuration_and_tokenizer_of_its_base(family, tmp_path):
    state = tiny_language.state(CLASSIFIERS[family])
    base = read(tmp_path / "base", BARE[family], bare(CLASSIFIERS[family], state))
    moved = tiny_language.near(state)
    path = tmp_path / "expert"
    options = {"config": False, "tokenizer": False}
    expert = read(path, CLASSIFIERS[family], moved, base, **options)
    assert (expert.config, expert.folder) == (base.config, base.folder)
    assert expert.class_names is None
    no_config, no_tokenizer = expert.warnings
    assert f"`{path}`: it has no config.json: that of `{base.source}`" in str(no_config)
    assert f"no tokenizer: that of `{base.source}` is used" in str(no_tokenizer)
    assert language_base.check_same_base(base, expert) == []
    own = read(tmp_path / "own", CLASSIFIERS[family], moved, base)
    assert (own.folder, own.warnings) == (tmp_path / "own", ())
    assert_trees((own.encoder, own.head), (expert.encoder, expert.head))
    only = read(tmp_path / "t", CLASSIFIERS[family], moved, base, config=False)
    assert (only.folder, len(only.warnings)) == (tmp_path / "t", 1)


def test_nothing_is_lent_to_an_expert_without_a_pooler(tmp_path):
    base = read(tmp_path / "base", "BertModel")
    state = tiny_language.state("BertForMaskedLM")
    with pytest.raises(ValueError, match="E210 .*saved without its pooler"):
        read(tmp_path / "expert", "BertForMaskedLM", state, base)


RELATIONS = {
    "another family": (
        {"model_type": "roberta"},
        ("is a roberta and its base", "a bert"),
    ),
    "another width": ({"hidden_size": 16}, ("width 8, 2 layers", "width 16, 2 layers")),
    "added tokens": (
        {"vocab_size": 22},
        ("embeddings of 22 tokens", "of 20", "tokens were added"),
    ),
    "removed tokens": ({"vocab_size": 18}, ("tokens were removed",)),
    "other heads and activation": (
        {"num_attention_heads": 4, "hidden_act": "relu"},
        ("num_heads            2              4", "activation           gelu"),
    ),
    "longer texts": ({"max_position_embeddings": 12}, ("max_positions        10",)),
}


@pytest.mark.parametrize("case", RELATIONS)
def test_an_expert_of_another_architecture_is_told(case, tmp_path):
    changes, parts = RELATIONS[case]
    base = read(tmp_path / "base", "BertModel")
    with pytest.raises(ValueError) as error:
        read(tmp_path / "expert", "BertModel", None, base, changes=changes)
    for part in (*parts, base.source, str(tmp_path / "expert")):
        assert part in str(error.value)


def test_added_tokens_are_told_without_a_configuration(tmp_path):
    base = read(tmp_path / "base", "GPT2Model")
    state = swapped("GPT2Model", "wte.weight", np.ones((22, 8), FLOAT))
    with pytest.raises(ValueError, match="E216 .*embeddings of 22 tokens") as error:
        read(tmp_path / "expert", "GPT2Model", state, base, config=False)
    assert "states 20" in str(error.value)


@pytest.mark.parametrize("ending", ["model.safetensors", "cola/model.safetensors"])
def test_a_file_is_read_with_what_lies_beside_it(ending, tmp_path):
    file = tmp_path / ending
    write(file.parent, "BertForSequenceClassification")
    checkpoint = language.read_language(str(file))
    assert checkpoint.folder == file.parent
    assert checkpoint.source == str(file)


def test_a_missing_folder_is_told(tmp_path):
    write(tmp_path / "roberta", "RobertaModel")
    with pytest.raises(FileNotFoundError, match="did you mean `.*/roberta`"):
        language.read_language(str(tmp_path / "robertta"))


def test_a_folder_inside_a_repository_is_read_with_its_tokenizer(tmp_path, monkeypatch):
    repo = tmp_path / "models--org--glue"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(SHA)
    folder = repo / "snapshots" / SHA / "cola" / "roberta-base_lr1e-05"
    write(folder, "RobertaForSequenceClassification")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    source = "org/glue:cola/roberta-base_lr1e-05"
    checkpoint = language.read_language(source, offline=True)
    assert (checkpoint.source, checkpoint.revision) == (source, SHA)
    assert checkpoint.folder == folder


def test_a_wrong_file_in_json_is_no_reason_to_guess(tmp_path):
    write(tmp_path, "BertModel")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"})[:-3])
    with pytest.raises(ValueError, match="no valid JSON"):
        language.read_language(str(tmp_path))


def test_an_empty_file_is_told(tmp_path):
    write(tmp_path, "BertModel")
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="holds no tensors"):
        language.read_language(str(tmp_path))


_SAVE = """
import json, sys, torch, transformers
config = json.load(open(sys.argv[1]))
for model in sys.argv[2:]:
    kind = getattr(transformers, model)
    sizes = {k: v for k, v in config[model].items() if k != "transformers_version"}
    torch.manual_seed(0)
    net = kind(kind.config_class(**sizes, num_labels=3))
    net.save_pretrained(model)
    torch.save(net.state_dict(), f"{model}.bin")
"""
_LOAD = """
import sys, torch, transformers
from safetensors.torch import load_file
for model in sys.argv[1:]:
    net = getattr(transformers, model).from_pretrained(model)
    old = net.state_dict()
    new = load_file(f"{model}.safetensors")
    net.load_state_dict(new, strict=True)
    assert all(torch.equal(old[name], new[name]) for name in old)
    print(model)
"""


@pytest.mark.slow
def test_what_transformers_saves_is_read_and_what_is_written_is_loaded(tmp_path):
    models = [*CLASSIFIERS.values(), *BARE.values()]
    configs = {m: tiny_language.CONFIGS[tiny_language.family_of(m)] for m in models}
    (tmp_path / "configs.json").write_text(json.dumps(configs))
    torch_python.run(_SAVE, tmp_path, "configs.json", *models)
    for model in models:
        checkpoint = language.read_language(str(tmp_path / model))
        shutil.copy(tmp_path / model / "config.json", tmp_path / "config.json")
        again = language.read_language(str(tmp_path / f"{model}.bin"))
        assert_trees((checkpoint.encoder, checkpoint.head), (again.encoder, again.head))
        state = language.to_state(
            checkpoint.encoder, checkpoint.head, checkpoint.layout
        )
        aside = checkpoint.state.tensors.keys() - state.keys()
        assert all("pooler" in name for name in aside)
        state |= {name: checkpoint.state.tensors[name] for name in aside}
        save_file(state, tmp_path / f"{model}.safetensors")
    assert torch_python.run(_LOAD, tmp_path, *models).split() == models

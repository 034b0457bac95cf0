import numpy as np
import pytest

from adarank_jax import tree
from adarank_jax.checkpoints import language, language_names, language_sizes
from tests.checkpoints import tiny_language

CLASSES = [name for name in tiny_language.NAMES if name[0] in "BRG"]
WITHOUT_POOLER = "BertForMaskedLM"
SIZES = {
    "vocabulary_size": 20,
    "width": 8,
    "num_layers": 2,
    "mlp_width": 16,
    "max_positions": 10,
}


def recognise(model, state=None):
    state = tiny_language.state(model) if state is None else state
    return language_names.recognise(state, tiny_language.family_of(model), "`it`")


@pytest.mark.parametrize("model", [name for name in CLASSES if name != WITHOUT_POOLER])
def test_every_class_of_transformers_is_read(model):
    layout = recognise(model)
    names = [entry.name for entry in language_names.entries(layout)]
    kept = [
        n for n in tiny_language.NAMES[model] if language_names.is_ignored(n, layout)
    ]
    assert len({*names}) == len(names)
    assert {*names, *kept} == {*tiny_language.NAMES[model]}
    assert not {*names} & {*kept}
    assert layout.num_layers == 2
    assert layout.has_head == model.endswith("SequenceClassification")
    is_bare = model in tiny_language.BARE.values()
    assert layout.prefix == ("" if is_bare else language_names.PREFIXES[layout.family])


@pytest.mark.parametrize("family", tiny_language.CLASSIFIERS)
def test_a_full_layout_is_that_of_the_class_with_a_head(family):
    model = tiny_language.CLASSIFIERS[family]
    assert language_names.full_layout(family, 2) == recognise(model)
    assert language_names.full_layout(family, 2).model == model


@pytest.mark.parametrize("family", tiny_language.CLASSIFIERS)
def test_the_paths_are_those_of_the_sizes(family):
    mlp = {"mlp_width": 8 if family == "gpt2" else 16}
    types = {"num_token_types": 1 if family == "roberta" else 2}
    shapes = language_sizes.encoder_shapes(family, SIZES | mlp | types)
    head = language_sizes.head_shapes(family, 8, 3)
    model = tiny_language.CLASSIFIERS[family]
    layout = recognise(model)
    for entries, expected in (
        (language_names.encoder_entries(layout), shapes),
        (language_names.head_entries(layout), head),
    ):
        assert {entry.path for entry in entries} == expected.keys()
        for path, name, is_turned in entries:
            shape = expected[path][::-1] if is_turned else expected[path]
            assert list(shape) == tiny_language.NAMES[model][name], name


@pytest.mark.parametrize("family", tiny_language.CLASSIFIERS)
def test_square_kernels_are_turned_by_the_family_alone(family, tmp_path):
    model = tiny_language.CLASSIFIERS[family]
    state = tiny_language.state(model)
    read = language.read_language(tiny_language.write(tmp_path, model))
    flat = tree.flatten(read.encoder)
    path = {
        "bert": "encoder/layer_1/attention/self/query",
        "roberta": "encoder/layer_1/attention/output/dense",
        "gpt2": "h_1/attn/c_proj",
    }[family]
    name = path.replace("_1/", ".1.").replace("/", ".")
    kernel = state[f"{language_names.PREFIXES[family]}{name}.weight"]
    assert kernel.shape == (8, 8)
    expected = kernel if family == "gpt2" else kernel.T
    np.testing.assert_array_equal(flat[f"{path}/kernel"], expected, strict=True)
    assert not np.array_equal(kernel, kernel.T)


def test_the_square_mlp_of_gpt2_is_not_turned(tmp_path):
    state = tiny_language.state("GPT2Model")
    read = language.read_language(tiny_language.write(tmp_path, "GPT2Model"))
    for part in ("c_fc", "c_proj"):
        kernel = state[f"h.0.mlp.{part}.weight"]
        assert kernel.shape == (8, 8)
        np.testing.assert_array_equal(
            read.encoder["h_0"]["mlp"][part]["kernel"], kernel
        )


@pytest.mark.parametrize(
    "wrapper", ["module.", "_orig_mod.", "model.", "_orig_mod.module."]
)
@pytest.mark.parametrize("model", ["BertModel", *tiny_language.CLASSIFIERS.values()])
def test_wrappers_are_a_prefix(model, wrapper):
    state = {wrapper + n: x for n, x in tiny_language.state(model).items()}
    layout = recognise(model, state)
    assert layout == recognise(model)._replace(wrapper=wrapper)


@pytest.mark.parametrize("model", ["BertForPreTraining", "RobertaForMaskedLM"])
def test_old_names_of_layer_norms_are_read(model):
    ends = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    old = {}
    for name, array in tiny_language.state(model).items():
        for new, was in ends.items():
            name = name.replace(new, was)
        old[name] = array
    layout = recognise(model, old)
    assert layout.norm_ends == ("gamma", "beta")
    assert {e.name for e in language_names.entries(layout)} <= {*old}


BUFFERS = {
    "BertModel": ["embeddings.position_ids", "embeddings.token_type_ids"],
    "BertForSequenceClassification": ["bert.embeddings.position_ids"],
    "RobertaForMaskedLM": [
        "roberta.embeddings.position_ids",
        "roberta.pooler.dense.bias",
    ],
    "GPT2Model": ["h.0.attn.bias", "h.1.attn.masked_bias"],
    "GPT2LMHeadModel": [
        "transformer.h.0.attn.bias",
        "transformer.h.0.attn.masked_bias",
    ],
}


@pytest.mark.parametrize("model", BUFFERS)
def test_buffers_are_passed_over(model):
    state = tiny_language.state(model)
    buffers = {name: np.arange(5)[None] for name in BUFFERS[model]}
    assert recognise(model, state | buffers) == recognise(model, state)


def without(model, *parts):
    return {
        name: array
        for name, array in tiny_language.state(model).items()
        if not any(part in name for part in parts)
    }


def added(model, **arrays):
    names = {name.replace("__", "."): array for name, array in arrays.items()}
    return tiny_language.state(model) | names


SQUARE = np.zeros((8, 8), np.float32)
BAD = {
    "a masked language model has no pooler": (
        "BertForMaskedLM",
        tiny_language.state("BertForMaskedLM"),
        ("2 missing", "bert.pooler.dense.weight", "without its pooler", "BertForSequ"),
    ),
    "a layer is not whole": (
        "BertModel",
        without("BertModel", "layer.1.attention.self.key.weight"),
        ("1 missing: encoder.layer.1.attention.self.key.weight", "BertModel"),
    ),
    "a layer is missing": (
        "GPT2Model",
        without("GPT2Model", "h.0."),
        ("12 missing, all h.0.*",),
    ),
    "both sides are listed": (
        "BertModel",
        {
            n.replace("query", "q"): x
            for n, x in tiny_language.state("BertModel").items()
        },
        ("4 missing: ", "self.query.weight", "4 without a place: ", "self.q.weight"),
    ),
    "half of a head": (
        "BertForSequenceClassification",
        without("BertForSequenceClassification", "classifier.bias"),
        ("1 missing: classifier.bias",),
    ),
    "half of RoBERTa's head": (
        "RobertaForSequenceClassification",
        without("RobertaForSequenceClassification", "classifier.dense"),
        ("2 missing: classifier.dense.weight, classifier.dense.bias",),
    ),
    "a head that nobody knows": (
        "RobertaModel",
        added("RobertaModel", qa_outputs__weight=SQUARE),
        ("1 without a place: qa_outputs.weight", "save the state dict of one whole"),
    ),
    "the head of RoBERTa on BERT": (
        "BertModel",
        added("BertModel", classifier__dense__weight=SQUARE),
        ("without a place: classifier.dense.weight",),
    ),
    "a bias of GPT-2's score": (
        "GPT2ForSequenceClassification",
        added("GPT2ForSequenceClassification", score__bias=np.zeros(3)),
        ("without a place: score.bias",),
    ),
    "cross attention": (
        "GPT2Model",
        added("GPT2Model", h__0__crossattention__c_attn__weight=SQUARE),
        ("without a place: h.0.crossattention.c_attn.weight",),
    ),
    "optimizer beside the model": (
        "GPT2Model",
        added("GPT2Model", optimizer__state__0=SQUARE),
        ("without a place: optimizer.state.0",),
    ),
    "two encoders": (
        "BertModel",
        tiny_language.state("BertModel")
        | {f"teacher.{n}": x for n, x in tiny_language.state("BertModel").items()},
        ("holds 2 encoders", "'', 'teacher.'"),
    ),
    "an unknown prefix": (
        "BertModel",
        {f"0.auto_model.{n}": x for n, x in tiny_language.state("BertModel").items()},
        ("the prefix '0.auto_model.'", "'bert.' or none", "module."),
    ),
    "another family": (
        "BertModel",
        tiny_language.state("RobertaForMaskedLM"),
        ("the prefix 'roberta.'", "expected that of a Bert"),
    ),
    "no language model at all": (
        "GPT2Model",
        tiny_language.state("BertModel"),
        ("is no GPT2", "'wte.weight'", "embeddings.word_embeddings.weight"),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_names_are_told(case):
    model, state, parts = BAD[case]
    with pytest.raises(ValueError, match=r"^E21\d `it`: ") as error:
        recognise(model, state)
    for part in parts:
        assert part in str(error.value)


def test_an_unknown_family_is_told():
    with pytest.raises(ValueError, match=r"\['bert', 'roberta', 'gpt2'\], got 't5'"):
        language_names.full_layout("t5", 2)

import pytest

from adarank_jax.checkpoints import language_config
from tests.checkpoints import tiny_language

READ = {
    "bert": {
        "vocabulary_size": 20,
        "width": 8,
        "num_layers": 2,
        "num_heads": 2,
        "mlp_width": 16,
        "max_positions": 10,
        "num_token_types": 2,
        "activation": "gelu",
        "layer_norm_epsilon": 1e-12,
    },
    "roberta": {
        "vocabulary_size": 20,
        "width": 8,
        "num_layers": 2,
        "num_heads": 2,
        "mlp_width": 16,
        "max_positions": 10,
        "num_token_types": 1,
        "activation": "gelu",
        "layer_norm_epsilon": 1e-5,
        "padding_id": 1,
    },
    "gpt2": {
        "vocabulary_size": 20,
        "width": 8,
        "num_layers": 2,
        "num_heads": 2,
        "mlp_width": 8,
        "max_positions": 10,
        "activation": "gelu_new",
        "layer_norm_epsilon": 1e-5,
    },
}


def read(family, **changes):
    return language_config.from_hugging_face(
        tiny_language.CONFIGS[family] | changes, "`it`"
    )


@pytest.mark.parametrize("family", READ)
def test_the_fields_are_read(family):
    assert read(family) == (family, READ[family])


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("bert", (30522, 768, 12, 12, 3072, 512, 2, "gelu", 1e-12)),
        ("roberta", (50265, 768, 12, 12, 3072, 512, 2, "gelu", 1e-12, 1)),
        ("gpt2", (50257, 768, 12, 12, 3072, 1024, "gelu_new", 1e-5)),
    ],
)
def test_missing_fields_have_the_defaults_of_the_library(family, expected):
    _, config = language_config.from_hugging_face({"model_type": family})
    assert tuple(config.values()) == expected


@pytest.mark.parametrize("spelling", ["gelu_new", "gelu_pytorch_tanh", "gelu_fast"])
def test_one_formula_has_one_name(spelling):
    assert read("bert", hidden_act=spelling)[1]["activation"] == "gelu_new"


REFUSED = [
    ("bert", {"model_type": "distilbert"}, ("'model_type' 'distilbert'", "'roberta'")),
    ("bert", {"model_type": None}, ("'model_type' None",)),
    ("bert", {"model_type": ["bert"]}, ("'model_type' ['bert']",)),
    (
        "bert",
        {"position_embedding_type": "relative_key"},
        ("'position_embedding_type' is 'relative_key'", "expected 'absolute'"),
    ),
    ("roberta", {"is_decoder": True}, ("'is_decoder' is True", "encoder")),
    ("bert", {"add_cross_attention": True}, ("'add_cross_attention' is True",)),
    ("bert", {"pruned_heads": {"0": [1]}}, ("'pruned_heads'", "without some heads")),
    ("bert", {"auto_map": {"AutoModel": "a.B"}}, ("'auto_map'", "never run")),
    ("gpt2", {"quantization_config": {"bits": 4}}, ("dequantise them first",)),
    ("gpt2", {"scale_attn_weights": False}, ("'scale_attn_weights' is False",)),
    (
        "gpt2",
        {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
        (
            "'scale_attn_by_inverse_layer_idx' is True",
            "'reorder_and_upcast_attn' is True",
        ),
    ),
    ("bert", {"hidden_act": "gelu_10"}, ("'hidden_act' 'gelu_10'", "'gelu_new'")),
    ("gpt2", {"activation_function": None, "n_head": 3}, ("width 8 and 3 attention",)),
    ("bert", {"hidden_size": "8"}, ("'hidden_size' '8'", "positive integer")),
    ("bert", {"hidden_size": 8.0}, ("'hidden_size' 8.0",)),
    ("bert", {"num_hidden_layers": 0}, ("'num_hidden_layers' 0",)),
    ("bert", {"vocab_size": True}, ("'vocab_size' True",)),
    ("gpt2", {"n_inner": -1}, ("'n_inner' -1",)),
    ("bert", {"layer_norm_eps": 0}, ("'layer_norm_eps' 0", "positive number")),
    ("bert", {"layer_norm_eps": float("nan")}, ("'layer_norm_eps' nan",)),
    ("roberta", {"pad_token_id": -1}, ("'pad_token_id' -1", "integer or 0")),
    ("roberta", {"pad_token_id": 9}, ("10 positions", "padding id 9")),
]


@pytest.mark.parametrize(("family", "changes", "parts"), REFUSED)
def test_what_is_not_modelled_is_refused(family, changes, parts):
    with pytest.raises(ValueError, match=r"^E1\d\d `it`: ") as error:
        read(family, **changes)
    for part in parts:
        assert part in str(error.value)


def test_values_that_change_nothing_are_accepted():
    usual = {
        "position_embedding_type": "absolute",
        "pruned_heads": {},
        "auto_map": None,
    }
    assert read("bert", **usual) == ("bert", READ["bert"])


def test_class_names_are_in_the_order_of_the_rows():
    labels = {"2": "c", "0": "a", "1": "b"}
    assert language_config.class_names({"id2label": labels}, 3) == ("a", "b", "c")


@pytest.mark.parametrize(
    "values", [{}, {"id2label": None}, {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}]
)
def test_placeholders_are_no_names(values):
    assert language_config.class_names(values, 2) is None


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        ({"0": "a", "1": "b"}, "the 3 rows of the head"),
        ({"0": "a", "1": "b", "3": "c"}, "ids 0 to 2"),
        (["a", "b", "c"], "ids 0 to 2"),
        ({"0": "a", "1": "b", "2": "b"}, "names that differ"),
        ({"0": "a", "1": "b", "2": " "}, "names that differ"),
        ({"0": "a", "1": "b", "2": 5}, "names that differ"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(labels, part):
    with pytest.raises(ValueError, match="'id2label'") as error:
        language_config.class_names({"id2label": labels}, 3)
    assert part in str(error.value)


@pytest.mark.parametrize(
    ("values", "num_classes", "part"),
    [
        ({}, 1, "a head with 1 class, as regression has"),
        ({"problem_type": "regression"}, 3, "'problem_type' 'regression'"),
        ({"problem_type": "multi_label_classification"}, 3, "'multi_label"),
    ],
)
def test_heads_without_an_entropy_are_refused(values, num_classes, part):
    with pytest.raises(
        ValueError, match="^E308 .*entropy undefined; exclude it"
    ) as error:
        language_config.check_classifies(values, num_classes)
    assert part in str(error.value)


def test_heads_of_another_kind_are_refused():
    values = {"architectures": ["BertForTokenClassification"]}
    with pytest.raises(ValueError, match="is a BertForTokenClassification"):
        language_config.check_classifies(values, 3)
    named = {"architectures": ["BertForSequenceClassification"], "problem_type": None}
    language_config.check_classifies(named, 2)
    language_config.check_classifies({"problem_type": "single_label_classification"}, 2)


ALIASES = {
    "hidden_size": ("n_embd", "width", 48),
    "num_hidden_layers": ("n_layer", "num_layers", 5),
    "num_attention_heads": ("n_head", "num_heads", 16),
    "max_position_embeddings": ("n_positions", "max_positions", 77),
}


@pytest.mark.parametrize("alias", ALIASES)
def test_gpt2_has_two_spellings_of_a_size(alias):
    usual, ours, value = ALIASES[alias]
    sizes = {"model_type": "gpt2", "n_embd": 768} | {alias: value}
    if usual == "n_embd":
        del sizes["n_embd"]
    read = language_config.from_hugging_face
    assert read(sizes)[1][ours] == value
    assert read(sizes | {usual: value}) == read(sizes)
    with pytest.raises(ValueError, match=f"'{usual}' 3 and '{alias}' {value}, two na"):
        read(sizes | {usual: 3})

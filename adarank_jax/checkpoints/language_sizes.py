"""The shapes that the weights of a language model have, told by its configuration."""

from collections.abc import Mapping
from typing import Any

Shapes = dict[str, tuple[int, ...]]


def encoder_shapes(family: str, config: Mapping[str, Any]) -> Shapes:
    """Lists the shapes of the encoder.

    Args:
        family: ``bert``, ``roberta`` or ``gpt2``.
        config: fields of its module, as `language_config` returns them.

    Returns:
        Shape by path; kernels are (inputs, outputs).

    Examples:
        >>> config = {"vocabulary_size": 9, "width": 4, "num_layers": 1, "mlp_width": 8}
        >>> shapes = encoder_shapes("gpt2", config | {"max_positions": 5})
        >>> shapes["h_0/attn/c_attn/kernel"]
        (4, 12)
    """
    width = config["width"]
    tables = {"word": config["vocabulary_size"], "position": config["max_positions"]}
    if family == "gpt2":
        found: Shapes = {
            "wte/embedding": (tables["word"], width),
            "wpe/embedding": (tables["position"], width),
            **_norm("ln_f", width),
        }
    else:
        tables["token_type"] = config["num_token_types"]
        found = {
            f"embeddings/{name}_embeddings/embedding": (rows, width)
            for name, rows in tables.items()
        }
        found |= _norm("embeddings/LayerNorm", width)
    for i in range(config["num_layers"]):
        found |= (_gpt2_layer if family == "gpt2" else _bert_layer)(i, config)
    if family == "bert":
        found |= _dense("pooler/dense", width, width)
    return found


def head_shapes(family: str, width: int, num_classes: int) -> Shapes:
    """Lists the shapes of a head of sequence classification.

    Args:
        family: ``bert``, ``roberta`` or ``gpt2``.
        width: of the encoder.
        num_classes: of the task.

    Examples:
        >>> head_shapes("gpt2", 768, 3)
        {'kernel': (768, 3)}
    """
    if family == "gpt2":
        return {"kernel": (width, num_classes)}
    if family == "bert":
        return {"kernel": (width, num_classes), "bias": (num_classes,)}
    return {
        **_dense("dense", width, width),
        **_dense("out_proj", width, num_classes),
    }


def _bert_layer(i, config):
    """Lists the shapes of one layer of BERT or RoBERTa."""
    width, mlp = config["width"], config["mlp_width"]
    layer = f"encoder/layer_{i}"
    found = {}
    for name in ("self/query", "self/key", "self/value", "output/dense"):
        found |= _dense(f"{layer}/attention/{name}", width, width)
    found |= _norm(f"{layer}/attention/output/LayerNorm", width)
    found |= _dense(f"{layer}/intermediate/dense", width, mlp)
    found |= _dense(f"{layer}/output/dense", mlp, width)
    return found | _norm(f"{layer}/output/LayerNorm", width)


def _gpt2_layer(i, config):
    """Lists the shapes of one layer of GPT-2."""
    width, mlp = config["width"], config["mlp_width"]
    return {
        **_norm(f"h_{i}/ln_1", width),
        **_dense(f"h_{i}/attn/c_attn", width, 3 * width),
        **_dense(f"h_{i}/attn/c_proj", width, width),
        **_norm(f"h_{i}/ln_2", width),
        **_dense(f"h_{i}/mlp/c_fc", width, mlp),
        **_dense(f"h_{i}/mlp/c_proj", mlp, width),
    }


def _dense(name, inputs, outputs):
    """Lists the shapes of kernel and bias."""
    return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}


def _norm(name, width):
    """Lists the shapes of scale and bias of a LayerNorm."""
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}

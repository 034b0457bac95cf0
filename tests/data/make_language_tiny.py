"""Records what transformers' classifiers compute with tiny random weights.

Run ``python tests/data/make_language_tiny.py`` where torch and transformers are
installed; it writes language_tiny.npz. The weights are float32, the arithmetic float64.
They are drawn so that every part of a model moves the logits by much more than the
tests tolerate.
"""

import json
import pathlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("language_tiny.npz")
VOCABULARY = 50
BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 16,
}
CASES = {
    # name: class, arguments of its config
    "bert": ("Bert", BERT | {"pad_token_id": 0, "num_labels": 3}),
    "bert_other": (
        "Bert",
        BERT
        | {"pad_token_id": 7, "num_labels": 5, "type_vocab_size": 3}
        | {"hidden_act": "gelu_new", "layer_norm_eps": 1e-2},
    ),
    "roberta": (
        "Roberta",
        BERT
        | {"pad_token_id": 1, "num_labels": 2, "type_vocab_size": 1}
        | {"layer_norm_eps": 1e-5},
    ),
    "roberta_other": (
        "Roberta",
        BERT
        | {"pad_token_id": 3, "num_labels": 4, "type_vocab_size": 1}
        | {"hidden_act": "relu", "layer_norm_eps": 1e-2},
    ),
    "gpt2": ("GPT2", GPT2 | {"pad_token_id": 49, "num_labels": 3}),
    "gpt2_other": (
        "GPT2",
        GPT2
        | {"pad_token_id": 0, "num_labels": 2, "n_inner": 24}
        | {"activation_function": "gelu", "layer_norm_epsilon": 1e-2},
    ),
}


def texts(pad, num_types):
    """Returns texts of several lengths, padded right or left, one and two segments."""
    rng = np.random.default_rng(pad)
    lengths, size = (12, 7, 1, 10, 5), 12
    ids = rng.integers(0, VOCABULARY, (len(lengths), size))
    ids[ids == pad] = 11
    # The padding id is a token's as well, here in the middle of a text.
    ids[0, 4] = pad
    mask = np.zeros_like(ids)
    types = np.zeros_like(ids)
    for i, length in enumerate(lengths):
        mask[i, :length] = 1
    mask[3] = mask[3, ::-1]
    ids[mask == 0] = pad
    for i, start in ((0, 6), (1, 4)):
        types[i, start : lengths[i]] = num_types - 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def draw(rng, name, shape):
    """Draws one tensor at a size that matters."""
    noise = rng.normal(size=shape)
    if ("LayerNorm" in name or "ln_" in name) and name.endswith("weight"):
        return 1 + 0.3 * noise
    if name.endswith("bias"):
        return 0.3 * noise
    if "embeddings" in name or "wte" in name or "wpe" in name:
        return 0.7 * noise
    return noise * 1.5 / np.sqrt(max(shape))


def record(case, seed):
    """Computes the outputs of one case."""
    import torch
    import transformers

    family, arguments = CASES[case]
    rng = np.random.default_rng(seed)
    config = getattr(transformers, f"{family}Config")(**arguments)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    state = {
        name: np.asarray(draw(rng, name, tensor.shape), np.float32)
        for name, tensor in sorted(model.state_dict().items())
    }
    model.load_state_dict({name: torch.tensor(x) for name, x in state.items()})
    model.double()
    inputs = texts(config.pad_token_id, getattr(config, "type_vocab_size", 1))
    tensors = {name: torch.tensor(x) for name, x in inputs.items()}
    if family != "Bert":
        del tensors["token_type_ids"]
    with torch.no_grad():
        logits = model(**tensors).logits
        outputs = getattr(model, model.base_model_prefix)(**tensors)
    if family == "Bert":
        features = outputs.pooler_output
    elif family == "Roberta":
        features = outputs.last_hidden_state[:, 0]
    else:
        places = np.arange(inputs["attention_mask"].shape[1])
        last = (inputs["attention_mask"] * places).argmax(axis=1)
        features = outputs.last_hidden_state[torch.arange(len(last)), last]
    return {
        "config": np.array(json.dumps(config.to_dict())),
        "features": features.numpy(),
        "logits": logits.numpy(),
        **{f"inputs/{name}": x for name, x in inputs.items()},
        **{f"state/{name}": tensor for name, tensor in state.items()},
    }


def main():
    """Writes the file."""
    arrays = {}
    for seed, case in enumerate(CASES):
        for name, array in record(case, seed).items():
            arrays[f"{case}/{name}"] = array
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()

"""Writes the names and shapes that transformers gives to tiny language models.

A whole GPT-2, whose ``lm_head`` shares its storage with ``wte``, is written twice: by
`torch.save`, as old checkpoints are, and as safetensors.

Run with torch and transformers 5: ``python tests/data/make_language_names.py``. Every
matrix of a layer that can be square is square, so that no shape tells which way round
it is kept.
"""

import json
import pathlib

BERT = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 20,
    "max_position_embeddings": 10,
    "type_vocab_size": 2,
}
ROBERTA = BERT | {"type_vocab_size": 1, "layer_norm_eps": 1e-5}
GPT2 = {
    "n_embd": 8,
    "n_layer": 2,
    "n_head": 2,
    "n_inner": 8,
    "vocab_size": 20,
    "n_positions": 10,
    "bos_token_id": 19,
    "eos_token_id": 19,
}
MODELS = {
    "bert": (
        "BertModel",
        "BertForMaskedLM",
        "BertForPreTraining",
        "BertForSequenceClassification",
    ),
    "roberta": (
        "RobertaModel",
        "RobertaForMaskedLM",
        "RobertaForSequenceClassification",
    ),
    "gpt2": ("GPT2Model", "GPT2LMHeadModel", "GPT2ForSequenceClassification"),
}


def main():
    """Builds one model of each class and lists its state dict."""
    import safetensors.torch
    import torch
    import transformers

    configs = {
        "bert": transformers.BertConfig(**BERT),
        "roberta": transformers.RobertaConfig(**ROBERTA),
        "gpt2": transformers.GPT2Config(**GPT2),
    }
    names = {"transformers": transformers.__version__}
    for family, config in configs.items():
        names[f"{family} config"] = json.loads(config.to_json_string())
        for model in MODELS[family]:
            config.num_labels = 3
            state = getattr(transformers, model)(config).state_dict()
            names[model] = {name: list(tensor.shape) for name, tensor in state.items()}
    torch.manual_seed(0)
    state = transformers.GPT2LMHeadModel(configs["gpt2"]).state_dict()
    here = pathlib.Path(__file__).parent
    torch.save(state, here / "language_gpt2.bin")
    copies = {name: tensor.clone() for name, tensor in state.items()}
    safetensors.torch.save_file(copies, here / "language_gpt2.safetensors")
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in names.items()]
    file = here / "language_names.json"
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()

"""Records a zero-shot head of a tiny torch CLIP, for `tests/experiments`.

Run with torch and transformers: `python tests/data/make_zero_shot.py`. Writes the
folder `zero_shot_tiny` beside this file: the files of a tokeniser, the text tower under
the names of this package, and the head that torch makes of some names and templates.
"""

import json
import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

FOLDER = pathlib.Path(__file__).parent / "zero_shot_tiny"
CONTEXT, WIDTH, LAYERS, HEADS, OUTPUT = 28, 24, 2, 3, 16
LOGIT_SCALE = 2.6592
NAMES = [
    "cat",
    "Dog",
    "['happy', 'smiling']",
    "Ram C/V Cargo Van 2012",
    "american_bulldog",
    "お",
    "a name that is far too long for a context as short as this one is",
]
TEMPLATES = ["a photo of a {}.", 'the number: "{}"', "{} in the photo"]
MERGES = (
    "t h|th e</w>|p h|o t|ph ot|phot o</w>|o f</w>|i n</w>|n u|m b|e r</w>|mb er</w>|"
    "nu mber</w>|c a|ca t</w>|d o|do g</w>|h a|p p|ha pp|happ y</w>"
).split("|")


def main():
    FOLDER.mkdir(exist_ok=True)
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    weight = zero_shot(model, tokenizer)
    save_file(to_tree(model), FOLDER / "text.safetensors")
    recorded = {
        "class_names": NAMES,
        "templates": TEMPLATES,
        "logit_scale": LOGIT_SCALE,
        "config": {
            "vocabulary_size": len(tokenizer),
            "context_length": CONTEXT,
            "width": WIDTH,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "output_size": OUTPUT,
        },
        "weight": weight.tolist(),
    }
    text = json.dumps(recorded, indent=1, ensure_ascii=False)
    (FOLDER / "expected.json").write_text(text + "\n", encoding="utf-8")


def make_tokenizer():
    """Bytes, bytes that end a word, merged pairs, and the two special tokens last."""
    letters = byte_letters()
    tokens = letters + [letter + "</w>" for letter in letters]
    tokens += [pair.replace(" ", "") for pair in MERGES]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    text = json.dumps(vocabulary, ensure_ascii=False)
    (FOLDER / "vocab.json").write_text(text + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *MERGES, ""]
    (FOLDER / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    pairs = [tuple(pair.split(" ")) for pair in MERGES]
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=pairs)
    tokenizer.backend_tokenizer.save(str(FOLDER / "tokenizer.json"), pretty=False)
    return tokenizer


def byte_letters():
    """One visible letter for each byte, as byte-level BPE writes them."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(b) for b in visible] + [chr(256 + i) for i in range(len(hidden))]


def make_model(vocabulary_size):
    torch.manual_seed(0)
    text = {
        "vocab_size": vocabulary_size,
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": CONTEXT,
        "hidden_act": "quick_gelu",
        "bos_token_id": vocabulary_size - 2,
        "eos_token_id": vocabulary_size - 1,
        "pad_token_id": vocabulary_size - 1,
    }
    vision = {
        "hidden_size": 12,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=OUTPUT)
    model = CLIPModel(config).eval()
    with torch.no_grad():  # far from the values that layers start with
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.logit_scale.fill_(LOGIT_SCALE)
    return model


@torch.no_grad()
def zero_shot(model, tokenizer):
    """Class by class, as the published code builds its heads."""
    rows = []
    for name in NAMES:
        texts = [template.replace("{}", name) for template in TEMPLATES]
        tokens = tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=CONTEXT,
            return_tensors="pt",
        )
        features = model.get_text_features(**tokens)
        features = getattr(features, "pooler_output", features)
        features = features / features.norm(dim=-1, keepdim=True)
        mean = features.mean(dim=0)
        rows.append(model.logit_scale.exp() * mean / mean.norm())
    return torch.stack(rows).numpy()


def to_tree(model):
    """The text tower under this package's names, kernels as (inputs, outputs)."""
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    text = "text_model."
    flat = {
        "token_embedding/embedding": state[text + "embeddings.token_embedding.weight"],
        "positional_embedding": state[text + "embeddings.position_embedding.weight"],
        "text_projection": state["text_projection.weight"].T,
        **norm("ln_final", state, text + "final_layer_norm"),
    }
    for i in range(LAYERS):
        ours, theirs = f"resblocks_{i}/", f"{text}encoder.layers.{i}."
        flat |= norm(ours + "ln_1", state, theirs + "layer_norm1")
        flat |= norm(ours + "ln_2", state, theirs + "layer_norm2")
        qkv = [theirs + f"self_attn.{x}_proj" for x in "qkv"]
        flat |= dense(ours + "attn/in_proj", state, qkv)
        flat |= dense(ours + "attn/out_proj", state, [theirs + "self_attn.out_proj"])
        flat |= dense(ours + "mlp/c_fc", state, [theirs + "mlp.fc1"])
        flat |= dense(ours + "mlp/c_proj", state, [theirs + "mlp.fc2"])
    return {name: np.ascontiguousarray(value) for name, value in flat.items()}


def norm(ours, state, theirs):
    return {
        ours + "/scale": state[theirs + ".weight"],
        ours + "/bias": state[theirs + ".bias"],
    }


def dense(ours, state, theirs):
    return {
        ours + "/kernel": np.concatenate([state[t + ".weight"] for t in theirs]).T,
        ours + "/bias": np.concatenate([state[t + ".bias"] for t in theirs]),
    }


if __name__ == "__main__":
    main()

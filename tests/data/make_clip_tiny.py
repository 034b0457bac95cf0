"""Records what transformers' CLIP computes with tiny random weights: clip_tiny.npz.

Run ``python tests/data/make_clip_tiny.py`` where torch and transformers are installed.
The weights are float32, the arithmetic float64. They are drawn so that every part of
the model moves the outputs by much more than the tests tolerate.
"""

import json
import pathlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("clip_tiny.npz")
END, ABOVE_END = 57, 58
SHARED = {"num_hidden_layers": 2, "projection_dim": 12}
VISION = {"hidden_size": 16, "num_attention_heads": 2, "image_size": 24}
TEXT = {"hidden_size": 12, "num_attention_heads": 3, "vocab_size": 60}
CASES = {
    # eos_token_id 2 is that of OpenAI's files: it stands for the largest id.
    "quick_gelu": {
        "both": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
        "vision": {"intermediate_size": 64},
        "text": {"intermediate_size": 48, "eos_token_id": 2},
    },
    "gelu": {
        "both": {"hidden_act": "gelu", "layer_norm_eps": 1e-2},
        "vision": {"intermediate_size": 40},
        "text": {"intermediate_size": 30, "eos_token_id": END},
    },
}


def config(case):
    """Returns the arguments of a CLIPConfig."""
    both = SHARED | CASES[case]["both"]
    positions = {"max_position_embeddings": 10}
    ids = {"bos_token_id": 56, "pad_token_id": 0}
    return {
        "projection_dim": SHARED["projection_dim"],
        "vision_config": VISION | both | {"patch_size": 8} | CASES[case]["vision"],
        "text_config": TEXT | both | positions | ids | CASES[case]["text"],
    }


def texts(case):
    """Returns token ids, padded with zeros, with the end token or not at all."""
    above = END if case == "quick_gelu" else ABOVE_END
    return np.array(
        [
            [56, 3, 11, END, 0, 0, 0, 0, 0, 0],
            [56, 8, END, END, END, END, END, END, END, END],
            [56, 41, 7, above, 2, 19, 30, 5, 23, END],
            [56, 1, 55, 54, 20, END, 9, 0, 0, 0],
        ]
    )


def draw(rng, name, shape):
    """Draws one tensor at a size that matters."""
    noise = rng.normal(size=shape)
    if name == "logit_scale":
        return np.log(20.0)
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.3 * noise
    if "norm" in name or name.endswith("bias"):
        return 0.3 * noise
    if "embedding" in name and "patch" not in name:
        return 0.7 * noise
    return noise * 1.5 / np.sqrt(np.prod(shape[1:]))


def record(case, seed):
    """Computes the outputs of one case."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    rng = np.random.default_rng(seed)
    model = CLIPModel(CLIPConfig(**config(case))).eval()
    state = {
        name: np.asarray(draw(rng, name, tensor.shape), np.float32)
        for name, tensor in sorted(model.state_dict().items())
    }
    model.load_state_dict({name: torch.tensor(x) for name, x in state.items()})
    model.double()
    pixels = rng.normal(size=(3, 3, 24, 24)).astype(np.float32)
    tokens = texts(case)
    with torch.no_grad():
        images = torch.tensor(pixels).double()
        ids = torch.tensor(tokens)
        seen = torch.tensor(tokens != 0).long()
        outputs = model(input_ids=ids, attention_mask=seen, pixel_values=images)
        image = model.get_image_features(images).pooler_output
        text = model.get_text_features(ids, attention_mask=seen).pooler_output
        # The average over patches is open_clip's; transformers has the parts of it.
        last = model.vision_model(images).last_hidden_state
        patches = model.vision_model.post_layernorm(last)[:, 1:]
        average = model.visual_projection(patches.mean(dim=1))
    computed = {
        "image_embeds": image,
        "average_embeds": average,
        "text_embeds": text,
        "logits_per_image": outputs.logits_per_image,
    }
    return {
        "config": np.array(json.dumps(config(case))),
        "pixels": pixels,
        "tokens": tokens,
        **{name: x.numpy() for name, x in computed.items()},
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

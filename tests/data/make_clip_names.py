"""Writes the names and shapes that transformers gives to tiny CLIP models.

Run with torch and transformers 5: ``python tests/data/make_clip_names.py``. Release 4
put ``vision_model.`` and ``text_model.`` before the names of the towers saved alone.
"""

import json
import pathlib

VISION = {
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 24,
}
TEXT = {
    "hidden_size": 20,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 7,
    "projection_dim": 24,
    "bos_token_id": 48,
    "eos_token_id": 49,
}


def main():
    """Builds one model of each class and lists its state dict."""
    import transformers

    vision = transformers.CLIPVisionConfig(**VISION)
    text = transformers.CLIPTextConfig(**TEXT)
    both = transformers.CLIPConfig(
        text_config=TEXT, vision_config=VISION, projection_dim=24
    )
    models = {
        "CLIPModel": transformers.CLIPModel(both),
        "CLIPVisionModel": transformers.CLIPVisionModel(vision),
        "CLIPVisionModelWithProjection": transformers.CLIPVisionModelWithProjection(
            vision
        ),
        "CLIPTextModel": transformers.CLIPTextModel(text),
        "CLIPTextModelWithProjection": transformers.CLIPTextModelWithProjection(text),
    }
    names = {"transformers": transformers.__version__}
    names["config"] = json.loads(both.to_json_string())
    for model, module in models.items():
        state = module.state_dict()
        names[model] = {name: list(tensor.shape) for name, tensor in state.items()}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in names.items()]
    file = pathlib.Path(__file__).with_name("clip_names.json")
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()

"""Exports in plain transformers, in an interpreter without adarank_jax.

ADARANK_TORCH_PYTHON names the interpreter; it needs torch and transformers.
"""

import ast
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax import tree
from adarank_jax.checkpoints import language, language_export
from adarank_jax.checkpoints.language_export import LanguageHead
from adarank_jax.models import language as language_models
from experiments import card
from tests import torch_python
from tests.checkpoints import language_folders

pytestmark = pytest.mark.slow

LOAD = """
import importlib.util, json, sys
import numpy as np, torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

assert importlib.util.find_spec("adarank_jax") is None, "adarank_jax is there"


def clean(found):
    model, info = found
    problems = {key: sorted(map(str, names)) for key, names in info.items() if names}
    assert not problems, problems
    return model.float().eval()


def load(place, encoder):
    if encoder is None:
        return clean(AutoModelForSequenceClassification.from_pretrained(
            place, output_loading_info=True
        ))
    config = AutoConfig.from_pretrained(place)
    model = AutoModelForSequenceClassification.from_config(config)
    setattr(model, model.base_model_prefix, encoder)
    found = model.load_state_dict(load_file(place + "/head.safetensors"), strict=False)
    assert not found.unexpected_keys, found.unexpected_keys
    assert all(name.startswith(model.base_model_prefix) for name in found.missing_keys)
    return model.float().eval()


inputs = {k: torch.from_numpy(x).long() for k, x in np.load("inputs.npz").items()}
for case, way, options in json.loads(sys.argv[1]):
    encoder = clean(AutoModel.from_pretrained(
        case + "/out", output_loading_info=True, **options
    ))
    for task, classes in (("sst-2", 2), ("mnli", 3)):
        place = f"{case}/out/tasks/{task}"
        model = load(place, None if way == "copies" else encoder)
        assert model.config.num_labels == classes, model.config
        with torch.no_grad():
            np.save(f"{case}/{task}.npy", model(**inputs).logits.numpy())
"""


def make(folder, family, kind, **options):
    """Exports a tiny model that was moved; returns base, heads and the folder."""
    base = language.read_language(
        str(language_folders.write(folder / "base", family, kind))
    )
    heads = [
        LanguageHead("SST-2", language_folders.head(family, 2), ("bad", "good")),
        LanguageHead("mnli", language_folders.head(family, 3, 1)),
    ]
    about = card.Card(
        title="tiny",
        method="moving",
        base=card.Parent("base", "org/base"),
        experts=[card.Parent("SST-2", "org/one"), card.Parent("mnli", "org/two")],
        heads=[card.CardHead("SST-2", "sst-2", 2), card.CardHead("mnli", "mnli", 3)],
        uses="nothing",
        command="true",
        config="",
        versions={},
        seed=0,
        language=card.Language(
            family=family,
            max_length=12,
            metrics={},
            has_pooler=language_export.has_pooler(base),
            per_task_copies=options.get("per_task_copies", False),
        ),
    )
    merged = language_folders.moved(base.encoder, 5)
    files = {"README.md": card.render(about).encode()}
    out = language_export.write_model(
        folder / "out", base, merged, heads, files=files, **options
    )
    return base, heads, out


def classify(base, encoder, head, inputs):
    """Classifies texts with our own model."""
    family = language_models.family(base.family)
    module = family.module_class(family.config_class(**base.config))
    batch = {name: jnp.asarray(ids) for name, ids in inputs.items()}
    return np.asarray(family.classify(module.apply({"params": encoder}, batch), head))


def rounded(params, kind):
    """Rounds parameters as the export does."""
    width = "bfloat16" if kind == "half" else "float32"
    return tree.map_with_path(
        lambda _, x: np.asarray(jnp.asarray(x).astype(width).astype("float32")), params
    )


def draw_inputs(family):
    """Draws texts of different lengths; no token looks like the padding."""
    rng = np.random.default_rng(3)
    mask = (np.arange(9)[None] < np.array([[9], [4], [6]])).astype(np.int32)
    padding = {"bert": 0, "roberta": 0, "gpt2": 3}[family]
    ids = np.where(mask, rng.integers(4, 20, mask.shape), padding).astype(np.int32)
    types = np.zeros_like(ids)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


@pytest.mark.parametrize("family", language_folders.FAMILIES)
def test_transformers_loads_exports_cleanly_and_predicts_the_same(tmp_path, family):
    inputs = draw_inputs(family)
    given = dict(inputs)
    if family == "gpt2":
        del given["token_type_ids"]  # which transformers would add to the tokens
    np.savez(tmp_path / "inputs.npz", **given)
    cases, ours = [], {}
    for kind in language_folders.KINDS:
        for way in ("once", "copies"):
            case = f"{kind}-{way}"
            size = 9_000 if kind == "bare" else "5GB"
            base, heads, out = make(
                *(tmp_path / case, family, kind),
                per_task_copies=way == "copies",
                max_shard_size=size,
            )
            is_told = family == "roberta" and not language_export.has_pooler(base)
            cases.append((case, way, {"add_pooling_layer": False} if is_told else {}))
            encoder = language.read_language(str(out)).encoder
            for slug, head in zip(("sst-2", "mnli"), heads, strict=True):
                values = classify(base, encoder, rounded(head.tree, kind), inputs)
                ours[tmp_path / case / f"{slug}.npy"] = values
    torch_python.run(LOAD, tmp_path, json.dumps(cases))
    assert len(ours) == 16
    for file, values in ours.items():
        np.testing.assert_allclose(np.load(file), values, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "kind", "copies"),
    [
        ("bert", "prefixed", False),
        ("bert", "bare", True),
        ("roberta", "bare", False),  # without a pooler
        ("roberta", "prefixed", False),
        ("gpt2", "bare", False),
        ("gpt2", "prefixed", True),
    ],
)
def test_snippet_of_the_card_runs_on_the_exported_files(tmp_path, family, kind, copies):
    base, heads, out = make(tmp_path, family, kind, per_task_copies=copies)
    text = (out / "README.md").read_text("utf-8")
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    words = ["a good film", "it not very dull and bad"]
    asked = '["A text.", "Another one."]'
    assert asked in snippet
    said = torch_python.run(snippet.replace(asked, repr(words)), out, warns=False)
    ids = {word: i for i, word in enumerate(language_folders.WORDS, start=4)}
    rows = [[ids[word] for word in each.split()] for each in words]
    if family != "gpt2":
        rows = [[2, *row, 3] for row in rows]
    longest = max(map(len, rows))
    padding = 3 if family == "gpt2" else 0
    inputs = {
        "input_ids": [row + [padding] * (longest - len(row)) for row in rows],
        "attention_mask": [[1] * len(r) + [0] * (longest - len(r)) for r in rows],
        "token_type_ids": [[0] * longest] * 2,
    }
    inputs = {name: np.asarray(value, np.int32) for name, value in inputs.items()}
    encoder = language.read_language(str(out)).encoder
    ours = classify(base, encoder, heads[0].tree, inputs).argmax(-1)
    found = ast.literal_eval(said.strip().splitlines()[-1])
    assert found == [heads[0].class_names[i] for i in ours]

"""Encoders of full width and two layers against transformers, with random weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax.models import bert, gpt2, language, roberta
from tests import helpers, torch_python
from tests.models import language_oracle

SIZES = {
    "bert": bert.variant("bert-base-uncased"),
    "roberta": roberta.variant("roberta-base"),
    "gpt2": gpt2.variant("gpt2"),
}
CLASSES = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "gpt2": "GPT2ForSequenceClassification",
}
# What differs from the defaults of transformers, as in the published config.json.
ARGUMENTS = {
    "bert": {"num_hidden_layers": 2},
    "roberta": {
        "num_hidden_layers": 2,
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    },
    "gpt2": {"n_layer": 2, "pad_token_id": 50256},
}
PADDING = {"bert": 0, "roberta": 1, "gpt2": 50256}
MAKE = """
import json, sys
import numpy as np, torch, transformers

name, arguments = sys.argv[1], json.loads(sys.argv[2])
model_class = getattr(transformers, name)
torch.manual_seed(0)
model = model_class(model_class.config_class(num_labels=3, **arguments)).eval()
# Drawn as for training, the layers hardly move the outputs.
with torch.no_grad():
    for name, tensor in model.named_parameters():
        if tensor.ndim == 2 and ("layer." in name or ".h." in name):
            tensor *= 3.0
        elif tensor.ndim == 1:
            tensor += 0.1 * torch.randn(tensor.shape)
    inputs = dict(np.load("inputs.npz"))
    if "Bert" not in model_class.__name__[:4]:
        del inputs["token_type_ids"]
    tensors = {name: torch.from_numpy(x).long() for name, x in inputs.items()}
    logits = model(**tensors).logits.numpy()
state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
np.savez("state.npz", **state)
np.save("logits.npy", logits)
json.dump(model.config.to_dict(), open("config.json", "w"))
"""


def texts(family):
    """Returns texts of 128, 40 and 3 tokens, the first a pair."""
    ids = np.random.default_rng(0).integers(100, 30_000, (3, 128)).astype(np.int32)
    mask = np.int32(np.arange(128)[None] < np.array([[128], [40], [3]]))
    types = np.zeros_like(ids)
    if family == "bert":
        types[0, 60:] = 1
    ids = np.where(mask, ids, PADDING[family])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


@pytest.mark.slow
@pytest.mark.parametrize("family", SIZES)
def test_classifiers_agree_with_live_torch(family, tmp_path):
    inputs = texts(family)
    np.savez(tmp_path / "inputs.npz", **inputs)
    torch_python.run(MAKE, tmp_path, CLASSES[family], json.dumps(ARGUMENTS[family]))
    theirs = json.loads((tmp_path / "config.json").read_text())
    config = language_oracle.config(theirs)
    published = language_oracle.config(theirs, num_layers=12)
    assert published == SIZES[family]
    with np.load(tmp_path / "state.npz") as state:
        params, head = language_oracle.params(dict(state), family)
    apply = jax.jit(language.FAMILIES[family].module_class(config).apply)
    inputs = {name: jnp.asarray(x) for name, x in inputs.items()}
    logits = language.FAMILIES[family].classify(apply({"params": params}, inputs), head)
    assert helpers.relative_error(logits, np.load(tmp_path / "logits.npy")) < 1e-5

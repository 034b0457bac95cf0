"""From the files that torch wrote to the logits that it computed: nothing between."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from adarank_jax.checkpoints import language
from adarank_jax.models.language import FAMILIES
from tests import helpers
from tests.models import language_oracle


@pytest.mark.parametrize("case", language_oracle.CASES)
def test_a_file_gives_the_logits_that_torch_recorded(case, tmp_path):
    recorded = language_oracle.recording(case)
    tensors = {n: np.ascontiguousarray(x) for n, x in recorded.state.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(recorded.config))
    read = language.read_language(str(tmp_path))
    family = FAMILIES[read.family]
    module = family.module_class(family.config_class(**read.config))
    inputs, encoder = helpers.to_jax(recorded.inputs), helpers.to_jax(read.encoder)
    features = module.apply({"params": encoder}, inputs)
    family.check_head(read.head, read.config["width"], case)
    logits = family.classify(features, helpers.to_jax(read.head))
    np.testing.assert_allclose(features, recorded.features, atol=1e-5)
    np.testing.assert_allclose(logits, recorded.logits, atol=1e-5)

"""Iso-C against the oracle."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax.mergers import iso_c
from adarank_jax.mergers.iso_c import flat_spectrum
from tests import helpers
from tests.oracles import static


@pytest.mark.parametrize("coefficient", (1.0, 1.5))
@pytest.mark.parametrize("num_tasks", (1, 3))
def test_iso_c_agrees_with_oracle(num_tasks, coefficient):
    pretrained, finetuned = helpers.task_set(num_tasks=num_tasks)
    theirs = static.iso_c(
        helpers.flat64(pretrained),
        [helpers.flat64(model) for model in finetuned],
        helpers.DECOMPOSED,
        coefficient,
    )
    ours = iso_c(pretrained, finetuned, helpers.is_decomposed, coefficient=coefficient)
    helpers.assert_close(ours, theirs)


def test_iso_c_has_the_default_of_fusion_bench():
    models = helpers.task_set()
    chex.assert_trees_all_equal(
        iso_c(*models, helpers.is_decomposed),
        iso_c(*models, helpers.is_decomposed, coefficient=1.5),
    )


@pytest.mark.parametrize("shape", ((8, 5), (5, 8), (6, 6)))
def test_flat_spectrum_gives_equal_singular_values(shape):
    s = np.linalg.svd(flat_spectrum(jnp.asarray(helpers.matrix(0, *shape))))[1]
    np.testing.assert_allclose(s, s.mean(), rtol=1e-5)


@pytest.mark.parametrize("shape", ((8, 5), (5, 8), (6, 6)))
def test_flat_spectrum_keeps_the_nuclear_norm(shape):
    update = helpers.matrix(1, *shape)
    ours = np.linalg.norm(flat_spectrum(jnp.asarray(update)), "nuc")
    np.testing.assert_allclose(ours, np.linalg.norm(update, "nuc"), rtol=1e-5)


def test_flat_spectrum_of_an_isotropic_update_is_the_update():
    update = 2.5 * np.linalg.qr(helpers.matrix(2, 6, 6))[0]
    np.testing.assert_allclose(flat_spectrum(jnp.asarray(update)), update, atol=1e-5)

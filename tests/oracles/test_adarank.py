"""The oracle's written gradients against finite differences of its own merge."""

import numpy as np

from tests import helpers
from tests.oracles import adarank

EPSILON = 1e-6
TEMPERATURE = 2.0
SHAPES = {"kernel": (4, 5), "bias": (5,)}


def problem():
    """Draws a linear model with soft masks, and its loss."""
    pretrained, finetuned = helpers.task_set(seed=3, shapes=SHAPES)
    origin = helpers.flat64(pretrained)
    experts = [helpers.flat64(model) for model in finetuned]
    inputs = helpers.matrix(4, 6, 4).astype(np.float64)
    coefficients = {path: np.float64(helpers.matrix(5, 3)) for path in SHAPES}
    logits = {"kernel": np.float64(helpers.matrix(6, 3, 4))}

    def loss(coefficients, logits):
        merged = adarank.merge(
            origin, experts, coefficients, logits, TEMPERATURE, is_soft=True
        )
        return adarank.linear_loss(merged, inputs)

    def gradients(by_merged):
        return adarank.gradients(
            origin, experts, coefficients, logits, TEMPERATURE, by_merged, is_soft=True
        )

    return loss, gradients, coefficients, logits


def difference(loss, arrays, path, index):
    """Returns the central difference along one entry, which it moves and puts back."""
    values = []
    start = arrays[path][index]
    for step in (EPSILON, -EPSILON):
        arrays[path][index] = start + step
        values.append(loss()[0])
    arrays[path][index] = start
    return (values[0] - values[1]) / (2 * EPSILON)


def test_oracle_mask_gradient_is_that_of_finite_differences():
    loss, gradients, coefficients, logits = problem()
    _, by_logit = gradients(loss(coefficients, logits)[1])
    for index in np.ndindex(logits["kernel"].shape):
        numeric = difference(
            lambda: loss(coefficients, logits), logits, "kernel", index
        )
        np.testing.assert_allclose(by_logit["kernel"][index], numeric, 1e-5, 1e-9)


def test_oracle_coefficient_gradient_is_that_of_finite_differences():
    loss, gradients, coefficients, logits = problem()
    by_coefficient, _ = gradients(loss(coefficients, logits)[1])
    for path, values in coefficients.items():
        for t in range(len(values)):
            numeric = difference(
                lambda: loss(coefficients, logits), coefficients, path, t
            )
            np.testing.assert_allclose(by_coefficient[path][t], numeric, 1e-5, 1e-9)

import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax.adaptation.evaluate import Accuracy, Predictor

PARAMS = {"kernel": np.eye(3, dtype=np.float32)}
HEAD = np.eye(3, dtype=np.float32)


def predictor(batch_size, traces=None):
    def encode(params, inputs):
        if traces is not None:
            traces.append(inputs.shape)
        return inputs @ params["kernel"]

    return Predictor(encode, lambda features, head: features @ head, batch_size)


@pytest.mark.parametrize("count", [1, 4, 5, 8, 9])
def test_predict_does_not_depend_on_the_batch_size(count):
    inputs = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    found = predictor(4).predict(PARAMS, HEAD, inputs)
    np.testing.assert_array_equal(found, inputs.argmax(axis=1))


def test_encoder_is_traced_once_for_any_number_of_examples():
    traces = []
    shared = predictor(4, traces)
    for count in (3, 4, 10):
        shared.features(PARAMS, np.ones((count, 3), np.float32))
    assert traces == [(4, 3)]


def test_accuracy_counts_right_predictions():
    inputs = np.eye(3, dtype=np.float32)
    found = predictor(2).accuracy(PARAMS, HEAD, inputs, np.array([0, 1, 0]))
    assert found == Accuracy(2, 3)


def test_standard_error_is_binomial():
    assert Accuracy(80, 100).standard_error == pytest.approx(0.04)


def test_predictor_refuses_no_example():
    with pytest.raises(ValueError, match="at least one example"):
        predictor(2).features(PARAMS, np.zeros((0, 3), np.float32))


def test_predictor_refuses_a_wrong_number_of_labels():
    with pytest.raises(ValueError, match="got 2 for 3"):
        predictor(2).accuracy(PARAMS, HEAD, np.eye(3, dtype=np.float32), np.zeros(2))


def test_predictor_refuses_an_empty_batch():
    with pytest.raises(ValueError, match="batch_size"):
        Predictor(lambda p, x: x, lambda f, h: jnp.zeros(1), 0)

import jax
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


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 2), (5, 8), (9, 16), (17, 16)])
def test_few_examples_are_no_whole_batch(count, rows):
    traces = []
    predictor(16, traces).features(PARAMS, np.ones((count, 3), np.float32))
    assert traces == [(rows, 3)]


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


class Words:
    """Rows of different lengths, as trees."""

    def __init__(self, lengths):
        self.lengths = np.array(lengths)
        self.asked = []

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        rows = np.arange(len(self))[index]
        self.asked.append(self.lengths[rows].tolist())
        mask = np.arange(8) < self.lengths[rows][:, None]
        return {"values": np.where(mask, 1.0 + rows[:, None], 0.0), "mask": mask}


def cut(batch):
    width = 4 if batch["mask"].sum(axis=-1).max() <= 4 else 8
    return {name: leaf[:, :width] for name, leaf in batch.items()}


def sums(traces=None):
    def encode(params, inputs):
        if traces is not None:
            traces.append(inputs["values"].shape)
        return (inputs["values"] * params).sum(axis=-1, keepdims=True)

    return encode


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 20])
def test_features_of_a_source_keep_its_order(batch_size):
    source = Words([3, 8, 1, 5, 2, 8, 4])
    model = Predictor(sums(), lambda f, h: f, batch_size, cut)
    expected = source.lengths * np.arange(1, 8) * 2.0
    np.testing.assert_array_equal(model.features(2.0, source)[:, 0], expected)


def test_a_source_with_lengths_is_read_from_the_longest_in_few_shapes():
    source, traces = Words([3, 8, 1, 5, 2, 8, 4, 1]), []
    model = Predictor(sums(traces), lambda f, h: f, 3, cut)
    model.features(1.0, source)
    assert sorted(source.asked, reverse=True) == [[8, 8, 5], [4, 3, 2], [1, 1]]
    assert traces == [(3, 8), (3, 4)]
    model.features(2.0, source)
    assert len(traces) == 2


def test_last_batch_is_filled_with_real_examples():
    seen = []

    def encode(params, inputs):
        jax.debug.callback(lambda mask: seen.append(mask), inputs["mask"])
        return inputs["values"][:, :1]

    Predictor(encode, lambda f, h: f, 4).features(0.0, Words([3, 2, 1]))
    jax.effects_barrier()
    assert seen[0].any(axis=1).all()


def test_trees_of_arrays_are_encoded_as_sources_are():
    source = Words([3, 8, 1, 5])
    tree = {"values": source[:]["values"], "mask": source[:]["mask"]}
    model = Predictor(sums(), lambda f, h: f, 3)
    np.testing.assert_array_equal(
        model.features(1.0, tree), model.features(1.0, source)
    )
    tree["mask"] = tree["mask"][:3]
    with pytest.raises(ValueError, match=r"every leaf, got \[3, 4\]"):
        model.features(1.0, tree)

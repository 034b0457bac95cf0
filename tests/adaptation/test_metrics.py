import warnings

import numpy as np
import pytest
import sklearn.metrics

from adarank_jax.adaptation.metrics import METRICS, accuracy, matthews


def draw(seed, num_classes, count, noise=0.4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, count)
    wrong = rng.random(count) < noise
    return np.where(wrong, rng.integers(0, num_classes, count), labels), labels


@pytest.mark.parametrize("num_classes", [2, 3, 20])
@pytest.mark.parametrize("count", [2, 9, 1043])
@pytest.mark.parametrize("noise", [0.1, 0.9])
def test_matthews_is_scikit_learns(num_classes, count, noise):
    predictions, labels = draw(num_classes, num_classes, count, noise)
    expected = sklearn.metrics.matthews_corrcoef(labels, predictions)
    assert matthews(predictions, labels).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [([1, 1, 1], [0, 1, 1]), ([0, 1, 1], [1, 1, 1]), ([0, 0], [0, 0]), ([1], [0])],
)
def test_matthews_of_one_class_is_zero_as_scikit_learns(predictions, labels):
    with warnings.catch_warnings(action="ignore"):
        expected = sklearn.metrics.matthews_corrcoef(labels, predictions)
    assert matthews(np.array(predictions), np.array(labels)).value == expected == 0


def test_matthews_of_right_and_of_opposite_predictions():
    labels = np.array([0, 1, 1, 0, 1])
    assert matthews(labels, labels) == (1.0, 0.0, 5)
    assert matthews(1 - labels, labels) == (-1.0, 0.0, 5)


def test_matthews_counts_classes_that_are_predicted_only():
    labels, predictions = np.array([0, 0, 2, 2]), np.array([0, 7, 2, 2])
    expected = sklearn.metrics.matthews_corrcoef(labels, predictions)
    assert matthews(predictions, labels).value == pytest.approx(expected)


def test_matthews_of_many_examples_does_not_overflow():
    labels = np.tile([0, 1], 2_000_000)
    assert matthews(labels, labels).value == 1.0


def test_jackknife_is_that_of_leaving_each_example_out():
    predictions, labels = draw(5, 3, 60)
    values = [
        sklearn.metrics.matthews_corrcoef(
            np.delete(labels, i), np.delete(predictions, i)
        )
        for i in range(60)
    ]
    expected = np.sqrt(59 * np.var(values))
    assert matthews(predictions, labels).standard_error == pytest.approx(expected)


def test_jackknife_is_near_the_bootstrap():
    predictions, labels = draw(1, 2, 400)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 400, (400, 400))
    values = [
        sklearn.metrics.matthews_corrcoef(labels[i], predictions[i]) for i in rows
    ]
    found = matthews(predictions, labels).standard_error
    assert found == pytest.approx(np.std(values), rel=0.15)


def test_accuracy_has_a_binomial_error():
    labels = np.zeros(100, int)
    predictions = (np.arange(100) >= 80).astype(int)
    assert accuracy(predictions, labels) == pytest.approx((0.8, 0.04, 100))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([0, 1], [0], r"got shape \(1,\) for \(2,\)"),
        ([[0, 1]], [[0, 1]], r"got shape \(1, 2\)"),
        ([], [], "at least one"),
        ([0, 1, 0], [0, -1, -1], "2 of 3 `labels` are below 0"),
    ],
)
def test_metrics_refuse_bad_labels(metric, predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        metric(np.array(predictions), np.array(labels))

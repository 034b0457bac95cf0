"""The SVD by the Gram matrix, against LAPACK's in double precision."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from adarank_jax.core import gram
from tests import helpers

SEEDS = strategies.integers(0, 2**32 - 1)
SIZES = strategies.integers(1, 12)


def spectrum(seed, shape, values):
    """Draws a matrix with given singular values."""
    u, v = (np.linalg.qr(helpers.matrix([seed, n], n, len(values)))[0] for n in shape)
    return ((np.float64(u) * values) @ v.T).astype(np.float32)


MATRICES = {
    "tall": helpers.matrix(0, 90, 40),
    "wide": helpers.matrix(1, 40, 90),
    "square": helpers.matrix(2, 60, 60),
    "one row": helpers.matrix(3, 1, 30),
    "one column": helpers.matrix(4, 30, 1),
    "one number": np.float32([[-2.5]]),
    "zero": np.zeros((30, 20), np.float32),
    "zero columns": np.eye(20, 30, dtype=np.float32) * helpers.matrix(5, 20, 1),
    "low rank": helpers.matrix(6, 70, 4) @ helpers.matrix(7, 4, 50),
    "all ones": np.ones((20, 50), np.float32),
    "repeated values": spectrum(8, (50, 40), np.repeat([3.0, 1.0], 20)),
    "orthonormal": spectrum(9, (40, 40), np.ones(40)),
    "1/k": spectrum(10, (300, 200), 1.0 / np.arange(1, 201)),
    "eight decades": spectrum(11, (200, 200), 10.0 ** -np.linspace(0, 8, 200)),
    "twenty decades": spectrum(12, (200, 200), 10.0 ** -np.linspace(0, 20, 200)),
    "one far above": spectrum(13, (200, 200), np.r_[1e4, np.linspace(2, 1, 199)]),
    "diagonal": np.diag(10.0 ** -np.arange(0.0, 30.0, 2.0)).astype(np.float32),
    "1e-20": helpers.matrix(14, 60, 60) * np.float32(1e-20),
    "1e-37": helpers.matrix(15, 60, 40) * np.float32(1e-37),
    "1e20": helpers.matrix(16, 60, 60) * np.float32(1e20),
    "1e35": helpers.matrix(17, 40, 60) * np.float32(1e35),
}
every_matrix = pytest.mark.parametrize("name", MATRICES)


@every_matrix
def test_gram_svd_rebuilds_the_matrix(name):
    matrix = np.float64(MATRICES[name])
    u, s, vt = (np.float64(part) for part in gram.svd(MATRICES[name]))
    error = np.linalg.norm((u * s) @ vt - matrix)
    assert error <= 2e-6 * np.linalg.norm(matrix)


@every_matrix
def test_gram_svd_directions_are_orthonormal(name):
    u, _, vt = gram.svd(MATRICES[name])
    for columns in (np.float64(u), np.float64(vt.T)):
        identity = np.eye(columns.shape[1])
        np.testing.assert_allclose(columns.T @ columns, identity, rtol=0, atol=5e-6)


@every_matrix
def test_gram_svd_values_agree_with_lapack_and_fall(name):
    s = gram.svd(MATRICES[name])[1]
    theirs = np.linalg.svd(np.float64(MATRICES[name]), compute_uv=False)
    np.testing.assert_allclose(s, theirs, rtol=0, atol=2e-7 * theirs[0])
    assert (np.diff(s) <= 0).all()
    assert (s >= 0).all()


@pytest.mark.parametrize("name", ("1/k", "eight decades", "one far above", "tall"))
def test_gram_svd_spans_the_subspaces_of_lapack(name):
    matrix = MATRICES[name]
    u, _, vt = gram.svd(matrix)
    p, values, qt = np.linalg.svd(np.float64(matrix), full_matrices=False)
    gaps = values[:-1] - values[1:]
    separated = 1 + np.flatnonzero(gaps > 1e-4 * values[0])
    assert len(separated)
    for rank in separated:
        # The sine of the largest angle between leading subspaces; what float32
        # rounds moves them by its epsilon over the gap.
        bound = 2e-5 + 1e-6 * values[0] / gaps[rank - 1]
        for ours, theirs in ((u[:, :rank], p), (vt[:rank].T, qt.T)):
            outside = theirs[:, rank:].T @ ours
            assert np.linalg.norm(outside, 2) < bound


@hypothesis.given(seed=SEEDS, rows=SIZES, cols=SIZES, rank=SIZES)
def test_gram_svd_of_any_rank_is_a_decomposition(seed, rows, cols, rank):
    matrix = helpers.matrix(seed, rows, rank) @ helpers.matrix(seed + 1, rank, cols)
    u, s, vt = gram.svd(matrix)
    np.testing.assert_allclose((u * s) @ vt, matrix, rtol=0, atol=1e-6 * s[0] + 1e-30)
    for columns in (u, vt.T):
        identity = np.eye(columns.shape[1])
        np.testing.assert_allclose(columns.T @ columns, identity, rtol=0, atol=5e-6)


def test_gram_svd_gives_null_directions_no_value():
    s = gram.svd(MATRICES["all ones"])[1]
    assert s[0] == pytest.approx(np.sqrt(1000))
    assert not s[1:].any()


def test_gram_svd_of_the_transpose_is_the_transpose():
    matrix = MATRICES["tall"]
    u, s, vt = gram.svd(matrix)
    left, values, right = gram.svd(np.ascontiguousarray(matrix.T))
    np.testing.assert_allclose(values, s, rtol=1e-6)
    for ours, theirs in ((vt.T, left), (u, right.T)):
        np.testing.assert_allclose(abs(np.sum(ours * theirs, axis=0)), 1.0, rtol=1e-5)

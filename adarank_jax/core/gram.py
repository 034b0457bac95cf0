r"""SVD of one matrix from the eigenvectors of its Gram matrix.

.. math:: X^\top X = V \operatorname{diag}(s^2) V^\top, \qquad U = X V / s

In double precision this is as accurate as a single-precision SVD and cheaper, because
only the smaller side is ever decomposed. Squaring loses what is smaller than about
1e-8 of the largest value, so directions below a threshold are taken out, made
orthogonal to the others, and decomposed again on a scale of their own.
"""

import numpy as np
from jaxtyping import Float

Factors = tuple[
    Float[np.ndarray, "rows rank"],
    Float[np.ndarray, " rank"],
    Float[np.ndarray, "rank cols"],
]
"""Left directions as columns, singular values and right directions as rows."""


def svd(matrix: Float[np.ndarray, "rows cols"]) -> Factors:
    """Decomposes a matrix of any shape, scale and rank.

    Args:
        matrix: finite, float32.

    Returns:
        Float32 factors, values falling. Both sets of directions are orthonormal to
        about 1e-6, also where values are zero or repeated; a value below 1e-12 of the
        largest is zero.

    Raises:
        LinAlgError: an eigendecomposition did not converge.

    Examples:
        >>> u, s, vt = svd(np.ones((3, 2), np.float32))
        >>> s.round(3)
        array([2.449, 0.   ], dtype=float32)
        >>> (u.T @ u).round(3) + 0.0
        array([[1., 0.],
               [0., 1.]], dtype=float32)
    """
    if matrix.shape[0] < matrix.shape[1]:
        u, s, vt = svd(matrix.T)
        return vt.T, s, u.T
    # A power of two: exact, and neither small nor large numbers leave the range.
    exponent = int(np.frexp(np.abs(matrix).max())[1])
    rest = np.ldexp(1.0, -exponent) * matrix
    rows, cols = matrix.shape
    u, s, v = np.zeros((rows, cols), np.float32), np.zeros(cols), np.eye(cols)
    start = 0
    while start < cols:
        found, turn = _eigh(rest)
        count = int(np.sum(found > max(_KEPT * found[0], _NOISE * max(found[0], s[0]))))
        v[:, start:] = turn if start == 0 else v[:, start:] @ turn
        if not count:
            u[:, start:] = _complement(u[:, :start], cols - start)
            break
        stop = start + count
        s[start:stop] = found[:count]
        u[:, start:stop] = _left(rest, turn[:, :count], found[:count])
        if stop < cols:
            rest = _without(rest @ turn[:, count:], u[:, :stop])
        start = stop
    s = np.minimum.accumulate(np.ldexp(s, exponent))
    return u, s.astype(np.float32), v.T.astype(np.float32)


def _eigh(columns):
    """Returns the values, falling, and right directions of columns in float64."""
    squares, turn = np.linalg.eigh(columns.T @ columns)
    return np.sqrt(np.maximum(squares[::-1], 0.0)), turn[:, ::-1]


def _left(columns, turn, values):
    """Turns columns to left directions: in float32 as far as that is as good."""
    left = np.empty((len(columns), len(values)), np.float32)
    large = int(np.sum(values > _LARGE * np.sqrt(np.mean(values**2))))
    single = columns.astype(np.float32) @ turn[:, :large].astype(np.float32)
    left[:, :large] = single / values[:large].astype(np.float32)
    left[:, large:] = columns @ turn[:, large:] / values[large:]
    return left


def _without(columns, directions):
    """Takes the part that lies along orthonormal directions out of columns."""
    directions = directions.astype(np.float64)
    return columns - directions @ (directions.T @ columns)


def _complement(directions, count):
    """Draws orthonormal columns that are orthogonal to all directions."""
    rng = np.random.default_rng(0)
    columns = rng.standard_normal((len(directions), count))
    for _ in range(2):
        columns = np.linalg.qr(_without(columns, directions))[0]
    return columns


_KEPT = 1e-5  # of the largest value; orthogonality is lost with the square of it
_NOISE = 1e-12
_LARGE = 0.05  # of the root mean square; below, float32 products are not orthogonal

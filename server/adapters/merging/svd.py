"""The best approximation of low rank to a sum of low-rank updates, with the same bits on every machine.

The sum is `D = B A` with all B factors side by side and all A factors below
each other, so nothing of the size of a weight matrix is formed: with thin
decompositions `B = Q R` and `A^T = P S` the singular values of D are those of
the small `R S^T`. By the Eckart-Young theorem the first of them are the best.

A library's product and decomposition round as the processor and the number of
threads suggest. Here every sum runs along the first axis, where NumPy adds
row to row, and each elementary operation is rounded as IEEE 754 says.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Matrix: TypeAlias = npt.NDArray[np.float64]

_SWEEPS = 40
_STEEP = 1e150
_ORTHOGONAL = 1e-15
# A column that keeps no more than this of its length beside the others adds rounding only.
_DEPENDENT = 1e-13


def truncated(b: Matrix, a: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    """Returns factors of the best approximation to `b @ a`.

    Args:
        b: [out_features, n].
        a: [n, in_features].
        rank: of the result.

    Returns:
        `[out_features, rank]` with the singular values in it, largest first, and `[rank, in_features]` with
        orthonormal rows, each with its largest entry positive; zeros beyond the rank of the product.
    """
    left, r = _orthonormal(b)
    right, s = _orthonormal(np.ascontiguousarray(a.T))
    u, values, v = _decomposed(_product(r, np.ascontiguousarray(s.T)))
    order = np.argsort(-values, kind="stable")[:rank]
    out = _product(left, u[:, order] * values[order])
    into = _product(right, v[:, order])
    largest = np.argmax(np.abs(into), axis=0)
    sign = np.where(into[largest, np.arange(len(order))] < 0, -1.0, 1.0) * (values[order] > 0)
    missing = ((0, 0), (0, rank - len(order)))
    return np.pad(out * sign, missing), np.ascontiguousarray(np.pad(into * sign, missing).T)


def _product(one: Matrix, other: Matrix) -> Matrix:
    """`one @ other`, one term of every sum after the other."""
    total = np.zeros((one.shape[0], other.shape[1]))
    for index in range(other.shape[0]):
        total += one[:, index : index + 1] * other[index]
    return total


def _orthonormal(columns: Matrix) -> tuple[Matrix, Matrix]:
    """Returns `[n, k]` with orthonormal or zero columns and the upper triangle that gives `columns` back.

    Gram-Schmidt, twice, which is enough: L. Giraud et al., Numerische Mathematik 101, 2005.
    """
    count = columns.shape[1]
    basis, triangle = np.zeros_like(columns), np.zeros((count, count))
    for index in range(count):
        column = np.ascontiguousarray(columns[:, index])
        length = _length(column)
        for _ in range(2):
            shares = np.add.reduce(basis[:, :index] * column[:, None], axis=0)
            triangle[:index, index] += shares
            for other in range(index):
                column = column - basis[:, other] * shares[other]
        rest = _length(column)
        if rest > _DEPENDENT * length:
            triangle[index, index] = rest
            basis[:, index] = column / rest
    return basis, triangle


def _length(column: Matrix) -> float:
    return float(np.sqrt(np.add.reduce(column * column)))


def _decomposed(matrix: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Returns U, singular values and V of a square matrix, not sorted.

    One-sided Jacobi: columns are rotated in pairs until all are orthogonal; M. R. Hestenes, J. SIAM 6, 1958.
    All pairs of a round are disjoint and turned at once.
    """
    size = matrix.shape[0]
    columns, turned = matrix.copy(), np.eye(size)
    rounds = _rounds(size)
    for _ in range(_SWEEPS):
        worst = max((_rotate(columns, turned, first, second) for first, second in rounds), default=0.0)
        if worst < _ORTHOGONAL:
            break
    values = np.sqrt(np.add.reduce(columns * columns, axis=0))
    u = columns / np.where(values > 0, values, 1.0)
    return u, values, turned


def _rounds(size: int) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Every pair of columns once, in rounds of disjoint pairs, as a tournament is drawn."""
    players = list(range(size)) + ([-1] if size % 2 else [])
    found = []
    for _ in range(len(players) - 1):
        half = len(players) // 2
        pairs = [(i, j) for i, j in zip(players[:half], reversed(players[half:]), strict=True) if min(i, j) >= 0]
        if pairs:
            found.append((np.array([i for i, _ in pairs]), np.array([j for _, j in pairs])))
        players = [players[0], players[-1], *players[1:-1]]
    return found


def _rotate(columns: Matrix, turned: Matrix, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]) -> float:
    """Makes the pairs of columns orthogonal; returns the largest cosine there was between two."""
    x, y = columns[:, first], columns[:, second]
    xx, yy, xy = (np.add.reduce(product, axis=0) for product in (x * x, y * y, x * y))
    lengths = np.sqrt(xx) * np.sqrt(yy)
    cosines = np.abs(xy) / np.where(lengths > 0, lengths, 1.0)
    turning = cosines > _ORTHOGONAL
    # Beyond this the square overflows, and the angle is zero to the last bit.
    zeta = np.clip((yy - xx) / np.where(turning, 2.0 * xy, 1.0), -_STEEP, _STEEP)
    tangent = np.where(zeta >= 0, 1.0, -1.0) / (np.abs(zeta) + np.sqrt(1.0 + zeta * zeta))
    tangent = np.where(turning, tangent, 0.0)
    cosine = 1.0 / np.sqrt(1.0 + tangent * tangent)
    sine = cosine * tangent
    for matrix in (columns, turned):
        x, y = matrix[:, first], matrix[:, second]
        matrix[:, first], matrix[:, second] = cosine * x - sine * y, sine * x + cosine * y
    return float(cosines.max(initial=0.0))

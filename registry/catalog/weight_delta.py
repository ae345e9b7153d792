"""What a LoRA update is like, computed from its factors without ever multiplying them out.

The update of a module is `D = s * B @ A`, with `A` of rank x in and `B` of out x rank. With the thin
decompositions `B = Q R` and `A^T = P S` it is `D = s * Q (R S^T) P^T`, and because the columns of Q and P
are orthonormal, D has the singular values of `s * R S^T`, which is only rank x rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Matrix: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """The factors of one module's update.

    Attributes:
        a: rank x in_features.
        b: out_features x rank.
        scaling: what the product is multiplied with.
    """

    a: Matrix
    b: Matrix
    scaling: float

    @property
    def features(self) -> tuple[int, int]:
        """Widths of the layer: in, out."""
        return self.a.shape[1], self.b.shape[0]

    def singular_values(self) -> Matrix:
        """Returns the singular values of the update, the largest first."""
        left, right = np.linalg.qr(self.b).R, np.linalg.qr(self.a.T).R
        values: Matrix = np.linalg.svd(left @ right.T, full_matrices=False, compute_uv=False)
        return abs(self.scaling) * values


def norm_of(values: Matrix) -> float:
    """Returns the Frobenius norm of a matrix with these singular values."""
    return float(np.linalg.norm(values))


def effective_rank(values: Matrix) -> float:
    """Returns how many directions a matrix with these singular values really uses; 0 for the zero matrix.

    It is exp(H) with H the entropy of the singular values divided by their sum: n equal values give n.
    Source: O. Roy and M. Vetterli, "The effective rank: a measure of effective dimensionality",
    EUSIPCO 2007, definition 1.
    """
    total = float(values.sum())
    if total == 0:
        return 0.0
    shares = values[values > 0] / total
    return math.exp(-float((shares * np.log(shares)).sum()))


def cosine(one: Factors, other: Factors, norms: tuple[float, float]) -> float:
    """Returns the cosine of the angle between two updates, -1 to 1; 0 when one of them is zero.

    The inner product is tr(A1^T B1^T B2 A2), and that is the sum of the entries of
    (B1^T B2) * (A1 A2^T): two matrices of rank x rank.

    Args:
        one: an update.
        other: an update of the same module, of whatever rank.
        norms: their Frobenius norms.
    """
    if norms[0] == 0 or norms[1] == 0:
        return 0.0
    inner = one.scaling * other.scaling * float(((one.b.T @ other.b) * (one.a @ other.a.T)).sum())
    return max(-1.0, min(1.0, inner / norms[0] / norms[1]))

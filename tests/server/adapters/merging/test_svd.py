"""The truncated decomposition is the best one, and has the same bits whatever runs beside it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.server.adapters.merging.svd import truncated

_PROGRAM = """
import hashlib, sys
import numpy as np, torch
from switchyard.server.adapters.merging.merge import MergePart, Factors, merge
from switchyard.server.engine.recipe import Recipe
torch.set_num_threads(int(sys.argv[1]))
draw = np.random.default_rng(5)
def values(*shape):
    return torch.from_numpy(draw.integers(-1000, 1000, shape).astype(np.float32) / 777)
def factors(rank):
    return Factors(values(rank, 300), values(200, rank), 0.7, False)
parts = [MergePart(str(i), 0.5 - i, {f"m{n}": factors(8) for n in range(3)}) for i in range(3)]
recipes = [Recipe("svd", svd_rank=8), Recipe("cat"), Recipe("linear"), Recipe("ties", .5, None, "total")]
recipes += [Recipe("dare_linear", .5, 3), Recipe("dare_ties", .5, 3, "frequency"), Recipe("magnitude_prune", .5)]
for recipe in recipes:
    digest = hashlib.sha256()
    for name, tensor in merge(parts, recipe, ["m2", "m0", "m1"]).items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    print(recipe.method, digest.hexdigest())
"""


@settings(max_examples=60, deadline=None)
@given(
    out=st.integers(1, 24), into=st.integers(1, 24), inner=st.integers(1, 9), rank=st.integers(1, 9), data=st.data()
)
def test_equal_to_the_library(out: int, into: int, inner: int, rank: int, data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    b, a = random.standard_normal((out, inner)), random.standard_normal((inner, into))
    if data.draw(st.booleans()):
        b[:, -1] = b[:, 0]
    left, right = truncated(b, a, rank)
    assert (left.shape, right.shape) == ((out, rank), (rank, into))
    u, values, v = np.linalg.svd(b @ a, full_matrices=False)
    kept = min(rank, len(values))
    np.testing.assert_allclose(left @ right, (u[:, :kept] * values[:kept]) @ v[:kept], atol=1e-9)
    lengths = np.linalg.norm(left, axis=0)
    np.testing.assert_allclose(lengths[:kept], values[:kept], atol=1e-9)
    assert (np.diff(lengths) <= 1e-9).all()
    used = right[lengths > 1e-9]
    np.testing.assert_allclose(used @ used.T, np.eye(len(used)), atol=1e-9)
    assert (used[np.arange(len(used)), np.abs(used).argmax(axis=1)] > 0).all()


def test_an_update_that_is_zero() -> None:
    left, right = truncated(np.zeros((4, 2)), np.ones((2, 3)), 2)
    assert not left.any()
    assert not right.any()


@pytest.mark.slow
def test_the_same_bytes_in_every_process_and_with_any_number_of_threads() -> None:
    found = set()
    for threads, variables in (
        ("1", {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}),
        ("4", {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4"}),
        ("2", {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3"}),
    ):
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", _PROGRAM, threads],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        assert len(done.stdout.split()) == 14
        found.add(hashlib.sha256(done.stdout.encode()).hexdigest())
    assert len(found) == 1

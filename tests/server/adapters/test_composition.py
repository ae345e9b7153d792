"""A recipe's digest is its identity."""

from __future__ import annotations

import hashlib

from switchyard.server.adapters.composition import composed, recipe_digest, single
from switchyard.server.engine.types import AdapterPart, Digest

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def part(digest: str, weight: float, rank: int) -> AdapterPart:
    return AdapterPart("ns", "x", 1, Digest(digest), "", 0, weight, rank, "w", "c", 10)


def test_the_digest_is_that_of_the_written_contract() -> None:
    document = f'{{"method":"sum","parts":[["{A}",0.5],["{B}",-1.0]]}}'
    assert recipe_digest([(A, 0.5), (B, -1.0)]) == "sha256:" + hashlib.sha256(document.encode()).hexdigest()


def test_order_weight_and_version_all_count() -> None:
    recipes = [[(A, 1.0), (B, 1.0)], [(B, 1.0), (A, 1.0)], [(A, 1.0), (B, 2.0)], [(A, 1.0)], [(B, 1.0)]]
    assert len({recipe_digest(recipe) for recipe in recipes}) == len(recipes)


def test_equal_numbers_are_one_recipe() -> None:
    assert recipe_digest([(A, 1)]) == recipe_digest([(A, 1.0)])
    assert recipe_digest([(A, -0.0)]) == recipe_digest([(A, 0.0)])


def test_a_sum_takes_the_sum_of_the_ranks() -> None:
    chosen = composed([part(A, 0.5, 4), part(B, -1.0, 8)])
    assert (chosen.rank, chosen.key) == (12, recipe_digest([(A, 0.5), (B, -1.0)]))
    assert chosen.recipe_digest == chosen.key


def test_one_version_is_known_by_its_own_digest() -> None:
    chosen = single(part(A, 1.0, 4))
    assert (chosen.key, chosen.rank, chosen.recipe_digest) == (A, 4, "")
    assert composed([part(A, 1.0, 4)]).key != chosen.key

"""A recipe's digest is its identity."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from switchyard.server.adapters.composition import composed, recipe_digest, single
from switchyard.server.engine.recipe import Recipe
from switchyard.server.engine.types import AdapterPart, Digest
from switchyard.server.errors import CompositionInvalid

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


def test_all_parameters_count() -> None:
    parts = [part(A, 0.5, 8), part(B, 1.0, 8)]
    recipes = [
        Recipe("cat"),
        Recipe("linear"),
        Recipe("svd"),
        Recipe("svd", svd_rank=4),
        Recipe("magnitude_prune", density=0.5),
        Recipe("ties", density=0.5),
        Recipe("ties", density=0.25),
        Recipe("ties", density=0.5, majority_sign="frequency"),
        Recipe("dare_linear", density=0.5),
        Recipe("dare_linear", density=0.5, seed=1),
        Recipe("dare_ties", density=0.5),
        Recipe("dare_ties", density=0.5, majority_sign="frequency"),
    ]
    assert len({composed(parts, recipe).key for recipe in recipes}) == len(recipes)


def test_a_default_that_is_written_out_is_the_same_recipe() -> None:
    parts = [part(A, 0.5, 8), part(B, 1.0, 4)]
    assert composed(parts, Recipe("svd")).key == composed(parts, Recipe("svd", svd_rank=8)).key
    equal = [part(A, 0.5, 8), part(B, 1.0, 8)]
    written = Recipe("dare_ties", density=0.5, seed=0, majority_sign="total")
    assert composed(equal, Recipe("dare_ties", density=0.5)).key == composed(equal, written).key
    assert composed(equal, written).recipe == written


@pytest.mark.parametrize(
    ("recipe", "rank"),
    [
        (Recipe("cat"), 16),
        (Recipe("sum"), 16),
        (Recipe("linear"), 8),
        (Recipe("ties", density=0.5), 8),
        (Recipe("svd"), 8),
        (Recipe("svd", svd_rank=3), 3),
    ],
    ids=str,
)
def test_the_rank_of_the_result(recipe: Recipe, rank: int) -> None:
    assert composed([part(A, 0.5, 8), part(B, 1.0, 8)], recipe).rank == rank


@pytest.mark.parametrize("method", ["linear", "ties", "dare_linear", "dare_ties", "magnitude_prune"])
def test_unequal_ranks_are_refused_with_the_ranks(method: str) -> None:
    with pytest.raises(CompositionInvalid, match=f"{method} needs equal ranks: ns/x:1 has 8, ns/x:1 has 4"):
        composed([part(A, 0.5, 8), part(B, 1.0, 4)], Recipe(method, density=0.5))


@pytest.mark.parametrize(("method", "most"), [("svd", 128), ("linear", 1024), ("dare_ties", 1024)])
def test_more_rank_than_can_be_merged_is_refused_with_the_numbers(method: str, most: int) -> None:
    recipe = Recipe(method, density=0.5 if "dare" in method else None)
    half = most // 2
    assert composed([part(A, 0.5, half), part(B, 1.0, half)], recipe).rank == half
    with pytest.raises(CompositionInvalid, match=f"ranks of at most {most} together, these have {most + 2}"):
        composed([part(A, 0.5, half + 1), part(B, 1.0, half + 1)], recipe)
    assert composed([part(A, 0.5, 1024), part(B, 1.0, 1024)], Recipe("cat")).rank == 2048


@pytest.mark.parametrize("method", ["cat", "svd", "ties", "dare_linear", "dare_ties", "magnitude_prune"])
def test_one_adapter_alone_is_only_scaled(method: str) -> None:
    with pytest.raises(CompositionInvalid, match="needs two adapters or more; one alone can be linear or sum"):
        composed([part(A, 0.5, 8)], Recipe(method, density=0.5))
    assert composed([part(A, 0.5, 8)], Recipe("linear")).rank == 8


@pytest.mark.parametrize("feature", ["bias", "dora", "ia3", "modules_to_save"])
@pytest.mark.parametrize("method", ["sum", "cat"])
def test_what_is_not_a_low_rank_update_is_refused_by_name(feature: str, method: str) -> None:
    odd = replace(part(B, 1.0, 4), features=("alpha_pattern", feature))
    with pytest.raises(CompositionInvalid, match=f"ns/x:1 uses {feature}, which a composition cannot merge"):
        composed([part(A, 0.5, 8), odd], Recipe(method))


def test_all_reasons_come_together() -> None:
    odd = replace(part(B, 1.0, 4), features=("dora",))
    with pytest.raises(CompositionInvalid) as caught:
        composed([part(A, 0.5, 8), odd], Recipe("linear"))
    assert "dora" in str(caught.value)
    assert "equal ranks" in str(caught.value)

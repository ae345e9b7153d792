from __future__ import annotations

from pathlib import Path

import pytest

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.trainer.errors import TargetsUnknown
from switchyard.trainer.recipe import LoraSection
from switchyard.trainer.targets import adapted_layers

LEAVES = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


@pytest.fixture(scope="module")
def spec(tiny_base: Path) -> BaseModelSpec:
    return describe_base(tiny_base)


def told(spec: BaseModelSpec, **keys: object) -> list[str]:
    return adapted_layers(LoraSection.model_validate(keys), spec).targets


def test_names_stay_names(spec: BaseModelSpec) -> None:
    assert told(spec) == LEAVES
    assert told(spec, targets=["v_proj", "self_attn.q_proj", "v_proj"]) == ["self_attn.q_proj", "v_proj"]
    assert told(spec, targets=["q_proj"], layers=[0, 1]) == ["q_proj"]


def test_what_names_cannot_say_is_said_in_paths(spec: BaseModelSpec) -> None:
    assert told(spec, targets=["q_proj", "v_proj"], layers=[1]) == [
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.v_proj",
    ]
    assert told(spec, targets=["model.layers.?.mlp.*"], exclude=["down_proj", "model.layers.0.*"]) == [
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.mlp.up_proj",
    ]
    assert told(spec, exclude=["mlp.gate_proj"]) == sorted(
        path for path in spec.modules if not path.endswith("gate_proj")
    )


def test_patterns_of_ranks_become_names_in_the_order_given(spec: BaseModelSpec) -> None:
    lora = LoraSection(
        rank_pattern={"layers.1.self_attn.q_proj": 2, "*.self_attn.q_proj": 4}, alpha_pattern={"k_proj": 1.5}
    )
    layers = adapted_layers(lora, spec)
    assert list(layers.ranks.items()) == [
        ("layers.1.self_attn.q_proj", 2),
        ("model.layers.0.self_attn.q_proj", 4),
        ("model.layers.1.self_attn.q_proj", 4),
    ]
    assert layers.alphas == {"k_proj": 1.5}


def test_everything_that_matches_nothing_is_named_at_once(spec: BaseModelSpec) -> None:
    lora = LoraSection(
        targets=("q_proj", "proj2", "*.conv"),
        exclude=("v_proj",),
        layers=(0, 7),
        rank_pattern={"k_proj": 4},
        alpha_pattern={"*.o_proj": 4},
    )
    with pytest.raises(TargetsUnknown) as caught:
        adapted_layers(lora, spec)
    for expected in ("proj2, *.conv", "exclude has v_proj", "has 7", "0 to 1", "k_proj", "*.o_proj", "gate_proj"):
        assert expected in str(caught.value)


def test_nothing_left_to_adapt_is_refused(spec: BaseModelSpec) -> None:
    with pytest.raises(TargetsUnknown, match="leave no layer"):
        adapted_layers(LoraSection(targets=("q_proj",), exclude=("*",)), spec)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from switchyard.registry.records import VersionState
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.trainer.errors import PublishTargetInvalid
from switchyard.trainer.publish_loop import PublishLoop


@pytest.fixture
def model(tiny_base: Path) -> Any:
    shape = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    return get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base), shape)


def change(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    return model


def test_a_loop_is_a_chain_of_which_the_newest_and_the_named_stay(
    model: Any, tiny_base: Path, tmp_path: Path
) -> None:
    place = tmp_path / "registry"
    with PublishLoop("team/words", registry=place, keep=2, base=tiny_base) as loop:
        done = [loop.publish(change(model)) for _ in range(2)]
        with Registry.open(place) as registry:
            registry.set_alias(AdapterName.parse("team/words"), "good", 1, actor="tests")
        done += [loop.publish(change(model)) for _ in range(2)]
        assert loop.kept == ("team/words:1", "team/words:3", "team/words:4")
    with Registry.open(place) as registry:
        versions = [registry.get_version(AdapterRef.parse(f"team/words:{number}")) for number in (1, 2, 3, 4)]
    assert [version.lineage.parents for version in versions] == [(), *((one.digest,) for one in done[:3])]
    assert [version.state is VersionState.DELETED for version in versions] == [False, True, False, False]


@pytest.mark.parametrize(
    "places", [{"keep": 0, "registry": "r"}, {"keep": 1}, {"keep": 1, "registry": "r", "server": "s:1"}]
)
def test_a_loop_needs_one_place_and_keeps_something(places: dict[str, Any]) -> None:
    with pytest.raises(PublishTargetInvalid):
        PublishLoop("team/words", **places)

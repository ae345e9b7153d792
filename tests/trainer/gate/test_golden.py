from __future__ import annotations

import json
from pathlib import Path

import pytest

from switchyard.clients.errors import NotFound
from switchyard.clients.inference import InferenceClient
from switchyard.clients.registry import RegistryClient
from switchyard.registry.refs import AdapterName
from switchyard.trainer.errors import PublishFailed
from switchyard.trainer.gate.golden import Golden, GoldenPrompt, golden_from, largest_difference
from switchyard.trainer.gate.golden_check import check_golden
from switchyard.trainer.publish import PublishTarget, publish_run
from switchyard.trainer.run import train
from tests.support.served import start_server, stop_server
from tests.trainer.conftest import MakeRecipe

PROMPT = GoldenPrompt((5, 6, 7, 8), 2, ({7: -0.1, 3: -2.5}, {8: -0.5, 7: -1.0}))
GOLDEN = Golden("nf4+double/float32", 0.01, (PROMPT,))


def test_the_file_gives_back_what_was_written() -> None:
    assert golden_from(json.dumps(GOLDEN.document()).encode()) == GOLDEN


@pytest.mark.parametrize(
    "change",
    [{"schema": 2}, {"prompts": [{}]}, {"prompts": [{"token_ids": [1, 2], "prompt_tokens": 1, "top": []}]}],
)
def test_another_file_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"golden\.json"):
        golden_from(json.dumps(GOLDEN.document() | change).encode())


def test_the_difference_is_the_largest_of_all_places_and_tokens() -> None:
    equal = [dict(place) for place in PROMPT.top]
    assert largest_difference(PROMPT, equal) == 0
    assert largest_difference(PROMPT, [equal[0], {8: -0.5, 7: -1.25}]) == pytest.approx(0.25)


def test_a_token_that_the_server_does_not_name_is_at_least_as_far_as_its_last() -> None:
    assert largest_difference(PROMPT, [{7: -0.1, 4: -3.0}, PROMPT.top[1]]) == pytest.approx(0.5)
    assert largest_difference(PROMPT, [{7: -0.1, 4: -2.0}, PROMPT.top[1]]) == 0


@pytest.mark.slow
def test_an_alias_moves_when_the_server_says_what_peft_said_and_not_otherwise(
    make_recipe: MakeRecipe, tiny_base: Path, tmp_path: Path
) -> None:
    gate = {"exact_match": {}, "max_new_tokens": 6, "rows": 3, "golden": 2}
    result = train(make_recipe(train={"max_steps": 5}, gate=gate), out_dir=tmp_path / "out", threads=1)
    path = result.output.adapter / "golden.json"
    golden = golden_from(path.read_bytes())
    process, addresses = start_server(tiny_base, tmp_path)
    try:
        address = addresses["grpc"]
        done = publish_run(result, PublishTarget(AdapterName.parse("a/good"), "prod", None, address))
        assert done.ref == "a/good:1"
        with InferenceClient(address) as client, RegistryClient(address) as registry:
            assert registry.show("a/good@prod").version == 1
            assert 0 < check_golden(client, "a/good@prod", golden).difference <= golden.tolerance
            # Whoever holds the server to another adapter's answers must hear of it.
            path.write_text(path.read_text().replace('"top": [{', '"top": [{"9": -0.5, ', 1))
            with pytest.raises(PublishFailed, match="no alias was moved"):
                publish_run(result, PublishTarget(AdapterName.parse("a/bad"), "prod", None, address))
            assert registry.show("a/bad:1").version == 1
            with pytest.raises(NotFound):
                registry.show("a/bad@prod")
    finally:
        assert stop_server(process) == 0

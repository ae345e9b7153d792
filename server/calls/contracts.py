"""The serving contracts of the adapters that were asked, and what a draft becomes under one."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, Final, Protocol

from switchyard.registry.digest import canonical_json
from switchyard.registry.serving_contract import ServingContract, contract_of
from switchyard.server.adapters.recent import Recent
from switchyard.server.calls.draft import SAMPLING_NUMBERS, RequestDraft, SamplingDraft
from switchyard.server.chat.conversation import Role, Turn
from switchyard.server.chat.tool_schema import required_schema
from switchyard.server.engine.structure import Structure, StructureKind
from switchyard.server.engine.types import AdapterSelection
from switchyard.server.errors import ChatTemplateFailed

_KEPT: Final = 1024

NO_CONTRACT: Final = ServingContract()


class Blobs(Protocol):
    """Where the files of versions come from."""

    def read_blob(self, digest: str) -> bytes:
        """The verified bytes of one file."""
        ...


class Contracts:
    """Reads contracts, and keeps the last ones: a digest never means anything else."""

    def __init__(self, blobs: Blobs, executor: Executor) -> None:
        """Takes where files come from, and threads that may wait for them."""
        self._blobs = blobs
        self._executor = executor
        self._kept = Recent[str, ServingContract](_KEPT)

    async def of(self, selection: AdapterSelection | None) -> ServingContract:
        """The contract of what was selected; a composition has the one that all of its parts have.

        Raises:
            RegistryError: the file cannot be read.
            ChatTemplateFailed: it holds what publishing refuses today.
        """
        digests = {part.contract_digest for part in selection.parts} if selection is not None else set()
        if len(digests) != 1 or "" in digests:
            return NO_CONTRACT
        [digest] = digests
        if (kept := self._kept.get(digest)) is not None:
            return kept
        data = await asyncio.get_running_loop().run_in_executor(self._executor, self._blobs.read_blob, digest)
        try:
            contract = contract_of(data)
        except ValueError as error:
            raise ChatTemplateFailed(f"the serving contract of this version: {error}; publish it again") from None
        self._kept.put(digest, contract)
        return contract


def under(contract: ServingContract, draft: RequestDraft) -> RequestDraft:
    """What a draft asks for when the adapter has a say in it.

    A prompt that was given whole is continued as it is. A conversation gets the adapter's system prompt, stop
    strings, sampling and schema, as far as the caller did not say otherwise.
    """
    conversation = draft.conversation
    if conversation is None:
        return replace(draft, sampling=_filled(draft.sampling, draft.sampling_defaults))
    if contract.system_prompt and all(turn.role is not Role.SYSTEM for turn in conversation.turns):
        system = Turn(Role.SYSTEM, contract.system_prompt)
        conversation = replace(conversation, turns=(system, *conversation.turns))
    structure = draft.structure
    if structure is None and contract.output_schema and not conversation.offered:
        structure = Structure(StructureKind.JSON_SCHEMA, (contract.output_schema,))
    own: dict[str, Any] = dict(contract.sampling)
    return replace(
        draft,
        conversation=conversation,
        structure=structure,
        stopping=replace(draft.stopping, stop=tuple(dict.fromkeys((*draft.stopping.stop, *contract.stop)))),
        sampling=_filled(_filled(draft.sampling, SamplingDraft(**own)), draft.sampling_defaults),
    )


def constrained(draft: RequestDraft) -> RequestDraft:
    """Makes an answer that has to call tools keep to their schema."""
    conversation = draft.conversation
    if conversation is None or (schema := required_schema(conversation.tools, conversation.choice)) is None:
        return draft
    return replace(draft, structure=Structure(StructureKind.JSON_SCHEMA, (canonical_json(schema).decode(),)))


def _filled(draft: SamplingDraft, defaults: SamplingDraft) -> SamplingDraft:
    unset = {name: getattr(defaults, name) for name in SAMPLING_NUMBERS if getattr(draft, name) is None}
    return replace(draft, **unset)

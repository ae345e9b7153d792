"""Why a field of a request is refused, and the limits that depend on the server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FieldReason(StrEnum):
    """Why a field is refused; the value goes over the wire."""

    TARGET_REQUIRED = "TARGET_REQUIRED"
    REF_SYNTAX = "REF_SYNTAX"
    COMPOSITION = "COMPOSITION"
    PROMPT_EMPTY = "PROMPT_EMPTY"
    PROMPT_BYTES = "PROMPT_BYTES"
    CONTEXT_LENGTH = "CONTEXT_LENGTH"
    TOKEN_ID = "TOKEN_ID"  # noqa: S105 - a token of text, not a password
    SAMPLING_RANGE = "SAMPLING_RANGE"
    STOP = "STOP"
    STRUCTURE = "STRUCTURE"
    TOOL = "TOOL"
    LIMIT = "LIMIT"
    REQUEST_ID = "REQUEST_ID"
    SESSION_KEY = "SESSION_KEY"
    ENCODING = "ENCODING"
    UNSUPPORTED = "UNSUPPORTED"


FIELD_MEANINGS = {
    FieldReason.TARGET_REQUIRED: "nobody was asked: neither base, adapter nor composition",
    FieldReason.REF_SYNTAX: "a ref that is none of `ns/name@alias`, `ns/name:7`, `ns/name@sha256:...`",
    FieldReason.COMPOSITION: "number of adapters, a weight, a repeated adapter, the method or a parameter of it",
    FieldReason.PROMPT_EMPTY: "no text and no token ids",
    FieldReason.PROMPT_BYTES: "text larger than is tokenised at all",
    FieldReason.CONTEXT_LENGTH: "more token ids than the context holds",
    FieldReason.TOKEN_ID: "token ids outside the vocabulary, or none that may be chosen",
    FieldReason.SAMPLING_RANGE: "a number of `sampling` out of range or not a number",
    FieldReason.STOP: "a stop string that is empty or too long",
    FieldReason.STRUCTURE: "a structure that is empty or too long, or that an other field contradicts",
    FieldReason.TOOL: "a tool, a call of one or an answer to it, or the choice among the tools",
    FieldReason.LIMIT: "a count out of range: tokens, answers, stop strings, logprobs, priority, page size, grace",
    FieldReason.REQUEST_ID: "an id with other characters or too long",
    FieldReason.SESSION_KEY: "a session key that is too long or not printable",
    FieldReason.ENCODING: "bytes that are not the message, a value of another type, or text that is not UTF-8",
    FieldReason.UNSUPPORTED: "over HTTP: a field of the body that this server does not serve",
}
"""One line per reason, for the documentation."""


@dataclass(frozen=True, slots=True)
class FieldLimits:
    """Limits that depend on the server.

    Attributes:
        max_context_tokens: tokens that prompt and answer may have together.
        max_prompt_bytes: largest prompt text that is tokenised at all, in UTF-8 bytes.
        vocab_size: token ids are below it.
    """

    max_context_tokens: int
    max_prompt_bytes: int
    vocab_size: int

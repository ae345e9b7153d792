"""The errors that a caller of the client meets.

    ClientError
    ├── LocalError                found on this machine; nothing was sent, or nothing was kept
    │   ├── AddressInvalid            not an address of a server
    │   ├── CredentialInvalid         a token or certificate that cannot be used, or not safely
    │   ├── TargetInvalid             not exactly one of adapter, base and composition
    │   ├── ConversationInvalid       a turn has a role that there is not
    │   ├── StructureAmbiguous        more than one of JSON schema, regex, grammar and choices
    │   ├── PromptsInvalid            a file of prompts is not one; lists every bad line
    │   ├── NobodyToCompare           a name to compare does not answer; lists every one
    │   ├── SourceInvalid             the directory to push is not one of plain files; lists every fault
    │   ├── BaseAmbiguous             the base model of a push cannot be told
    │   ├── DestinationExists         pull never writes over something
    │   ├── BytesMismatch             downloaded bytes are not those of their digest
    │   ├── EmbeddedFailed            the child process of embedded mode did not come up
    │   ├── CommandUnavailable        a command of another room cannot be imported here
    │   └── DemoFailed                a step of the demo did not do what it is for
    ├── Refused                   the server said no; sending the same again does not help
    │   ├── RequestInvalid            a field or a file is wrong; `faults` lists all of them
    │   ├── RevisionGone              the changes asked for are gone; list again, then watch
    │   ├── NotFound                  no such adapter, version, alias or blob
    │   ├── PreconditionFailed        right request, wrong state, e.g. another base model
    │   ├── Conflict                  somebody else was first, e.g. the alias has moved
    │   ├── PermissionRefused         not known, or not allowed
    │   └── Unsupported               the server does not have this call
    ├── TryLater                  may succeed when sent again; `retry_after_s` says when
    │   ├── Overloaded                refused early because a limit is reached
    │   ├── Unavailable               the server or an adapter cannot answer now
    │   └── Unreachable               no server at the address, or the connection broke
    └── Failed                    accepted or answered, but not completed
        ├── DeadlineExceeded          not done within the caller's deadline
        ├── Cancelled                 given up by the caller or by the server
        ├── StreamBroken              the stream broke its contract of one terminal event
        └── ServerFault               a fault of the server or of its data

Every error carries `reason`, the stable name that the server gave (or a name
from here when the fault is local), and a message that says what, found,
expected and the next step. `switchyard.clients.statuses` maps gRPC onto the tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a request or a file.

    Attributes:
        subject: field path or file that it is about, e.g. `sampling.temperature`.
        reason: stable upper-case name, e.g. `SAMPLING_RANGE`; empty if the server gave none.
        message: what was found and what is allowed.
    """

    subject: str
    reason: str
    message: str

    def __str__(self) -> str:
        head = f"{self.subject} [{self.reason}]" if self.reason else self.subject
        return f"{head}: {self.message}"


class ClientError(Exception):
    """Root of the client's errors.

    Attributes:
        reason: stable upper-case name for machines.
        faults: every fault found; empty when the message says all.
        retryable: whether the same request may succeed later.
        retry_after_s: seconds after which a retry makes sense; None when the server did not say.
        accepted: whether the request had been accepted, so that part of an answer may be out.
        facts: further facts by name, e.g. the current generation of an alias.
    """

    reason: str = "CLIENT_ERROR"
    retryable: bool = False
    exit_status: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        faults: tuple[Fault, ...] = (),
        retry_after_s: float | None = None,
        accepted: bool = False,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        if reason:
            self.reason = reason
        self.faults = faults
        self.retry_after_s = retry_after_s
        self.accepted = accepted
        self.facts: Mapping[str, str] = dict(facts or {})


class LocalError(ClientError):
    """Found on this machine; nothing was sent, or nothing was kept."""

    reason = "LOCAL"


class AddressInvalid(LocalError):
    """The text is not an address of a server."""

    reason = "ADDRESS_INVALID"


class CredentialInvalid(LocalError):
    """A token or certificate cannot be used, or could be read by others on its way."""

    reason = "CREDENTIAL_INVALID"


class TargetInvalid(LocalError):
    """Not exactly one of adapter, base and composition was given."""

    reason = "TARGET_INVALID"


class ConversationInvalid(LocalError):
    """A turn of a conversation has a role that there is not."""

    reason = "CONVERSATION_INVALID"


class StructureAmbiguous(LocalError):
    """More than one of JSON schema, regular expression, grammar and choices was given."""

    reason = "STRUCTURE_AMBIGUOUS"


class PromptsInvalid(LocalError):
    """A file of prompts cannot be read, or has lines that are none."""

    reason = "PROMPTS_INVALID"


class NobodyToCompare(LocalError):
    """One or more of those that are to be compared do not answer at all."""

    reason = "NOBODY_TO_COMPARE"


class SourceInvalid(LocalError):
    """The directory to push cannot be read as a set of plain files."""

    reason = "SOURCE_INVALID"


class BaseAmbiguous(LocalError):
    """Neither the caller nor the registry tells the base model of a push."""

    reason = "BASE_AMBIGUOUS"


class DestinationExists(LocalError):
    """Pull never writes over something that is there."""

    reason = "DESTINATION_EXISTS"


class BytesMismatch(LocalError):
    """Downloaded bytes are not those that their digest names; they were thrown away."""

    reason = "DIGEST_MISMATCH"


class EmbeddedFailed(LocalError):
    """The child process of embedded mode did not come up."""

    reason = "EMBEDDED_FAILED"


class CommandUnavailable(LocalError):
    """A command of another room cannot be imported here."""

    reason = "COMMAND_UNAVAILABLE"


class DemoFailed(LocalError):
    """A step of the demo did not do what it is for."""

    reason = "DEMO_FAILED"


class Refused(ClientError):
    """The server said no; sending the same again does not help."""

    reason = "REFUSED"


class RequestInvalid(Refused):
    """A field or a file is wrong; `faults` lists all of them."""

    reason = "REQUEST_INVALID"


class RevisionGone(Refused):
    """The changes asked for are gone, or were never made here; list again, then watch from there."""

    reason = "REVISION_GONE"


class NotFound(Refused):
    """No such adapter, version, alias or blob."""

    reason = "NOT_FOUND"


class PreconditionFailed(Refused):
    """The request is right and the state is not, e.g. another base model."""

    reason = "PRECONDITION_FAILED"


class Conflict(Refused):
    """Somebody else was first; read the state again and decide."""

    reason = "CONFLICT"


class PermissionRefused(Refused):
    """The caller is not known or not allowed."""

    reason = "PERMISSION_REFUSED"


class Unsupported(Refused):
    """The server does not have this call."""

    reason = "UNSUPPORTED"


class TryLater(ClientError):
    """May succeed when sent again."""

    reason = "TRY_LATER"
    retryable = True


class Overloaded(TryLater):
    """Refused early because a limit is reached."""

    reason = "OVERLOADED"


class Unavailable(TryLater):
    """The server or an adapter cannot answer now."""

    reason = "UNAVAILABLE"


class Unreachable(TryLater):
    """No server answered at the address, or the connection broke."""

    reason = "UNREACHABLE"
    exit_status = 3


class Failed(ClientError):
    """Accepted or answered, but not completed."""

    reason = "FAILED"


class DeadlineExceeded(Failed):
    """Not done within the caller's deadline."""

    reason = "DEADLINE_EXCEEDED"


class Cancelled(Failed):
    """Given up by the caller or by the server."""

    reason = "CANCELLED"


class StreamBroken(Failed):
    """The stream broke its contract: Started, chunks, exactly one terminal event."""

    reason = "STREAM_BROKEN"


class ServerFault(Failed):
    """A fault of the server or of its data."""

    reason = "SERVER_FAULT"

"""What an alias asks of a version before it may point there. Pure: facts in, what is missing out.

A rollback is held to less than a promotion. The version was there before, so it has passed once, and
an emergency must not wait for approvals; but it must be servable and, where a signature is asked for,
its signature must hold now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.records import VersionRecord
from switchyard.registry.statements.kinds import StatementKind
from switchyard.registry.strict_json import Json
from switchyard.registry.verdicts import Reason, Verdict, shown

_MOST_SIGNERS = 64
_MOST_APPROVALS = 16
_SIGNER_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class AliasPolicy:
    """The rules of one alias; each holds by itself.

    Attributes:
        protected: every move must say from which generation, so that no two people move it at once.
        required_statements: kinds of statement that the version must have.
        distinct_promoter: whoever published the version may not move the alias to it.
        signers: identities of which one must have signed: fingerprints of keys, or names in certificates
            whose root the namespace trusts. Empty takes any key that the namespace trusts.
        min_approvals: approvals by different people, the publisher not among them.

    Raises:
        ArgumentInvalid: a value is out of range; all of them are told.
    """

    protected: bool = False
    required_statements: tuple[str, ...] = ()
    distinct_promoter: bool = False
    signers: tuple[str, ...] = ()
    min_approvals: int = 0

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {shown(getattr(self, name))}; expected true or false"
            for name in ("protected", "distinct_promoter")
            if not isinstance(getattr(self, name), bool)
        ]
        kinds = [str(kind) for kind in StatementKind]
        required: object = self.required_statements
        if not (isinstance(required, tuple) and all(kind in kinds for kind in required)):
            faults.append(f"required_statements is {shown(required)}; expected some of {', '.join(kinds)}")
        elif self.signers and StatementKind.SIGNATURE not in required:
            faults.append("signers are named but no signature is required; add `signature` to required_statements")
        if not _are_signers(self.signers):
            faults.append(f"signers is {shown(self.signers)}; expected at most {_MOST_SIGNERS} identities")
        if type(self.min_approvals) is not int or not 0 <= self.min_approvals <= _MOST_APPROVALS:
            faults.append(f"min_approvals is {shown(self.min_approvals)}; expected 0 to {_MOST_APPROVALS}")
        if faults:
            raise ArgumentInvalid(f"alias policy refused: {'; '.join(faults)}")

    @property
    def needs_signature(self) -> bool:
        """Whether a version must be signed."""
        return StatementKind.SIGNATURE in self.required_statements

    @property
    def needs_evidence(self) -> bool:
        """Whether statements about the version matter."""
        return bool(self.required_statements) or self.min_approvals > 0

    def document(self) -> dict[str, Json]:
        """Returns the JSON object that is stored."""
        return {
            "protected": self.protected,
            "required_statements": list(self.required_statements),
            "distinct_promoter": self.distinct_promoter,
            "signers": list(self.signers),
            "min_approvals": self.min_approvals,
        }


def policy_from_document(document: Mapping[str, Json]) -> AliasPolicy:
    """Reads what `AliasPolicy.document` made, or what a person wrote; fields that are missing get the default.

    Raises:
        ArgumentInvalid: a field that is not known, or a value out of range.
    """
    known = [field.name for field in fields(AliasPolicy)]
    unknown = sorted(set(document) - set(known))
    if unknown:
        raise ArgumentInvalid(
            f"alias policy has unknown fields {', '.join(map(shown, unknown))}; known are {', '.join(known)}"
        )
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
    return AliasPolicy(**values)  # type: ignore[arg-type]  # __post_init__ checks every value


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is attested of a version now.

    Attributes:
        kinds: kinds of statement it has.
        signers: who has signed it, verified with a key or a root that the version's namespace trusts.
        fingerprints: keys whose signature holds, trusted or not; a policy that lists one trusts it.
        approvers: who has approved it, expired approvals left out.
    """

    kinds: frozenset[StatementKind] = frozenset()
    signers: frozenset[str] = frozenset()
    fingerprints: frozenset[str] = frozenset()
    approvers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Proposal:
    """A move that somebody asks for.

    Attributes:
        alias: as `ns/name@alias`.
        actor: who asks.
        generation_given: whether the caller said from which generation.
        version: the version it would point to, or split to; None when it points to none that is new.
        was_there: whether this goes back to a version that the alias had before.
    """

    alias: str
    actor: str
    generation_given: bool
    version: VersionRecord | None = None
    was_there: bool = False


def unmet(policy: AliasPolicy, proposal: Proposal, evidence: Evidence) -> tuple[Verdict, ...]:
    """Returns everything that a policy misses; nothing means the move may be made."""
    missing: list[tuple[Reason, str]] = []
    if policy.protected and not proposal.generation_given:
        message = "give the generation that you have seen it at (expected_generation)"
        missing.append((Reason.GENERATION_REQUIRED, f"the alias is protected; {message}"))
    version = proposal.version
    if version is not None:
        missing += _unsigned(policy, version, evidence)
        if not proposal.was_there:
            missing += _unattested(policy, version, evidence)
            missing += _unapproved(policy, version, evidence)
            if policy.distinct_promoter and proposal.actor == version.publisher:
                message = (
                    f"{proposal.actor} has published version {version.version}; somebody else must move it there"
                )
                missing.append((Reason.PROMOTER_IS_PUBLISHER, message))
    return tuple(Verdict(reason, proposal.alias, message) for reason, message in missing)


def _unsigned(policy: AliasPolicy, version: VersionRecord, evidence: Evidence) -> list[tuple[Reason, str]]:
    if not policy.needs_signature:
        return []
    holding = evidence.signers | evidence.fingerprints
    taken = holding.intersection(policy.signers) if policy.signers else evidence.signers
    if taken:
        return []
    wanted = f"one of {', '.join(policy.signers)}" if policy.signers else "somebody whose key the namespace trusts"
    found = ", ".join(sorted(holding)) or "nobody"
    message = f"version {version.version} is signed by {found}, expected {wanted}; sign it and attach the signature"
    return [(Reason.SIGNATURE_MISSING, message)]


def _unattested(policy: AliasPolicy, version: VersionRecord, evidence: Evidence) -> list[tuple[Reason, str]]:
    counted = {StatementKind.SIGNATURE, StatementKind.APPROVAL}
    return [
        (Reason.STATEMENT_MISSING, f"version {version.version} has no statement of kind {kind}; attach one")
        for kind in policy.required_statements
        if kind not in counted and kind not in evidence.kinds
    ]


def _unapproved(policy: AliasPolicy, version: VersionRecord, evidence: Evidence) -> list[tuple[Reason, str]]:
    needed = max(policy.min_approvals, 1 if StatementKind.APPROVAL in policy.required_statements else 0)
    approvers = evidence.approvers - {version.publisher}
    if len(approvers) >= needed:
        return []
    message = (
        f"version {version.version} is approved by {', '.join(sorted(approvers)) or 'nobody'}, expected {needed} "
        f"other than its publisher {version.publisher}; ask for {needed - len(approvers)} more"
    )
    return [(Reason.APPROVALS_MISSING, message)]


def _are_signers(signers: object) -> bool:
    return (
        isinstance(signers, tuple)
        and len(signers) <= _MOST_SIGNERS
        and all(
            isinstance(text, str) and 0 < len(text) <= _SIGNER_CHARACTERS and text.isprintable() for text in signers
        )
    )

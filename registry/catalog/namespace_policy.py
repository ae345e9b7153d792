"""The rules of a namespace: what is kept, and what its aliases ask for when nobody says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from switchyard.registry.catalog.alias_policy import AliasPolicy
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.refs import is_name
from switchyard.registry.strict_json import Json
from switchyard.registry.verdicts import shown

_MOST_NAMES = 64
_KEY_CHARACTERS = 16_384


@dataclass(frozen=True, slots=True)
class NamespacePolicy:
    """Rules that hold for every adapter of a namespace.

    A version is only ever deleted by retention when both numbers allow it and no alias needs it.

    Attributes:
        keep_last: newest versions of each adapter that stay, however old; 0 keeps all.
        keep_days: days that every version stays, however many come after it; 0 adds no such days.
        protected_aliases: aliases that are protected unless they have a policy of their own.
        required_statements: kinds of statement that these aliases ask for.
        distinct_promoter: whoever published a version may not move these aliases to it.
        signers: identities of which one must have signed what these aliases point to; empty takes any.
        min_approvals: approvals that these aliases ask for.
        trusted_keys: public keys and root certificates, in PEM, that signatures are verified with.
        signed_publish: whether a version must be signed to be published at all.

    Raises:
        ArgumentInvalid: a number or a name is out of range; all of them are told.
    """

    keep_last: int = 0
    keep_days: float = 0.0
    protected_aliases: tuple[str, ...] = ()
    required_statements: tuple[str, ...] = ()
    distinct_promoter: bool = False
    signers: tuple[str, ...] = ()
    min_approvals: int = 0
    trusted_keys: tuple[str, ...] = ()
    signed_publish: bool = False

    def __post_init__(self) -> None:
        faults = []
        if not _is_number(self.keep_last, int) or self.keep_last > 1_000_000:
            faults.append(f"keep_last is {shown(self.keep_last)}; expected a whole number from 0 to 1000000")
        if not _is_number(self.keep_days, int, float) or not self.keep_days <= 36_500:
            faults.append(f"keep_days is {shown(self.keep_days)}; expected a number from 0 to 36500")
        names: object = self.protected_aliases
        if not (isinstance(names, tuple) and len(names) <= _MOST_NAMES and all(map(_is_text_name, names))):
            faults.append(f"protected_aliases is {shown(names)}; expected at most {_MOST_NAMES} names")
        keys: object = self.trusted_keys
        if not (isinstance(keys, tuple) and len(keys) <= _MOST_NAMES and all(map(_is_pem, keys))):
            faults.append(f"trusted_keys holds {shown(keys)}; expected at most {_MOST_NAMES} texts in PEM")
        elif self.signed_publish and not keys:
            faults.append("signed_publish is asked for without trusted_keys; name the keys that may sign")
        if not isinstance(self.signed_publish, bool):
            faults.append(f"signed_publish is {shown(self.signed_publish)}; expected true or false")
        try:
            self._protection()
        except ArgumentInvalid as error:
            faults.append(str(error))
        if faults:
            raise ArgumentInvalid(f"namespace policy refused: {'; '.join(faults)}")

    def document(self) -> dict[str, Json]:
        """Returns the JSON object that is stored."""
        return {
            "keep_last": self.keep_last,
            "keep_days": float(self.keep_days),
            "protected_aliases": list(self.protected_aliases),
            "required_statements": list(self.required_statements),
            "distinct_promoter": self.distinct_promoter,
            "signers": list(self.signers),
            "min_approvals": self.min_approvals,
            "trusted_keys": list(self.trusted_keys),
            "signed_publish": self.signed_publish,
        }

    def alias_policy(self, alias: str) -> AliasPolicy:
        """Returns the rules of an alias that has none of its own."""
        return self._protection() if alias in self.protected_aliases else AliasPolicy()

    def _protection(self) -> AliasPolicy:
        return AliasPolicy(
            protected=True,
            required_statements=self.required_statements,
            distinct_promoter=self.distinct_promoter,
            signers=self.signers,
            min_approvals=self.min_approvals,
        )


def policy_from_document(document: Mapping[str, Json]) -> NamespacePolicy:
    """Reads what `NamespacePolicy.document` made, or what a person wrote; fields that are missing get the default.

    Raises:
        ArgumentInvalid: a field that is not known, or a value out of range.
    """
    known = [field.name for field in fields(NamespacePolicy)]
    unknown = sorted(set(document) - set(known))
    if unknown:
        raise ArgumentInvalid(
            f"namespace policy has unknown fields {', '.join(map(shown, unknown))}; known are {', '.join(known)}"
        )
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
    return NamespacePolicy(**values)  # type: ignore[arg-type]  # __post_init__ checks every value


def _is_number(value: object, *kinds: type) -> bool:
    return type(value) in kinds and isinstance(value, (int, float)) and value >= 0


def _is_text_name(value: object) -> bool:
    return isinstance(value, str) and is_name(value)


def _is_pem(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _KEY_CHARACTERS and value.lstrip().startswith("-----BEGIN ")

"""Signatures that come with a publish, or that a namespace asks of one."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.engine import Connection

from switchyard.registry.errors import PolicyUnmet, StatementRefused
from switchyard.registry.index.database import Index
from switchyard.registry.refs import AdapterName
from switchyard.registry.statements.kinds import StatementKind
from switchyard.registry.statements.signing import Signature, Signed, verify_version
from switchyard.registry.statements.statements import Statements, signature_summary
from switchyard.registry.verdicts import Reason, Verdict


@dataclass(frozen=True, slots=True)
class CheckedSignature:
    """A signature that holds and waits for its version.

    Attributes:
        name: the adapter.
        subject_digest: the version's identity.
        bundle: its bytes.
        signature: what was verified.
    """

    name: AdapterName
    subject_digest: str
    bundle: bytes
    signature: Signature


class PublishSignatures:
    """Checks signatures before a version is visible, and attaches them in the transaction that makes it so.

    Args:
        index: where to read.
        statements: keeps them.
    """

    def __init__(self, index: Index, statements: Statements) -> None:
        self._index = index
        self._statements = statements

    def takes(self, namespace: str) -> bool:
        """Tells whether a signature beside the files is of use: the namespace trusts somebody."""
        with self._index.read() as connection:
            return bool(self._statements.rules(connection, namespace).trusted_keys)

    def check(self, name: AdapterName, subject: Signed, bundle: bytes | None) -> CheckedSignature | None:
        """Verifies the signature of a publish with the keys that the namespace trusts.

        Args:
            name: the adapter.
            subject: what is being published.
            bundle: its signature; None when it comes without.

        Returns:
            What `attach` takes; None when there is nothing to attach.

        Raises:
            StatementRefused: the signature does not hold.
            PolicyUnmet: there is none, and the namespace asks for one.
            ExtraMissing: the extra `sign` is not installed.
        """
        with self._index.read() as connection:
            rules = self._statements.rules(connection, name.namespace)
        if bundle is not None:
            signature = verify_version(bundle, subject, rules.trusted_keys)
            return CheckedSignature(name, subject.digest, bundle, signature)
        if rules.signed_publish and not self._is_signed(subject, rules.trusted_keys):
            message = f"{name.namespace} takes signed versions only; sign {subject.digest} and publish it with that"
            raise PolicyUnmet((Verdict(Reason.SIGNATURE_MISSING, str(name), message),))
        return None

    def attach(self, connection: Connection, checked: CheckedSignature | None, actor: str) -> None:
        """Attaches a signature, in the transaction that has written its version."""
        if checked is None:
            return
        self._statements.attach_within(
            connection,
            checked.name,
            checked.subject_digest,
            StatementKind.SIGNATURE,
            checked.bundle,
            checked.signature.signer,
            signature_summary(checked.signature),
            actor,
        )

    def _is_signed(self, subject: Signed, trusted_keys: tuple[str, ...]) -> bool:
        """Tells whether the same content was signed before, e.g. when it is published again."""
        try:
            self._statements.verify(subject, trusted_keys)
        except StatementRefused:
            return False
        return True

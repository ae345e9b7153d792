"""Names and refs: what a person types to mean one version.

A ref is `ns/name@alias`, `ns/name:7` or `ns/name@sha256:<64 hex>`; the
namespace may be left out and is then `default`. No selector is implied: a
ref that silently meant the newest version would change what is served when
somebody else publishes. Names never become paths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from switchyard.registry.digest import is_digest
from switchyard.registry.errors import RefSyntax
from switchyard.registry.verdicts import shown

DEFAULT_NAMESPACE = "default"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")
_VERSION = re.compile(r"[1-9][0-9]{0,17}\Z")
_FORMS = "`ns/name@alias`, `ns/name:7` or `ns/name@sha256:<64 hex>`"


def is_name(text: str) -> bool:
    """Tells whether `text` has the form of a name."""
    return _NAME.match(text) is not None


def check_name(text: str, kind: str) -> str:
    """Returns `text` if it can be the name of a `kind` (namespace, adapter, alias).

    Raises:
        RefSyntax: it cannot.
    """
    if not is_name(text):
        raise RefSyntax(
            f"{kind} {shown(text)} is not a name: 1 to 64 of a-z, 0-9, '.', '_', '-', "
            "beginning and ending with a letter or digit"
        )
    return text


def check_alias(text: str) -> str:
    """Returns `text` if it can name an alias.

    Raises:
        RefSyntax: it is no name, or only digits, which would read like a version.
    """
    if text.isdigit():
        raise RefSyntax(f"alias {shown(text)} is only digits; a version is written `ns/name:{text[:18]}`")
    return check_name(text, "alias")


@dataclass(frozen=True, slots=True, order=True)
class AdapterName:
    """Which adapter, of all its versions.

    Attributes:
        namespace: owner of the name.
        adapter: name within the namespace.
    """

    namespace: str
    adapter: str

    def __post_init__(self) -> None:
        check_name(self.namespace, "namespace")
        check_name(self.adapter, "adapter")

    @classmethod
    def parse(cls, text: str) -> AdapterName:
        """Reads `ns/name` or `name`.

        Raises:
            RefSyntax: anything else, a selector included.
        """
        if "@" in text or ":" in text:
            raise RefSyntax(f"{shown(text)} is not an adapter name: expected `ns/name` without a selector")
        namespace, slash, adapter = text.partition("/")
        return cls(namespace, adapter) if slash else cls(DEFAULT_NAMESPACE, namespace)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.adapter}"


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """Which version of an adapter; exactly one selector is set.

    Attributes:
        namespace: owner of the name.
        adapter: name within the namespace.
        alias: movable pointer, or None.
        version: number, or None.
        digest: manifest digest, or None.
    """

    namespace: str
    adapter: str
    alias: str | None = None
    version: int | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        AdapterName(self.namespace, self.adapter)
        if [self.alias, self.version, self.digest].count(None) != 2:
            raise RefSyntax(f"a ref to {self.name} needs exactly one selector: {_FORMS}")
        if self.alias is not None:
            check_alias(self.alias)
        if self.version is not None and self.version < 1:
            raise RefSyntax(f"version {self.version} of {self.name} cannot exist: versions count from 1")
        if self.digest is not None and not is_digest(self.digest):
            raise RefSyntax(f"{shown(self.digest)} is not `sha256:` and 64 hexadecimal characters")

    @classmethod
    def parse(cls, text: str) -> AdapterRef:
        """Reads one of the three forms.

        Raises:
            RefSyntax: anything else; the message names the three forms.
        """
        name_text, at, selector = text.partition("@")
        if at:
            name = AdapterName.parse(name_text)
            if selector.startswith("sha256:"):
                return cls(name.namespace, name.adapter, digest=selector)
            return cls(name.namespace, name.adapter, alias=selector)
        name_text, colon, number = text.partition(":")
        if not colon:
            raise RefSyntax(f"{shown(text)} names no version: write {_FORMS}")
        name = AdapterName.parse(name_text)
        if _VERSION.match(number) is None:
            raise RefSyntax(f"{shown(number)} is not a version number: write {_FORMS}")
        return cls(name.namespace, name.adapter, version=int(number))

    @property
    def name(self) -> AdapterName:
        """The adapter without the selector."""
        return AdapterName(self.namespace, self.adapter)

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}:{self.version}"
        return f"{self.name}@{self.alias if self.alias is not None else self.digest}"

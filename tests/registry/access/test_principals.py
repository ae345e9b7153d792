"""Tokens prove somebody until the moment they do not; every change is in the audit log and in the events."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from databases import on_both
from handmade import ManualClock

from switchyard.registry.access import principals, tokens
from switchyard.registry.access.policy import Effect, Role, Scope, decide
from switchyard.registry.access.resources import Resource
from switchyard.registry.errors import ArgumentInvalid, StoreBusy, Unauthenticated
from switchyard.registry.index.changes import ORIGIN, Origin
from switchyard.registry.location import Location
from switchyard.registry.store import Registry

NER = Resource("red", "ner")
# Less than a writer waits for its turn, and more than any answer takes.
WAIT_S = 20.0


@pytest.fixture
def registry(registry: Registry) -> Registry:
    """With one principal."""
    registry.access.create_principal("ada", actor="root")
    return registry


@on_both
def test_a_token_proves_its_principal_with_its_grants(registry: Registry) -> None:
    registry.access.grant("ada", Scope.READ, "red/*", actor="root")
    issued = registry.access.create_token("ada", note="laptop", actor="root")
    who = registry.access.authenticate(issued.secret)
    assert (who.name, who.credential) == ("ada", issued.token_id)
    assert decide(who.grants, Scope.READ, NER)
    assert not decide(who.grants, Scope.PUBLISH, NER)


def test_a_secret_is_256_random_bits_and_is_stored_nowhere(registry: Registry, root: Path) -> None:
    issued = [registry.access.create_token("ada", actor="root") for _ in range(3)]
    assert len({token.secret for token in issued}) == 3
    for token in issued:
        prefix, token_id, secret = token.secret.split("_", 2)
        assert (prefix, token_id, len(secret)) == ("swy", token.token_id, 43)
        assert token.secret not in repr(token)
    dump = b"".join(path.read_bytes() for path in root.iterdir() if path.is_file())
    for token in issued:
        assert token.token_id.encode() in dump
        assert token.secret.split("_", 2)[2].encode() not in dump


def test_what_is_not_the_whole_token_proves_nothing(registry: Registry) -> None:
    secret = registry.access.create_token("ada", actor="root").secret
    other = registry.access.create_token("ada", actor="root").secret
    swapped = f"{secret[:21]}{other[21:]}"
    flipped = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    for wrong in ("", "swy", secret[:-1], secret + "a", secret.upper(), f" {secret}", swapped, flipped, "swy_x_y"):
        with pytest.raises(Unauthenticated) as caught:
            registry.access.authenticate(wrong)
        assert str(caught.value) == principals._REFUSED


def test_a_token_ends_with_its_time(registry: Registry, clock: ManualClock) -> None:
    issued = registry.access.create_token("ada", ttl_s=100, actor="root")
    assert registry.access.authenticate(issued.secret).name == "ada"
    assert issued.expires_at_s is not None
    clock.now_s = issued.expires_at_s
    with pytest.raises(Unauthenticated):
        registry.access.authenticate(issued.secret)


@on_both
def test_a_revoked_token_ends_at_once_also_in_another_process(registry: Registry, location: Location) -> None:
    issued = registry.access.create_token("ada", actor="root")
    with Registry.open(location) as other:
        assert other.access.authenticate(issued.secret).name == "ada"
        assert registry.access.revoke_token(issued.token_id, actor="root")
        with pytest.raises(Unauthenticated):
            other.access.authenticate(issued.secret)
    assert not registry.access.revoke_token(issued.token_id, actor="root")
    with pytest.raises(ArgumentInvalid, match="no token"):
        registry.access.revoke_token("0" * 16, actor="root")


@on_both
def test_a_grant_taken_back_ends_at_once(registry: Registry) -> None:
    registry.access.assign_role("ada", Role.ADMIN, "*", actor="root")
    registry.access.grant("ada", "adapter:read", "red/ner", effect=Effect.DENY, actor="root")
    secret = registry.access.create_token("ada", actor="root").secret
    assert not decide(registry.access.authenticate(secret).grants, Scope.READ, NER)
    assert registry.access.revoke_grant("ada", "adapter:read", "red/ner", actor="root")
    assert not registry.access.revoke_grant("ada", "adapter:read", "red/ner", actor="root")
    assert decide(registry.access.authenticate(secret).grants, Scope.READ, NER)
    assert registry.access.revoke_grant("ada", Scope.READ, "*/*", actor="root")
    assert not decide(registry.access.authenticate(secret).grants, Scope.READ, NER)


@on_both
def test_one_rule_per_scope_and_pattern(registry: Registry) -> None:
    registry.access.grant("ada", Scope.READ, "red/*", effect=Effect.DENY, actor="root")
    registry.access.grant("ada", Scope.READ, "red/*", actor="root")
    ((rule,),) = [record.grants for record in registry.access.list()]
    assert str(rule) == "allow adapter:read on red/*"


@on_both
def test_a_deleted_principal_takes_its_tokens_along(registry: Registry) -> None:
    registry.access.assign_role("ada", Role.READER, "red", actor="root")
    secret = registry.access.create_token("ada", actor="root").secret
    registry.access.delete_principal("ada", actor="root")
    assert registry.access.list() == []
    with pytest.raises(Unauthenticated):
        registry.access.authenticate(secret)
    # The name may come back; what it could do does not.
    registry.access.create_principal("ada", actor="root")
    assert registry.access.list()[0].grants == ()


@on_both
def test_last_use_is_noted_once_a_minute(registry: Registry, clock: ManualClock) -> None:
    issued = registry.access.create_token("ada", actor="root")

    def last_used() -> float | None:
        registry.access.flush()
        return registry.access.list()[0].tokens[0].last_used_at_s

    assert last_used() is None
    registry.access.authenticate(issued.secret)
    first = last_used()
    assert first is not None
    clock.now_s = first + 50
    registry.access.authenticate(issued.secret)
    assert last_used() == first
    clock.now_s = first + 70
    registry.access.authenticate(issued.secret)
    assert last_used() == clock.now_s


def test_nobody_is_locked_out_because_the_last_use_cannot_be_written(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = registry.access.create_token("ada", actor="root")

    def refuse() -> None:
        raise StoreBusy("busy")

    monkeypatch.setattr(registry._index, "write", refuse)
    assert registry.access.authenticate(issued.secret).name == "ada"
    registry.access.flush()
    monkeypatch.undo()
    assert registry.access.list()[0].tokens[0].last_used_at_s is None
    registry.access.authenticate(issued.secret)
    registry.access.flush()
    assert registry.access.list()[0].tokens[0].last_used_at_s is not None


@on_both
def test_nobody_waits_for_a_writer_to_prove_who_he_is(registry: Registry) -> None:
    issued = registry.access.create_token("ada", actor="root")
    held, done = threading.Event(), threading.Event()

    def write() -> None:
        with registry._index.write():
            held.set()
            done.wait()

    with ThreadPoolExecutor(2) as pool:
        try:
            writing = pool.submit(write)
            held.wait()
            proven = [pool.submit(registry.access.authenticate, issued.secret).result(WAIT_S) for _ in range(3)]
            assert {who.name for who in proven} == {"ada"}
            assert not writing.done()
            assert registry.access.list()[0].tokens[0].last_used_at_s is None
        finally:
            done.set()
    registry.access.flush()
    assert registry.access.list()[0].tokens[0].last_used_at_s is not None


def test_a_use_is_written_before_the_registry_closes_and_no_thread_stays(location: Location) -> None:
    with Registry.open(location) as registry:
        registry.access.create_principal("ada", actor="root")
        issued = registry.access.create_token("ada", actor="root")
        registry.access.authenticate(issued.secret)
    assert "registry-last-uses" not in {thread.name for thread in threading.enumerate()}
    with Registry.open(location) as again:
        assert again.access.list()[0].tokens[0].last_used_at_s is not None


@on_both
def test_a_certificate_names_exactly_one_principal(registry: Registry) -> None:
    uri = "spiffe://corp/ns/red/trainer"
    registry.access.create_principal(uri, actor="root")
    registry.access.assign_role(uri, Role.PUBLISHER, "red", actor="root")
    who = registry.access.identify(["https://elsewhere/x", uri])
    assert (who.name, who.credential) == (uri, uri)
    assert decide(who.grants, Scope.PUBLISH, NER)
    registry.access.create_principal("https://elsewhere/x", actor="root")
    for uris in ([], ["ada"], ["spiffe://corp/ns/red/other"], [uri, "https://elsewhere/x"]):
        with pytest.raises(Unauthenticated, match="exactly one principal"):
            registry.access.identify(uris)


@pytest.mark.parametrize("name", ["", "a b", "-x", "ä", "a\n", "x" * 257, "a'b"])
def test_a_principal_has_a_printable_name(registry: Registry, name: str) -> None:
    with pytest.raises(ArgumentInvalid, match="cannot name a principal"):
        registry.access.create_principal(name, actor="root")


def test_nothing_hangs_on_nobody(registry: Registry) -> None:
    for call in (
        lambda: registry.access.grant("bob", Scope.READ, "*/*", actor="root"),
        lambda: registry.access.revoke_grant("bob", Scope.READ, "*/*", actor="root"),
        lambda: registry.access.create_token("bob", actor="root"),
        lambda: registry.access.delete_principal("bob", actor="root"),
    ):
        with pytest.raises(ArgumentInvalid, match="no principal 'bob'"):
            call()
    for ttl_s in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ArgumentInvalid, match="expected more than 0"):
            registry.access.create_token("ada", ttl_s=ttl_s, actor="root")
    with pytest.raises(ArgumentInvalid, match="a note of 257"):
        registry.access.create_token("ada", note="x" * 257, actor="root")


@on_both
def test_every_change_is_told_and_kept(registry: Registry) -> None:
    start, first = registry.feed.revision(), registry.audit.head()[0]
    origin = ORIGIN.set(Origin("tok", "ipv4:127.0.0.1:9", "call-1"))
    registry.access.create_principal("ada", actor="root")  # Known already: nothing happens.
    registry.access.assign_role("ada", Role.READER, "red", actor="root")
    issued = registry.access.create_token("ada", actor="root")
    registry.access.revoke_token(issued.token_id, actor="root")
    registry.access.revoke_grant("ada", Scope.READ, "red/*", actor="root")
    registry.access.delete_principal("ada", actor="root")
    ORIGIN.reset(origin)
    events = registry.feed.events(start)
    assert {event.kind for event in events} == {"access.changed"}
    told = [dict(event.payload) for event in events]
    assert [payload["action"] for payload in told] == [
        "grants.added",
        "token.created",
        "token.revoked",
        "grant.revoked",
        "principal.deleted",
    ]
    assert issued.secret not in json.dumps(told)
    assert told[1]["token"]["secret_digest"] == tokens.secret_digest(issued.secret)  # type: ignore[index, call-overload]
    logged = registry.audit.page(first)
    assert {(row.actor, row.action, row.credential, row.peer, row.request_id) for row in logged} == {
        ("root", "access.changed", "tok", "ipv4:127.0.0.1:9", "call-1")
    }
    assert len(logged) == len(told)
    assert registry.audit.verify() >= len(logged)

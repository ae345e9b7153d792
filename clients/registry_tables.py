"""Tables of what a registry tells: comparisons, impact, statements, events, audit rows, upkeep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from rich.table import Table

from switchyard.clients.aliases import AliasPolicy
from switchyard.clients.answers import short_digest
from switchyard.clients.catalog import Comparison, Impact, Namespace, NamespacePolicy
from switchyard.clients.records import Alias, AliasMove
from switchyard.clients.render import console, facts_table, lined_table, minute, moment, row, safe, size
from switchyard.clients.statements import Statement
from switchyard.clients.upkeep import AuditEvent, Collection, Scrub
from switchyard.clients.watching import WatchEvent

_TELLING: Final = (
    "alias",
    "version",
    "state",
    "from_version",
    "to_version",
    "generation",
    "canary_version",
    "canary_percent",
    "name",
    "action",
    "principal",
    "kind",
    "approver",
    "tool",
    "signer",
    "digest",
    "quota_bytes",
    "reason",
    "note",
)
"""Keys of payloads that tables show, in this order; zero and empty are left out."""


def aliases_table(found: Sequence[Alias]) -> Table:
    """One line per alias of an adapter."""
    table = lined_table("alias", ">version", "digest", ">#", "split", "moved (UTC)", "by")
    for one in found:
        split = f"{one.canary.percent} % to {one.canary.version}" if one.canary else ""
        facts = (str(one.version), short_digest(one.digest), str(one.generation), split)
        row(table, one.name, *facts, minute(one.updated_at_s), one.updated_by)
    return table


def policy_table(policy: AliasPolicy) -> Table:
    """The rules of an alias, one per line."""
    return facts_table(
        {
            "protected": "yes" if policy.protected else "no",
            "statements": ", ".join(policy.required_statements),
            "promoter": "not the publisher" if policy.distinct_promoter else "",
            "signers": "\n".join(policy.signers),
            "approvals": str(policy.min_approvals) if policy.min_approvals else "",
        }
    )


def comparison_tables(found: Comparison) -> list[Table]:
    """What differs, and the weights module by module, the most different first."""
    changes = lined_table("field", f"{found.version.ref}", f"{found.other.ref}")
    for one in (*found.config, *found.lineage):
        row(changes, one.field, one.before or "-", one.after or "-")
    modules = lined_table("module", ">norm", ">other", ">rank", ">other", ">cosine")
    for module in sorted(found.modules, key=lambda module: module.cosine):
        norms = (f"{module.norm:.4g}", f"{module.other_norm:.4g}")
        ranks = (f"{module.rank:.1f}", f"{module.other_rank:.1f}")
        row(modules, module.module, *norms, *ranks, f"{module.cosine:+.4f}")
    return [table for table in (changes, modules) if table.row_count]


def impact_table(found: Sequence[Impact]) -> Table:
    """One line per version that something reached."""
    table = lined_table("ref", "state", "aliases", "through", ">steps", "published (UTC)")
    for one in found:
        version = one.version
        aliases = ", ".join(version.aliases)
        row(
            table,
            version.ref,
            version.state.value,
            aliases,
            one.relation,
            str(one.distance),
            minute(version.created_at_s),
        )
    return table


def namespaces_table(found: Sequence[Namespace]) -> Table:
    """One line per namespace."""
    table = lined_table("namespace", ">used", ">quota", "since (UTC)")
    for one in found:
        quota = size(one.quota_bytes) if one.quota_bytes is not None else "no limit"
        row(table, one.name, size(one.used_bytes), quota, minute(one.created_at_s))
    return table


def rules_table(policy: NamespacePolicy) -> Table:
    """The rules of a namespace, one per line."""
    kept = [f"the newest {policy.keep_last}"] if policy.keep_last else []
    kept += [f"everything for {policy.keep_days:g} days"] if policy.keep_days else []
    return facts_table(
        {
            "retention keeps": ", ".join(kept) or "everything",
            "protected aliases": ", ".join(policy.protected_aliases),
            "statements": ", ".join(policy.required_statements),
            "promoter": "not the publisher" if policy.distinct_promoter else "",
            "signers": "\n".join(policy.signers),
            "approvals": str(policy.min_approvals) if policy.min_approvals else "",
            "trusted keys": str(len(policy.trusted_keys)) if policy.trusted_keys else "none",
            "publishing": "signed versions only" if policy.signed_publish else "signed or not",
        }
    )


def statements_table(found: Sequence[Statement]) -> Table:
    """One line per statement."""
    table = lined_table("id", "kind", "by", "attached (UTC)", "says")
    for one in found:
        row(table, one.id, one.kind, one.signer or one.actor, minute(one.created_at_s), _facts(one.summary))
    return table


def event_line(event: WatchEvent) -> str:
    """One change in one line."""
    target = f"{event.namespace}/{event.adapter}" if event.adapter else event.namespace
    return f"{event.revision:>8}  {moment(event.created_at_s)}  {event.kind:<18} {target}  {_facts(event.payload)}"


def audit_table(found: Sequence[AuditEvent]) -> Table:
    """One line per row of the audit log."""
    table = lined_table(">#", "when (UTC)", "by", "action", "target", "hash", "details")
    for one in found:
        when = moment(one.created_at_s)
        actor = one.actor or "-"
        row(
            table,
            str(one.sequence),
            when,
            actor,
            one.action,
            one.target,
            short_digest(one.hash),
            _facts(one.details),
        )
    return table


def collection_line(done: Collection) -> str:
    """What was freed, in one line."""
    verb = "freed" if done.executed else "would free"
    return (
        f"{verb} {size(done.freed_bytes)} in {done.removed_blobs} blob(s) and {done.orphan_files} stray file(s); "
        f"{done.purged_versions} deleted version(s) and {done.expired_sessions} abandoned upload(s) "
        f"{'ended' if done.executed else 'would end'}"
    )


def scrub_line(done: Scrub) -> str:
    """What was read again, in one line."""
    counts = {
        "corrupt": len(done.bad),
        "unreadable": len(done.unreadable),
        "left for the next scrub": done.left_blobs,
    }
    found = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "all sound"
    return f"read {size(done.checked_bytes)} in {done.checked_blobs} blob(s), {found}"


def _facts(document: str) -> str:
    """What a person wants to know of a JSON object; the rest is there with --json."""
    try:
        found = json.loads(document or "{}")
    except ValueError:
        return ""
    facts = {key: found[key] for key in _TELLING if found.get(key)} if isinstance(found, dict) else {}
    plain = {key: value for key, value in facts.items() if isinstance(value, str | int | float)}
    return ", ".join(
        f"{key}={short_digest(str(value)) if _is_digest(value) else value}" for key, value in plain.items()
    )


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and value.startswith("sha256:")


def print_moves(moves: Sequence[AliasMove]) -> None:
    """Says where aliases pointed and where they point now, a line each."""
    for move in moves:
        at = move.alias
        before = f"version {move.previous_version}" if move.previous_version else "nothing"
        line = f"{at.namespace}/{at.adapter}@{at.name}: {before} → version {at.version}"
        console().print(safe(f"{line} {short_digest(at.digest)}, generation {at.generation}"), markup=False)

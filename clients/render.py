"""How the command line shows what it found: tables for people, JSON for machines.

Everything that came over the wire is shown with its control characters replaced,
so that a note or an answer cannot drive the terminal.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from switchyard.clients.admin import AdapterStatus, ServerInfo, ServerLoad, ServerPlan
from switchyard.clients.answers import Answer, short_digest
from switchyard.clients.logprobs import TokenLogprob
from switchyard.clients.records import AdapterSummary, Alias, AliasEvent, BaseModel, Version

_PIPE_WIDTH: Final = 160
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or error; wide when that is no terminal, so that pipes get whole lines."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False, soft_wrap=False)


def print_json(found: object) -> None:
    """Prints records, or lists of them, as one JSON document."""
    sys.stdout.write(json.dumps(plain_values(found), ensure_ascii=False, indent=2) + "\n")


def print_json_line(found: object) -> None:
    """Prints one record as one line of JSON, at once."""
    sys.stdout.write(json.dumps(plain_values(found), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def plain_values(found: object) -> object:
    """Turns records and enums into the values that JSON has."""
    if isinstance(found, Enum):
        return found.value
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        return {one.name: plain_values(getattr(found, one.name)) for one in dataclasses.fields(found)}
    if isinstance(found, Mapping):
        return {str(key): plain_values(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [plain_values(one) for one in found]
    return found


def safe(text: str, *, lines: bool = False) -> str:
    """`text` with what could drive a terminal replaced; `lines` keeps newlines and tabs."""
    kept = "\n\t" if lines else ""
    return "".join(one if one.isprintable() or one in kept else "\ufffd" for one in text)


def size(count_bytes: int) -> str:
    """A number of bytes for people, e.g. `1.4 MiB`."""
    value, unit = float(count_bytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def moment(seconds: float) -> str:
    """A time for people, in UTC; empty for none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) if seconds else ""


def minute(seconds: float) -> str:
    """A time for narrow tables, in UTC; empty for none."""
    return moment(seconds)[:16]


def adapters_table(found: Sequence[AdapterSummary]) -> Table:
    """One line per adapter."""
    table = lined_table("adapter", ">versions", "aliases", "base", "updated (UTC)")
    for one in found:
        aliases = ", ".join(_alias_label(alias) for alias in one.aliases)
        row(
            table,
            f"{one.namespace}/{one.adapter}",
            str(one.latest_version),
            aliases,
            short_digest(one.base_digest),
            minute(one.updated_at_s),
        )
    return table


def _alias_label(alias: Alias) -> str:
    split = f" +{alias.canary.percent}%→{alias.canary.version}" if alias.canary else ""
    return f"{alias.name}→{alias.version} (#{alias.generation}){split}"


def versions_table(found: Sequence[Version]) -> Table:
    """One line per version of one adapter."""
    table = lined_table("ref", "digest", "state", "aliases", ">weights", "published (UTC)", "note")
    for one in found:
        row(
            table,
            one.ref,
            short_digest(one.digest),
            one.state.value,
            ", ".join(one.aliases),
            size(one.shape.weights_bytes),
            minute(one.created_at_s),
            one.note,
        )
    return table


def version_table(one: Version) -> Table:
    """Everything about one version, one fact per line."""
    lineage, shape = one.lineage, one.shape
    trained = lineage.training_quantization
    rows = {
        "ref": one.ref,
        "digest": one.digest,
        "state": f"{one.state.value}, {one.state_reason}" if one.state_reason else one.state.value,
        "aliases": ", ".join(one.aliases),
        "tags": ", ".join(f"{key}={value}" for key, value in sorted(one.tags.items())),
        "base model": f"{one.base_model.name}  {one.base_model.digest}",
        "rank": f"{shape.rank} on {', '.join(shape.target_modules)}",
        "features": ", ".join(shape.features),
        "weights": f"{size(shape.weights_bytes)}, {shape.parameter_count:,} parameters, {shape.dtype}",
        "dataset": lineage.dataset_digest,
        "recipe": lineage.recipe_digest,
        "code": lineage.code_commit,
        "trained on": f"{trained.method}{'+double' if trained.double_quantization else ''}/{trained.compute_dtype}"
        if trained
        else "",
        "parents": "\n".join(lineage.parents),
        "metrics": "\n".join(f"{metric.name} {metric.value:.6g}" for metric in lineage.metrics),
        "environment": ", ".join(f"{key} {value}" for key, value in sorted((lineage.environment or {}).items())),
        "files": "\n".join(f"{file.path}  {size(file.size_bytes)}  {file.digest}" for file in one.files),
        "published": f"{moment(one.created_at_s)} UTC by {one.publisher}",
        "note": one.note,
        "warnings": "\n".join(one.warnings),
    }
    return facts_table(rows)


def facts_table(rows: Mapping[str, str]) -> Table:
    """Names and values, one per line; empty values are left out."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(safe(value, lines=True)))
    return table


def history_table(found: Sequence[AliasEvent]) -> Table:
    """One line per move of an alias."""
    table = lined_table(">#", "move", ">from", ">to", "split", "when (UTC)", "by", "reason")
    for one in found:
        row(
            table,
            str(one.generation),
            one.kind.value,
            str(one.from_version) if one.from_version else "new",
            str(one.to_version) if one.to_version else "gone",
            f"{one.canary_percent} % to {one.canary_version}" if one.canary_version else "",
            moment(one.created_at_s),
            one.actor,
            one.reason,
        )
    return table


def bases_table(found: Sequence[BaseModel]) -> Table:
    """Two lines per base model, the whole digest on one of them, so that it can be copied."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("base model", overflow="fold")
    table.add_column("digest", no_wrap=True)
    for one in found:
        facts = f"{one.architecture}, {one.vocab_size:,} tokens, tokenizer {short_digest(one.tokenizer_digest)}"
        table.add_row(Text(safe(one.name)), Text.assemble(safe(one.digest), "\n", (safe(facts), "dim")))
    return table


def server_table(info: ServerInfo, load: ServerLoad) -> Table:
    """What a server is and does."""
    return facts_table(
        {
            "server": f"switchyard {info.version}{', draining' if load.draining else ''}",
            "base model": f"{info.base_name}  {info.base_digest}",
            "quantization": info.quantization,
            "fingerprint": info.base_fingerprint,
            "sequences": f"{load.running_sequences} of {info.max_sequences} running, {load.waiting_requests} waiting",
            "waiting": "\n".join(f"{count}: {safe(why)}" for why, count in load.waiting_for.items()) or "nobody",
            "KV rows": f"{load.kv_rows_used} of {load.kv_rows_total} used",
            "KV blocks": f"{load.kv_blocks_running} running and {load.kv_blocks_cached} cached of "
            f"{load.kv_blocks_total}",
            "context": f"{info.max_context_tokens} tokens",
            "adapters": f"{load.adapters_resident} of {info.adapter_slots} adapter slots, rank up to {info.max_rank}",
            "adapter memory": f"{size(load.adapter_host_bytes)} of {size(info.host_cache_bytes)} host, "
            f"{size(load.adapter_device_bytes)} in slots",
            "process memory": size(load.rss_bytes),
        }
    )


def states_table(found: Sequence[AdapterStatus]) -> Table:
    """One line per adapter that a server knows."""
    table = lined_table("adapter", "state", ">pins", ">host", ">slots", "failure")
    for one in found:
        failure = f"{one.error_reason}, again in {one.retry_after_s:.1f} s" if one.error_reason else ""
        row(
            table,
            short_digest(one.digest),
            one.state.value,
            str(one.pins),
            size(one.host_bytes),
            size(one.device_bytes),
            failure,
        )
    return table


def plan_table(found: ServerPlan) -> Table:
    """One line per adapter of a plan."""
    table = lined_table("adapter", "version", "would be in", ">size", "now in memory")
    for one in found.adapters:
        digest = short_digest(one.digest) if one.digest else ""
        now = "yes" if one.in_memory else ""
        row(table, one.ref, digest, one.place.value, size(one.size_bytes) if one.size_bytes else "", now)
    return table


def served_line(answer: Answer) -> str:
    """What produced an answer and how fast, in one line."""
    parts = [answer.served_by.label]
    parts += [f"@{one.alias} #{one.alias_generation}" for one in answer.served_by.adapters if one.alias]
    parts += [answer.served_by.quantization, f"{answer.usage.completion_tokens} tokens"]
    parts += [f"{answer.finish_reason.value}", f"TTFT {answer.timing.time_to_first_token_s * 1000:.0f} ms"]
    speed = tokens_per_s(answer)
    parts += [f"{speed:.0f} tok/s"] if speed is not None else []
    return safe(" · ".join([*parts, f"seed {answer.seed}"]))


def logprobs_table(title: str, tokens: Sequence[TokenLogprob]) -> Table:
    """One line per token: what was chosen, and what could have been."""
    table = lined_table(title, ">id", ">logprob", "most probable")
    for one in tokens:
        others = "  ".join(f"{json.dumps(other.text, ensure_ascii=False)} {other.logprob:.3f}" for other in one.top)
        row(table, json.dumps(one.text, ensure_ascii=False), str(one.token_id), f"{one.logprob:.3f}", others)
    return table


def tokens_per_s(answer: Answer) -> float | None:
    """Decode speed: tokens after the first over the time after the first; None for a single token."""
    after_first = answer.usage.completion_tokens - 1
    if after_first < 1 or answer.timing.decode_s <= 0:
        return None
    return after_first / answer.timing.decode_s


def lined_table(*columns: str) -> Table:
    """Columns by their headings; a leading `>` aligns to the right. Only the last one may fold."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(
            column.removeprefix(">"),
            justify="right" if column.startswith(">") else "left",
            no_wrap=index < len(columns) - 1,
            overflow="fold",
        )
    return table


def row(table: Table, *values: str) -> None:
    """Adds a line to a table, its text made safe to show."""
    table.add_row(*(Text(safe(value)) for value in values))

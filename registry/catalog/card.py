"""The model card of a version: README.md for people and for the Hub, rendered from what the registry knows.

Nothing in it is typed by hand, so it says what the digests cover. The front matter follows
https://huggingface.co/docs/hub/model-cards. Its `datasets` field takes names of Hub repositories, not
digests; what the registry knows by digest stands under `switchyard`, which the Hub leaves alone.
Names, notes and tags come from people: they are quoted as YAML and escaped as Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from switchyard.registry.index.schema import VersionState
from switchyard.registry.records import VersionRecord
from switchyard.registry.validation.config_fields import IA3, LORA

_NAMES = {LORA: "A LoRA adapter", IA3: "An (IA)³ adapter"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&-])")


def render(version: VersionRecord) -> str:
    """Returns the card as Markdown with front matter; equal versions give equal text."""
    return f"---\n{_front_matter(version)}\n---\n\n{_body(version)}"


def _front_matter(version: VersionRecord) -> str:
    # Imported here: it is slow to load, and most calls of the registry need no card.
    from huggingface_hub import EvalResult, ModelCardData

    base = _one_line(version.base.name)
    lineage = version.lineage
    known = {
        "ref": f"{version.name}:{version.version}",
        "digest": version.digest,
        "base_digest": version.base.digest,
        "dataset_digest": lineage.dataset_digest,
        "recipe_digest": lineage.recipe_digest,
        "code_commit": lineage.code_commit,
    }
    scores = [
        EvalResult(
            task_type="text-generation",
            dataset_type=metric.dataset_digest or "unknown",
            dataset_name=metric.dataset_digest or "unknown",
            metric_type=metric.name,
            metric_value=metric.value,
        )
        for metric in lineage.metrics
    ]
    labels = [f"{key}:{value}" if value else key for key, value in version.tags.items()]
    data = ModelCardData(
        base_model=base,
        base_model_relation="adapter",
        library_name="peft",
        pipeline_tag="text-generation",
        tags=[_method(version).lower(), "switchyard", f"base_model:adapter:{base}", *labels],
        metrics=sorted({metric.name for metric in lineage.metrics}) or None,
        model_name=str(version.name) if scores else None,
        eval_results=scores or None,
        switchyard={key: value for key, value in known.items() if value},
    )
    return str(data.to_yaml())


def _body(version: VersionRecord) -> str:
    sections = [f"# {_text(version.adapter)}", _introduction(version), _table(_facts(version))]
    metrics = version.lineage.metrics
    if metrics:
        scores = [f"| {_text(metric.name)} | {metric.value:g} | `{metric.dataset_digest}` |" for metric in metrics]
        sections.append("\n".join(["| Score | Value | Measured on |", "|---|---|---|", *scores]))
    if version.note:
        sections.append("\n".join(f"> {_text(line)}" for line in version.note.splitlines()))
    files = [f"| {_text(entry.path)} | {entry.size_bytes} | `{entry.digest}` |" for entry in version.files]
    sections.append("\n".join(["| File | Bytes | Digest |", "|---|---|---|", *files]))
    return "\n\n".join(sections) + "\n"


def _method(version: VersionRecord) -> str:
    return IA3 if "ia3" in version.shape.features else LORA


def _introduction(version: VersionRecord) -> str:
    told = f"{_NAMES[_method(version)]}. It belongs to one base model; on another it answers differently."
    if version.state is VersionState.READY:
        return told
    why = f": {_text(version.state_reason)}" if version.state_reason else ""
    return f"{told}\n\n**This version is {version.state}{why}**"


def _facts(version: VersionRecord) -> dict[str, str]:
    shape, lineage = version.shape, version.lineage
    quantization = lineage.training_quantization
    features = f", {', '.join(shape.features)}" if shape.features else ""
    rank = f"rank {shape.rank}, " if shape.rank else ""
    facts = {
        "Version": f"{_text(str(version.name))} {version.version} (`{version.digest}`)",
        "Base model": f"{_text(version.base.name)} (`{version.base.digest}`)",
        "Shape": _text(f"{rank}{', '.join(shape.target_modules)}{features}, {shape.dtype}"),
        "Parameters": f"{shape.parameter_count:,}",
        "Quantisation while training": _text(quantization.label()) if quantization is not None else "",
        "Training data": _code(lineage.dataset_digest),
        "Recipe": _code(lineage.recipe_digest),
        "Code": _text(lineage.code_commit),
        "Continued from": ", ".join(_code(parent) for parent in lineage.parents),
        "Environment": _text(", ".join(f"{name} {found}" for name, found in sorted(lineage.environment.items()))),
        "Publisher": _text(version.publisher),
        "Tags": _text(", ".join(f"{key}={value}" for key, value in version.tags.items())),
    }
    return {key: value for key, value in facts.items() if value}


def _table(facts: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())])


def _code(digest: str) -> str:
    return f"`{digest}`" if digest else ""


def _text(text: str) -> str:
    """Escapes text so that Markdown and HTML show it as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())

"""What a base model is: its identity and the linear layers an adapter can reach.

Identity is content. `digest` covers the configuration, the weights and the
tokenizer, so that two directories with the same name and other bytes are two
base models, and a copy under another name is the same one. Shapes alone are
not enough: another `rope_theta` has the same shapes and other answers.

Everything is read with the standard library; nothing is loaded or executed. The table of linear layers
comes from the headers of the weights, once, at registration. PEFT would make the same one of the
configuration alone, but the registry must not import it; `tests/parity/test_module_tables.py` holds the
two equal for every architecture that is served.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from switchyard.registry.digest import canonical_json, file_digest, sha256_digest
from switchyard.registry.errors import BaseRefused
from switchyard.registry.storage.durable import mapped_os_errors
from switchyard.registry.strict_json import Json, JsonRefused, parse_json
from switchyard.registry.validation.safetensors_header import HeaderLimits, TensorEntry, read_header
from switchyard.registry.verdicts import Findings, Reason, shown

_FLOAT_DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_OTHER_DTYPES = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}
_LIMITS = HeaderLimits(
    header_bytes=64 << 20,
    tensors=1_000_000,
    dimension=1 << 31,
    axes=tuple(range(9)),
    dtypes=_FLOAT_DTYPES | _OTHER_DTYPES,
)
_CONFIG_BYTES = 4 << 20
_PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt", ".pickle"})
# Fields that name a place or a tool, not the model: a copy must keep its identity.
_VOLATILE_CONFIG = frozenset({"_name_or_path", "transformers_version"})
_TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)
_TEMPLATE_FILE = "chat_template.jinja"
# Output heads and lookup tables are 2-D too, but not linear layers of a block.
_HEADS = frozenset({"lm_head", "embed_out", "output"})
_EMBEDDINGS = frozenset({"embed_tokens", "embed_in", "wte", "word_embeddings", "tok_embeddings"})
_NOT_LINEAR = _HEADS | _EMBEDDINGS | {"wpe", "shared"}
# What transformers calls every head, whatever the file calls it; also of a head that shares the embedding's weight.
_HEAD = "lm_head"
_NF4_STATE = ".quant_state.bitsandbytes__nf4"
_NF4_PARTS = (".weight.absmax", ".weight.quant_map", ".weight.nested_", ".weight.quant_state.")
_STATE_BYTES = 64 << 10
# Bodies whose checkpoints are often saved without the head around them, as gpt2's and bloom's on the hub are.
_BODIES = {"bloom": "transformer", "gpt2": "transformer", "opt": "model"}
TRANSPOSED_MODEL_TYPES = frozenset({"gpt2"})
"""Models of transformers' Conv1D, which keeps its weight as [in, out]."""


@dataclass(frozen=True, slots=True)
class BaseModelSpec:
    """A base model, by content.

    Attributes:
        name: what people call it; not part of the identity.
        digest: identity, over configuration, weights and tokenizer.
        config_digest: digest of `config.json` in canonical form, without fields that name a place or tool.
        weights_digest: digest of the sorted lines `<file>:<digest>` of all weight files.
        tokenizer_digest: the same over the tokenizer's files; of no lines when there are none.
        chat_template_digest: digest of the chat template's text; empty when there is none.
        architecture: first entry of `architectures`, e.g. `LlamaForCausalLM`.
        vocab_size: rows of the embedding, from the configuration.
        modules: path of each linear layer inside the model to (in_features, out_features); read-only.
        tensors: shapes of the other parameters that an adapter can reach, by name: the embedding, the output
            head (also one that shares the embedding's weight), and every bias; read-only. Empty for a base that
            was registered before these were recorded.
    """

    name: str
    digest: str
    config_digest: str
    weights_digest: str
    tokenizer_digest: str
    chat_template_digest: str
    architecture: str
    vocab_size: int
    modules: Mapping[str, tuple[int, int]] = field(repr=False)
    tensors: Mapping[str, tuple[int, ...]] = field(repr=False, default_factory=dict)


def describe_base(directory: Path, name: str | None = None) -> BaseModelSpec:
    """Describes the base model in a directory by reading all its bytes once.

    Args:
        directory: holds `config.json`, `*.safetensors` and the tokenizer's files.
        name: what to call it; the directory's name when None.

    Raises:
        BaseRefused: a fault in the directory, all of them listed.
        StorageFailed: a file cannot be read.
    """
    with mapped_os_errors(f"reading {directory}"):
        return _described(directory, name)


def _described(directory: Path, name: str | None) -> BaseModelSpec:
    findings = Findings()
    config, config_digest = _read_config(directory, findings)
    weight_files = _weight_files(directory, findings)
    # In 4 bits their weights lie as everyone else's.
    transposed = config.get("model_type") in TRANSPOSED_MODEL_TYPES and not config.get("quantization_config")
    parameters = _with_body(_parameters(directory, weight_files, findings), str(config.get("model_type")))
    modules = _module_table(parameters, transposed)
    if weight_files and not modules and not findings.faults:
        findings.fault(Reason.NO_TARGETS, "*.safetensors", "no linear layer was found in the weights")
    if findings.faults:
        raise BaseRefused(findings.faults)
    weights_digest = _digest_of_files(directory, weight_files)
    tokenizer_digest, template = _describe_tokenizer(directory, findings)
    if findings.faults:
        raise BaseRefused(findings.faults)
    identity = {"config": config_digest, "weights": weights_digest, "tokenizer": tokenizer_digest}
    architectures, vocab_size = config["architectures"], config["vocab_size"]
    return BaseModelSpec(
        name=name or directory.resolve().name,
        digest=sha256_digest(canonical_json(identity)),
        config_digest=config_digest,
        weights_digest=weights_digest,
        tokenizer_digest=tokenizer_digest,
        chat_template_digest=sha256_digest(template.encode()) if template else "",
        architecture=str(architectures[0]) if isinstance(architectures, list) else "",
        vocab_size=vocab_size if isinstance(vocab_size, int) else 0,
        modules=MappingProxyType(modules),
        tensors=MappingProxyType(_tensor_table(parameters)),
    )


def _read_document(path: Path, findings: Findings) -> dict[str, Json]:
    """Reads a JSON object; records a fault and returns nothing when it is not one."""
    try:
        data = path.read_bytes() if path.stat().st_size <= _CONFIG_BYTES else b""
        document = parse_json(data)
    except OSError as error:
        findings.fault(Reason.FILE_MISSING, path.name, f"cannot be read: {error.strerror}")
        return {}
    except JsonRefused as error:
        findings.fault(Reason.CONFIG_JSON, path.name, f"not JSON of at most {_CONFIG_BYTES} bytes: {error}")
        return {}
    if not isinstance(document, dict):
        findings.fault(Reason.CONFIG_JSON, path.name, "expected a JSON object")
        return {}
    return document


def _read_config(directory: Path, findings: Findings) -> tuple[dict[str, Json], str]:
    config = _read_document(directory / "config.json", findings)
    if not config:
        return {}, ""
    if config.get("auto_map"):
        findings.fault(
            Reason.CONFIG_FIELD_REFUSED,
            "config.json#auto_map",
            "asks for Python code from the model's repository; use a model that transformers itself knows",
        )
    if config.get("quantization_config") and not _is_stored_nf4(config):
        findings.fault(
            Reason.FEATURE_UNSUPPORTED,
            "config.json#quantization_config",
            "the weights are stored quantised, and not by bitsandbytes in nf4; register the 16 or 32 bit original, "
            "it is quantised at load",
        )
    architectures = config.get("architectures")
    if not (isinstance(architectures, list) and architectures and isinstance(architectures[0], str)):
        findings.fault(Reason.CONFIG_VALUE, "config.json#architectures", "expected a list with one class name")
    vocab_size = config.get("vocab_size")
    if type(vocab_size) is not int or vocab_size < 1:
        findings.fault(Reason.CONFIG_VALUE, "config.json#vocab_size", f"{shown(vocab_size)} is not a size")
    stable = {key: value for key, value in config.items() if key not in _VOLATILE_CONFIG}
    return config, sha256_digest(canonical_json(stable))


def _is_stored_nf4(config: dict[str, Json]) -> bool:
    stored = config.get("quantization_config")
    wanted = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    return isinstance(stored, dict) and all(stored.get(key) == value for key, value in wanted.items())


def _weight_files(directory: Path, findings: Findings) -> list[str]:
    """Lists the safetensors files, exactly those of the index where there is one."""
    names = sorted(entry.name for entry in os.scandir(directory)) if directory.is_dir() else []
    for name in names:
        if Path(name).suffix.lower() in _PICKLE_SUFFIXES:
            findings.fault(
                Reason.FILE_NOT_ALLOWED, shown(name), "pickled weights can run code; keep safetensors only"
            )
    present = [name for name in names if name.endswith(".safetensors")]
    index_path = directory / "model.safetensors.index.json"
    if not index_path.is_file():
        if not present:
            findings.fault(Reason.FILE_MISSING, "*.safetensors", "the directory has no safetensors weights")
        return present
    weight_map = _read_document(index_path, findings).get("weight_map")
    if not isinstance(weight_map, dict):
        findings.fault(Reason.CONFIG_JSON, index_path.name, "expected a weight_map object")
        return present
    wanted = sorted({str(file) for file in weight_map.values()})
    for file in sorted(set(wanted) ^ set(present)):
        where = "named by the index but missing" if file in wanted else "not named by the index"
        findings.fault(Reason.FILE_MISSING, shown(file), where)
    return [file for file in wanted if file in present]


def _parameters(directory: Path, files: list[str], findings: Findings) -> dict[str, TensorEntry]:
    """Every tensor of the weights by name; a name that comes twice is a fault."""
    found: dict[str, TensorEntry] = {}
    for file in files:
        for tensor in _unpacked(directory / file, _tensors(directory / file, findings)):
            if tensor.name in found:
                findings.fault(Reason.DUPLICATE_KEY, shown(tensor.name), "is in more than one weight file")
            found[tensor.name] = tensor
    return found


def _unpacked(path: Path, tensors: tuple[TensorEntry, ...]) -> tuple[TensorEntry, ...]:
    """The tensors of a file, those in 4 bits as the matrices that they stand for.

    bitsandbytes keeps two codes in a byte, and the shape in a JSON document beside them, a tensor of its own.
    """
    states = {t.name.removesuffix(_NF4_STATE): t for t in tensors if t.name.endswith(_NF4_STATE)}
    if not states:
        return tensors
    shapes = {name: _stored_shape(path, state) for name, state in states.items()}
    plain = [tensor for tensor in tensors if not any(part in tensor.name for part in _NF4_PARTS)]
    return tuple(
        replace(tensor, shape=shapes[tensor.name], dtype="F32") if shapes.get(tensor.name) else tensor
        for tensor in plain
    )


def _stored_shape(path: Path, state: TensorEntry) -> tuple[int, ...]:
    """Shape of a matrix in 4 bits; empty when its document is none."""
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little") + state.start_bytes)
        data = file.read(min(state.stop_bytes - state.start_bytes, _STATE_BYTES))
    try:
        document = parse_json(data)
    except JsonRefused:
        return ()
    shape = document.get("shape") if isinstance(document, dict) else None
    if not isinstance(shape, list):
        return ()
    sizes = tuple(size for size in shape if isinstance(size, int) and size > 0)
    return sizes if len(sizes) == len(shape) == 2 else ()


def body_names(names: Iterable[str], model_type: str) -> dict[str, str]:
    """Returns the name in the model with its head of every tensor, also of a file that holds the body alone."""
    known, body = tuple(names), _BODIES.get(model_type)
    if body is None or any(name.startswith(f"{body}.") for name in known):
        return {name: name for name in known}
    return {name: name if name.partition(".")[0] in _HEADS else f"{body}.{name}" for name in known}


def _with_body(parameters: dict[str, TensorEntry], model_type: str) -> dict[str, TensorEntry]:
    named = body_names(parameters, model_type)
    return {named[name]: replace(entry, name=named[name]) for name, entry in parameters.items()}


def _module_table(parameters: Mapping[str, TensorEntry], transposed: bool) -> dict[str, tuple[int, int]]:
    modules: dict[str, tuple[int, int]] = {}
    for tensor in parameters.values():
        module = _linear_module(tensor)
        if module is not None:
            out_features, in_features = reversed(tensor.shape) if transposed else tensor.shape
            modules[module] = (in_features, out_features)
    return dict(sorted(modules.items()))


def parameter_name(tensor: str) -> str:
    """Returns what transformers calls the parameter that a weight file names so."""
    module, dot, parameter = tensor.rpartition(".")
    return f"{_HEAD}{dot}{parameter}" if module in _HEADS else tensor


def _tensor_table(parameters: Mapping[str, TensorEntry]) -> dict[str, tuple[int, ...]]:
    """Shapes of embedding, head and biases, under the names that transformers gives them."""
    table: dict[str, tuple[int, ...]] = {}
    for tensor in parameters.values():
        name = parameter_name(tensor.name)
        module, _, parameter = name.rpartition(".")
        is_weight = parameter == "weight" and (module == _HEAD or module.rpartition(".")[2] in _EMBEDDINGS)
        if is_weight or (parameter == "bias" and len(tensor.shape) == 1):
            table[name] = tensor.shape
    embeddings = [shape for name, shape in table.items() if name.rpartition(".")[0].rpartition(".")[2] in _EMBEDDINGS]
    if len(embeddings) == 1:
        # Without a head of its own in the file the model uses the embedding's weight.
        table.setdefault(f"{_HEAD}.weight", embeddings[0])
    return dict(sorted(table.items()))


def _tensors(path: Path, findings: Findings) -> tuple[TensorEntry, ...]:
    with path.open("rb") as file:
        header = read_header(file.fileno(), path.name, _LIMITS, findings)
    return header.tensors if header is not None else ()


def _linear_module(tensor: TensorEntry) -> str | None:
    """Returns the path of the linear layer whose weight this is, or None."""
    module, dot, parameter = tensor.name.rpartition(".")
    if not dot or parameter != "weight" or len(tensor.shape) != 2 or tensor.dtype not in _FLOAT_DTYPES:
        return None
    last = module.rpartition(".")[2]
    if last in _NOT_LINEAR or "embed" in last or "norm" in last or last.startswith("ln_"):
        return None
    return module


def _digest_of_files(directory: Path, names: list[str]) -> str:
    lines = [f"{name}:{file_digest(directory / name)}\n" for name in sorted(names)]
    return sha256_digest("".join(lines).encode())


def _describe_tokenizer(directory: Path, findings: Findings) -> tuple[str, str]:
    """Returns the tokenizer's digest and the text of the chat template.

    The template is left out of the digest: it has its own, and replacing it does not change token ids.
    """
    lines = [f"{name}:{file_digest(directory / name)}\n" for name in _TOKENIZER_FILES if (directory / name).is_file()]
    template = ""
    config_path = directory / "tokenizer_config.json"
    if config_path.is_file():
        config = _read_document(config_path, findings)
        inline = config.pop("chat_template", "")
        template = inline if isinstance(inline, str) else json.dumps(inline, sort_keys=True)
        if config.pop("auto_map", None):
            findings.fault(
                Reason.CONFIG_FIELD_REFUSED, "tokenizer_config.json#auto_map", "asks for Python code; refused"
            )
        stable = {key: value for key, value in config.items() if key not in _VOLATILE_CONFIG}
        lines.append(f"tokenizer_config.json:{sha256_digest(canonical_json(stable))}\n")
    template_path = directory / _TEMPLATE_FILE
    if template_path.is_file():
        template = template_path.read_text(encoding="utf-8")
    return sha256_digest("".join(sorted(lines)).encode()), template

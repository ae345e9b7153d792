"""Publish: a finished run, or an adapter of any PEFT script, becomes a version in a registry, embedded or served.

Owns where an adapter goes and what happens when it cannot get there: the adapter stays where it is, and the
error carries the command that publishes it later. Nothing is judged here; the registry does that.
"""

from __future__ import annotations

import getpass
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from switchyard.registry.errors import RefSyntax, RegistryError
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.trainer.errors import PublishFailed, PublishTargetInvalid
from switchyard.trainer.gate.golden import GOLDEN_FILE, Golden, golden_from
from switchyard.trainer.recipe import Recipe
from switchyard.trainer.result import OutputLayout, Staged, TrainResult
from switchyard.trainer.servability import require_servable

if TYPE_CHECKING:
    from peft import PeftModel

    from switchyard.registry.lineage import Lineage


@dataclass(frozen=True, slots=True)
class PublishTarget:
    """Where a version goes: a registry directory or a server, and under which name.

    Attributes:
        name: `namespace/name`.
        alias: Alias to move to the new version, or None.
        registry: Directory of an embedded registry, or None.
        server: Address of a server, or None.
    """

    name: AdapterName
    alias: str | None
    registry: Path | None
    server: str | None

    @property
    def place(self) -> str:
        """The registry in words."""
        return f"the registry {self.registry}" if self.registry is not None else f"the server {self.server}"

    def command(self, directory: Path) -> str:
        """Returns the command line that publishes a run's output directory."""
        words = ["switchyard", "push", str(directory), str(self.name)]
        if self.registry is not None:
            words += ["--registry", str(self.registry)]
        if self.server is not None:
            words += ["--server", self.server]
        if self.alias is not None:
            words += ["--alias", self.alias]
        return shlex.join(words)


@dataclass(frozen=True, slots=True)
class Published:
    """A version that the registry acknowledged.

    Attributes:
        ref: The exact version, e.g. `default/address:3`.
        digest: Identity of the version.
        alias: Alias that points at it now, or None.
        warnings: Findings that did not prevent publishing.
    """

    ref: str
    digest: str
    alias: str | None
    warnings: tuple[str, ...]


def publish_target(
    recipe: Recipe, *, ref: str | None, registry: Path | None, server: str | None
) -> PublishTarget | None:
    """Works out where a run is to be published; made before the run, so that mistakes cost no training.

    Args:
        recipe: Says the ref and the alias where the command line does not.
        ref: `namespace/name` or `namespace/name@alias`, or None.
        registry: Directory of an embedded registry, or None.
        server: Address of a server, or None.

    Returns:
        The target, or None when neither a registry nor a server is given.

    Raises:
        PublishTargetInvalid: If the ref is not one that can be published to, the place is not clear, or no
            server could answer with the adapter.
    """
    if registry is not None and server is not None:
        raise PublishTargetInvalid("give --registry DIR or --server ADDR, not both")
    if registry is None and server is None:
        if ref is None:
            return None
        raise PublishTargetInvalid(f"--publish {ref} does not say where: add --registry DIR or --server ADDR")
    require_servable(recipe)
    name, alias = _parse(ref or recipe.publish.ref or recipe.name)
    return PublishTarget(name, alias or recipe.publish.alias, registry, server)


def _parse(text: str) -> tuple[AdapterName, str | None]:
    try:
        if "@" not in text and ":" not in text:
            return AdapterName.parse(text), None
        ref = AdapterRef.parse(text)
    except RefSyntax as error:
        raise PublishTargetInvalid(str(error)) from error
    if ref.alias is None:
        raise PublishTargetInvalid(
            f"{text} names an existing version; a publish makes a new one. Give `ns/name`, or `ns/name@alias` "
            "to move the alias to it"
        )
    return AdapterName(ref.namespace, ref.adapter), ref.alias


def publish(
    adapter: PeftModel | Path | str,
    *,
    ref: str,
    registry: Path | str | None = None,
    server: str | None = None,
    base: Path | str | None = None,
    lineage: Lineage | None = None,
    out: Path | str | None = None,
) -> Published:
    """Publishes the adapter of any script that trains with PEFT: TRL's trainers, transformers' Trainer, a loop.

    Args:
        adapter: The model that PEFT wrapped (`trainer.model`), or a directory that `save_pretrained` wrote.
        ref: `namespace/name`, or `namespace/name@alias` to move the alias to the new version.
        registry: Directory of an embedded registry; it registers the base when it does not know it.
        server: Address of a server. Give exactly one of `registry` and `server`.
        base: Directory of the original base model; by default where the adapter's config says.
        lineage: What produced the adapter; by default what the model and the environment tell.
        out: Directory that keeps the adapter and its manifest; `runs/<name>-<time>` by default.

    Raises:
        PublishTargetInvalid: If the ref is not one that can be published to, or the place is not clear.
        AdapterUnusable: If `adapter` is not one, or `out` holds another.
        BaseUnusable: If the base model cannot be found.
        PublishFailed: If the registry refuses or cannot be reached; the adapter is kept in `out`, and the message
            says how to publish it later.
    """
    from switchyard.trainer.staging import stage

    name, alias = _parse(ref)
    target = PublishTarget(name, alias, None if registry is None else Path(registry), server)
    if (registry is None) == (server is None):
        raise PublishTargetInvalid("give exactly one of registry and server")
    kept = Path(out) if out is not None else Path("runs") / f"{name.adapter}-{time.strftime('%Y%m%d-%H%M%S')}"
    staged = stage(adapter, name.adapter, base=None if base is None else Path(base), lineage=lineage, directory=kept)
    return _deliver(staged, target)


def publish_run(result: TrainResult, target: PublishTarget) -> Published:
    """Publishes a finished run.

    Args:
        result: The run; an embedded registry registers its base model when it does not know it.
        target: Where to.

    Raises:
        PublishFailed: If the registry refuses or cannot be reached; the adapter is kept, and the message says
            how to publish it later.
    """
    return _deliver(Staged(result.output, result.base, result.lineage), target)


def deliver(result: Staged, target: PublishTarget) -> Published:
    """Publishes an adapter whose directory its caller answers for.

    Raises:
        PublishFailed: If the registry refuses or cannot be reached; its cause is the registry's own error.
    """
    if target.registry is not None:
        return _to_registry(result, target, target.registry)
    return deliver_to_server(result.output, target)


def _deliver(result: Staged, target: PublishTarget) -> Published:
    try:
        return deliver(result, target)
    except PublishFailed as error:
        raise PublishFailed(
            f"training is done, but {target.place} did not take the adapter: {error}\n"
            f"The adapter is kept in {result.output.adapter}. To publish it later:\n"
            f"  {target.command(result.output.directory)}"
        ) from error.__cause__


def _to_registry(result: Staged, target: PublishTarget, root: Path) -> Published:
    from switchyard.registry.store import Registry

    try:
        with Registry.open(root) as registry:
            registry.register_base(result.base)
            done = registry.publish(
                target.name,
                result.output.adapter,
                base_digest=result.base.digest,
                lineage=result.lineage,
                publisher=_user(),
                set_alias=target.alias,
            )
    except (RegistryError, OSError) as error:
        raise PublishFailed(str(error)) from error
    if done.version is None:
        raise PublishFailed("the registry checked the adapter and recorded no version")
    version = done.version
    return Published(f"{target.name}:{version.version}", version.digest, target.alias, version.warnings)


def deliver_to_server(output: OutputLayout, target: PublishTarget) -> Published:
    """Pushes an output directory to the target's server, which knows its base itself.

    Raises:
        PublishFailed: As `deliver` raises it.
    """
    from switchyard.clients.errors import ClientError
    from switchyard.clients.registry import RegistryClient

    address = str(target.server)
    try:
        with RegistryClient(address) as client:
            golden = output.adapter / GOLDEN_FILE
            if target.alias is None or not golden.exists():
                version = client.push(output.directory, str(target.name), alias=target.alias)
            else:
                version = client.push(output.directory, str(target.name))
                _hold_to(golden_from(golden.read_bytes()), f"{target.name}@{version.digest}", address)
                client.promote(
                    str(target.name), target.alias, version.version, reason="the server says what PEFT said"
                )
    except (ClientError, OSError) as error:
        raise PublishFailed(str(error)) from error
    return Published(f"{target.name}:{version.version}", version.digest, target.alias, version.warnings)


def _hold_to(golden: Golden, ref: str, address: str) -> None:
    """Lets a server answer the golden prompts of a version that no alias names yet.

    Raises:
        PublishFailed: If it says something else than PEFT did.
    """
    from switchyard.clients.errors import Unsupported
    from switchyard.clients.inference import InferenceClient
    from switchyard.trainer.gate.golden_check import check_golden

    try:
        with InferenceClient(address) as client:
            found = check_golden(client, ref, golden)
    except Unsupported:
        # A registry service without a model has nothing to be held to.
        return
    if not found.passed:
        raise PublishFailed(
            f"{ref} is published, and no alias was moved to it: at its {found.prompts} golden prompts the server's "
            f"log probabilities are up to {found.difference:.3g} nats from PEFT's on {golden.quantization}, "
            f"tolerance {found.tolerance:g}. Look at the server's base and quantisation with `switchyard status`"
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number without a name.
        return "unknown"

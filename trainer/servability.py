"""What becomes of an adapter after training: whether a server can answer with it, and as it was trained.

Owns what is said, and refused, before hours are spent. Whether a version is taken is the registry's to decide; this
is what a recipe alone tells about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from switchyard.trainer.errors import PublishTargetInvalid
from switchyard.trainer.recipe import QuantizationMethod, QuantizationSection, Recipe

if TYPE_CHECKING:
    from switchyard.trainer.publish import PublishTarget

_SERVED: Final = {QuantizationMethod.NF4, QuantizationMethod.INT8, QuantizationMethod.NONE}
"""What `switchyard serve --quantization` takes; its NF4 has double quantisation."""


def serving_warnings(recipe: Recipe) -> tuple[str, ...]:
    """Returns how serving will differ from training, one sentence each."""
    found = _of_quantization(recipe.quantization)
    if recipe.adapter.kind.is_prompt:
        found.insert(0, f"{_not_served(recipe)}; it is trained and written for other programs")
    return tuple(found)


def require_servable(recipe: Recipe) -> None:
    """Refuses to publish what no registry takes.

    Raises:
        PublishTargetInvalid: If no server could answer with the adapter.
    """
    if recipe.adapter.kind.is_prompt:
        raise PublishTargetInvalid(
            f"{_not_served(recipe)}, and a registry refuses it. Train it without --publish, or use "
            "adapter.kind: lora or ia3"
        )


def _not_served(recipe: Recipe) -> str:
    return f"no server answers with adapter.kind: {recipe.adapter.kind}"


def foreseen(recipe: Recipe, target: PublishTarget | None) -> list[str]:
    """Returns what is worth knowing before a run about serving what it makes, from the recipe and from the server.

    Args:
        recipe: What would be trained.
        target: Where the adapter would be published, or None.
    """
    found = list(serving_warnings(recipe))
    if target is None or target.server is None:
        return found
    from switchyard.clients.errors import ClientError
    from switchyard.trainer.server_check import check_server

    try:
        return [*found, *check_server(recipe, target.server).sentences()]
    except ClientError as error:
        return [*found, f"{target.place} does not answer now, so nothing was compared with it: {error}"]


def _of_quantization(section: QuantizationSection) -> list[str]:
    if section.method not in _SERVED:
        return [
            f"no server holds a base in {section.method}: the adapter would be served on weights that it was not "
            "trained on. Use quantization.method: nf4, int8 or none"
        ]
    if section.method is QuantizationMethod.NF4 and not section.double:
        return [
            "a server holds NF4 with double quantisation: the adapter would be served on weights that differ a "
            "little from those that it was trained on. Use quantization.double: true"
        ]
    return []

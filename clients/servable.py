"""What a server can answer with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from switchyard.proto.inference.v1 import inference_pb2 as pb

_PAGE_SIZE: Final = 1000


@dataclass(frozen=True, slots=True)
class ServableAdapter:
    """One adapter version that a server can answer with.

    Attributes:
        namespace: namespace of the adapter.
        adapter: name of the adapter.
        version: version number within the adapter.
        digest: identity of the version.
        aliases: aliases that point at it now.
        resident: whether its weights are in memory now.
    """

    namespace: str
    adapter: str
    version: int
    digest: str
    aliases: tuple[str, ...]
    resident: bool


@dataclass(frozen=True, slots=True)
class Servable:
    """What a server can answer with.

    Attributes:
        base_name: name of the base model.
        base_digest: identity of the base model.
        quantization: quantisation of the resident base.
        adapters: every adapter version published for that base.
    """

    base_name: str
    base_digest: str
    quantization: str
    adapters: tuple[ServableAdapter, ...]


def servable_from(pages: Sequence[pb.ListServableResponse]) -> Servable:
    """Joins the pages of one listing; the base is the same on all of them."""
    return Servable(
        base_name=pages[0].base_name,
        base_digest=pages[0].base_digest,
        quantization=pages[0].quantization,
        adapters=tuple(
            ServableAdapter(
                namespace=one.namespace,
                adapter=one.adapter,
                version=one.version,
                digest=one.digest,
                aliases=tuple(one.aliases),
                resident=one.resident,
            )
            for page in pages
            for one in page.adapters
        ),
    )


def page_after(pages: Sequence[pb.ListServableResponse]) -> pb.ListServableRequest:
    """The message that asks for the page behind those."""
    return pb.ListServableRequest(page_size=_PAGE_SIZE, page_token=pages[-1].next_page_token if pages else "")

"""A read-only layer, and the names of chains of them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256


@dataclass(eq=False)
class Layer:
    """A read-only layer. `size` is its own, in bytes; ids are `sha256:` digests."""

    chain_id: str
    diff_id: str
    parent: Layer | None
    cache_id: str
    size: int
    references: int = 0
    """Images, containers and layers on top that need it."""

    @property
    def total_size(self) -> int:
        """Bytes of the whole chain."""
        return self.size + (self.parent.total_size if self.parent else 0)

    @property
    def depth(self) -> int:
        """Layers in the chain, this one counted."""
        return 1 + (self.parent.depth if self.parent else 0)

    @property
    def diff_ids(self) -> list[str]:
        """Of the whole chain, lowest first."""
        return [*(self.parent.diff_ids if self.parent else []), self.diff_id]

    @property
    def chain_ids(self) -> list[str]:
        """Its own and those of all below it."""
        return [self.chain_id, *(self.parent.chain_ids if self.parent else [])]


def chain_id(diff_ids: list[str]) -> str:
    """The name of a chain of layers, lowest first; see the OCI image specification. "" for none."""
    chain = ""
    for diff_id in diff_ids:
        chain = diff_id if not chain else f"sha256:{sha256(f'{chain} {diff_id}'.encode()).hexdigest()}"
    return chain

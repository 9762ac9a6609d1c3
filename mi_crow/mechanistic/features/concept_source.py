"""What the index needs to know of concepts; the names themselves are kept elsewhere."""

from typing import Protocol

from mi_crow.mechanistic.features.records import Concept


class ConceptSource(Protocol):
    """Where the concepts of features are kept; `concepts.Annotations` is one."""

    def data_version(self) -> int:
        """A number that differs after every change of the concepts."""
        ...

    def concepts(self, sae_id: str | None = None) -> list[Concept]:
        """All concepts, or those of one SAE."""
        ...

"""What the index needs to know of concepts; the names themselves are kept elsewhere."""

from typing import Protocol

from mi_crow.mechanistic.features.records import Concept


class ConceptSource(Protocol):
    """Where the concepts of features are kept; `concepts.Annotations` is one."""

    def data_version(self) -> int:
        """A number that differs after every change of the concepts."""
        ...

    def concepts(self, sae_id: str | None = None, feature: int | None = None) -> list[Concept]:
        """All concepts, or those of one SAE or feature."""
        ...

    def mark(self) -> tuple[int, int]:
        """Where the history of changes is now."""
        ...

    def features_changed(self, sae_id: str, mark: tuple[int, int], most: int) -> list[int] | None:
        """The features of which something was changed since; None for more than `most`."""
        ...

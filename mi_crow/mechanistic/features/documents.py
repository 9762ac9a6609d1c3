"""The indexed documents: one by its number, or those that contain some words. Torch-free."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mi_crow.mechanistic.features.search import documents_with, search_words

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.connection import IndexConnection


@dataclass(frozen=True)
class IndexedDocument:
    """One document of an index."""

    number: int
    label: str | None
    text: str


def find_documents(
    connection: "IndexConnection", wanted: str, limit: int = 200
) -> list[IndexedDocument]:
    """The document with the number `wanted`, or the first `limit` that contain all its words; all
    for an empty text. Raises CorruptDataError."""
    with connection.fitting():
        query = "SELECT document, label, text FROM idx.stored_documents"
        wanted = wanted.strip().removeprefix("#")
        if wanted.isascii() and wanted.isdigit() and len(wanted) < 10:
            rows = connection.rows(f"{query} WHERE document = ?", [int(wanted)])
        elif words := search_words(wanted):
            some = documents_with(connection, words)[:limit].tolist()
            marks = ", ".join("?" * len(some))
            rows = connection.rows(f"{query} WHERE document IN ({marks})", some) if some else []
        else:
            rows = connection.rows(f"{query} ORDER BY document LIMIT ?", [limit])
        return sorted((IndexedDocument(*row) for row in rows), key=lambda one: one.number)

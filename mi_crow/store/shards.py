"""Parts of an activations run: written whole, read memory-mapped, shuffled by seed.

A part is one Parquet file of documents and, for each layer, one safetensors file whose rows stand
in the order of the documents' kept positions.
"""

from mi_crow.store.parts import (
    DOCUMENT_SCHEMA,
    DTYPES,
    HELDOUT,
    RunPart,
    StoredRows,
    quantise,
    row_norms,
    stored_rows,
    write_part,
)
from mi_crow.store.reader import RunReader

__all__ = [
    "DOCUMENT_SCHEMA",
    "DTYPES",
    "HELDOUT",
    "RunPart",
    "RunReader",
    "StoredRows",
    "quantise",
    "row_norms",
    "stored_rows",
    "write_part",
]

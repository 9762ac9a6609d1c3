"""What is changed in a vector's file without touching its direction: a note, the id of an SAE.
Torch-free."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mi_crow.clean_text import clean_text
from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.vectors.stored import (
    METADATA_KEY,
    list_vectors,
    read_summary,
    vector_path,
)
from mi_crow.store.atomic import write_bytes
from mi_crow.store.safetensors_header import LENGTH_BYTES, HeaderError, read_whole_header
from mi_crow.store.workspace import Workspace

MOST = 4000  # characters
_ALIGNED = 8  # bytes to which headers are padded, as the safetensors package does


def note_vector(workspace: Workspace, name: str, note: str) -> None:
    """Replaces the note on a vector; an empty one removes it. The direction stays bit by bit.

    Raises UserError, NotFoundError, CorruptDataError.
    """
    path = vector_path(workspace, name)
    note = clean_text(note).strip()
    if len(note) > MOST:
        raise UserError(f"a note has at most {MOST:,} characters", hint="shorten it")
    made = {key: value for key, value in read_summary(path).made.items() if key != "note"}
    if note:
        made["note"] = note
    _write_made(path, made)


def rename_in_vectors(workspace: Workspace, sae_id: str, new: str) -> None:
    """Makes what vectors say of an SAE follow it to its new id; the vectors keep their names.

    Raises OSError.
    """
    for one in list_vectors(workspace):
        made = _renamed(one.made, sae_id, new)
        made |= {
            key: _renamed(held, sae_id, new)
            for key in ("of", "refined")
            if isinstance(held := made.get(key), dict)
        }
        if made != one.made:
            with suppress(CorruptDataError):  # damaged since: it stays, the renaming goes on
                _write_made(one.path, made)


def _renamed(held: Mapping[str, Any], sae_id: str, new: str) -> dict[str, Any]:
    return {**held, "sae": new} if held.get("sae") == sae_id else dict(held)


def _write_made(path: Path, made: Mapping[str, Any]) -> None:
    content = path.read_bytes()
    try:
        with path.open("rb") as file:
            entries, metadata, start = read_whole_header(file, path.name)
    except HeaderError as error:
        raise CorruptDataError(str(error)) from error
    metadata[METADATA_KEY] = json.dumps(made, ensure_ascii=False)
    header = json.dumps({"__metadata__": metadata, **entries}, ensure_ascii=False).encode()
    header += b" " * (-len(header) % _ALIGNED)
    write_bytes(path, len(header).to_bytes(LENGTH_BYTES, "little") + header + content[start:])

"""A note on a vector, kept in its file beside how it was made. Torch-free."""

import json

from mi_crow.clean_text import clean_text
from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.vectors.stored import METADATA_KEY, read_summary, vector_path
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

"""A person's note on a run or an SAE: one text file in its folder."""

from pathlib import Path

from mi_crow.clean_text import clean_text
from mi_crow.store.atomic import write_bytes

NOTE_NAME = "note.txt"


def read_note(folder: Path) -> str:
    """The note in a run's or SAE's folder; empty when there is none."""
    try:
        return (folder / NOTE_NAME).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def write_note(folder: Path, text: str) -> None:
    """Replaces the note; an empty text removes it."""
    if text.strip():
        write_bytes(folder / NOTE_NAME, f"{clean_text(text).strip()}\n".encode())
    else:
        (folder / NOTE_NAME).unlink(missing_ok=True)

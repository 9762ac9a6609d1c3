"""The text of a command that looks into a model."""

from mi_crow.clean_text import clean_text
from mi_crow.cli.streams import read_input
from mi_crow.errors import UserError


def text_of(given: str) -> str:
    """The text given, or that of standard input for `-`. Raises UserError for an empty one."""
    text = clean_text(read_input()) if given == "-" else given
    if not text.strip():
        raise UserError("the text is empty", hint="give one in quotes, or `-` to read stdin")
    return text

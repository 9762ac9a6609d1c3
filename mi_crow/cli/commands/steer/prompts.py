"""The prompts that a measurement continues, from flags and from a file."""

from argparse import Namespace

from mi_crow.clean_text import clean_text
from mi_crow.errors import UserError
from mi_crow.paths import expanded


def prompts_of(options: Namespace) -> tuple[str, ...]:
    """What --prompt and the file of --prompts name. Raises UserError for a file without any."""
    if options.prompts is None:
        return tuple(options.prompt)
    path = expanded(options.prompts)
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{options.prompts!r} is not text in UTF-8") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{options.prompts!r} cannot be read ({reason})") from error
    lines = [clean_text(line) for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{options.prompts!r} has no prompts", hint="write one a line")
    return (*options.prompt, *lines)

"""A path as people type it, `~` for the home folder; pure but for looking at the disk."""

import os
from pathlib import Path

from mi_crow.errors import UserError


def typed_path(text: str) -> Path:
    """The path that `text` names. Raises UserError where it cannot be a path."""
    path = Path(text)
    try:
        path = path.expanduser()
        os.lstat(path)
    except RuntimeError as error:  # ~somebody
        raise UserError(f"{text.split('/')[0]!r} is not a user's home folder") from error
    except FileNotFoundError:
        return path  # may be written
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it contains a NUL character"
        raise UserError(f"{text!r:.80} cannot be a file: {reason}") from error
    return path

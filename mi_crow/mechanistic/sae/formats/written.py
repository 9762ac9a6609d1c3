"""Writing the folder of an SAE: what the operating system refuses, in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from mi_crow.causes import machine_error
from mi_crow.errors import UserError


@contextmanager
def explained_writing(target: Path) -> Iterator[None]:
    """Raises UserError when `target` cannot be written, MachineError where the operating system
    gives the reason."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{str(target)!r} cannot be written ({error.strerror})") from error
    except SafetensorError as error:  # wraps the operating system's error
        raise machine_error(error, target) or UserError(
            f"{str(target)!r} cannot be written ({error})"
        ) from error

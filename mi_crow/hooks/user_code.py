"""A user's Python function in a file: named, checked by its hash, run only where that is allowed.

Torch-free.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_crow.causes import out_of_memory
from mi_crow.errors import UserError
from mi_crow.paths import expanded

_MOST_BYTES = 1 << 20
_HINT = "write it as FILE.py:FUNCTION"


@dataclass(frozen=True)
class UserFunction:
    """`function` of the file at `path`, as it was when its bytes had the hash `sha256`."""

    path: str
    function: str
    sha256: str

    def __post_init__(self) -> None:
        if not self.path.endswith(".py") or not self.function.isidentifier():
            raise UserError(f"{self.words!r} is not a function of a file", hint=_HINT)

    @property
    def words(self) -> str:
        return f"{self.path}:{self.function}"

    @classmethod
    def named(cls, words: str) -> "UserFunction":
        """`FILE.py:FUNCTION` as the file is now; nothing of it runs. Raises UserError."""
        path, _, function = words.rpartition(":")
        known = cls(path, function, "")
        return cls(path, function, hashlib.sha256(known.source()).hexdigest())

    @classmethod
    def from_json(cls, data: Any) -> "UserFunction | None":
        """Reads `as_json`, or None. Raises UserError, KeyError."""
        if data is None:
            return None
        if not isinstance(data, Mapping):
            raise UserError(f"{data!r} is not a function of a file", hint=_HINT)
        return cls(*(str(data[key]) for key in ("path", "function", "sha256")))

    def as_json(self) -> dict[str, str]:
        return {"path": self.path, "function": self.function, "sha256": self.sha256}

    def source(self) -> bytes:
        """The file's bytes. Raises UserError where it cannot be read."""
        path = expanded(self.path)
        try:
            if not path.exists():
                raise UserError(f"file {self.path!r} not found", hint=_HINT)
            if not path.is_file() or path.stat().st_size > _MOST_BYTES:
                raise UserError(f"{self.path!r} is not a Python file", hint=_HINT)
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.path!r} cannot be read ({error.strerror})") from error

    def load(self) -> Callable[[Any], Any]:
        """Runs the file and gives the function; what it raises becomes a UserError, also later.

        Raises UserError for a file that has changed since it was named, or has no such function.
        """
        source = self.source()
        if self.sha256 and hashlib.sha256(source).hexdigest() != self.sha256:
            raise UserError(
                f"{self.path!r} has changed since the intervention was made", hint="name it again"
            )
        names: dict[str, Any] = {"__name__": Path(self.path).stem, "__file__": self.path}
        try:
            exec(compile(source, self.path, "exec"), names)
        except (Exception, SystemExit) as error:
            raise self._failed(error) from error
        found = names.get(self.function)
        if not callable(found):
            raise UserError(f"{self.path!r} has no function {self.function!r}", hint=_HINT)

        def call(x: Any) -> Any:
            try:
                return found(x)
            except (Exception, SystemExit) as error:
                if out_of_memory(error):
                    raise  # more is known about what to lower where the model runs
                raise self._failed(error) from error

        return call

    def _failed(self, error: BaseException) -> UserError:
        told = " ".join(str(error).split())[:200]
        return UserError(
            f"{self.words} raised {type(error).__name__}{told and f': {told}'}",
            hint="it gets the layer's activations, a tensor [..., d], and returns one like it",
        )

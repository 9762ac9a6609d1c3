"""What commands print, read in this process."""

from collections.abc import Callable

import pytest

from mi_crow.cli import main
from mi_crow.store.workspace import Workspace

Say = Callable[..., str]


def saying(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str = "",
    *,
    after: tuple[str, ...] = (),
    spaced: bool = False,
) -> Say:
    """Runs `command` with the words given and says what it prints, or its error where a `code` is
    expected: each run of spaces as one, except in JSON and where `spaced`."""
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))
    monkeypatch.setenv("COLUMNS", "400")  # no row is cut or folded

    def call(*words: str, code: int = 0, command: str = command) -> str:
        assert main([*([command] if command else []), *words, *after]) == code
        told = capsys.readouterr()
        out = told.err if code else told.out
        if spaced or "--json" in words:
            return out
        return "\n".join(" ".join(line.split()) for line in out.split("\n"))

    return call

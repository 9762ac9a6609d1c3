"""The model session: one process that holds a model and its SAE for the interactive panes.

`client` and `protocol` cost no torch; names load on first use.
"""

from typing import TYPE_CHECKING, Any

from mi_crow.lazy import lazy_exports

if TYPE_CHECKING:
    from mi_crow.session.client import SessionClient
    from mi_crow.session.protocol import SessionDied

_EXPORTS = {
    "SessionClient": "mi_crow.session.client",
    "SessionDied": "mi_crow.session.protocol",
}

__all__ = ["SessionClient", "SessionDied"]


def __getattr__(name: str) -> Any:
    return lazy_exports(__name__, _EXPORTS, name)

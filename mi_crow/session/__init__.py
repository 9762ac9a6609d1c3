"""The model session: one process that holds a model and its SAE for the interactive panes.

`client` and `protocol` cost no torch; names load on first use.
"""

from typing import TYPE_CHECKING

from mi_crow.lazy import Getter, lazy_exports

if TYPE_CHECKING:
    from mi_crow.session.client import SessionClient
    from mi_crow.session.protocol import SessionDied

__getattr__: Getter = lazy_exports(
    __name__,
    {
        "client": ("SessionClient",),
        "protocol": ("SessionDied",),
    },
)

__all__ = ["SessionClient", "SessionDied"]

"""What the open app says about itself, as JSON."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mi_crow
from tui.message_log import Told
from tui.remote.offer import open_popup
from tui.watch import ACTIVE

if TYPE_CHECKING:
    from tui.app import MiCrowApp

_MESSAGES = 10  # the latest


def app_state(app: "MiCrowApp") -> dict[str, Any]:
    """What is on the screen, and what else would come back at the next start."""
    context, screen = app.context, app.screen
    state, session = app.current_state(), app.context.session_state
    feature = state.screens.get("features", {}).get("feature")
    of_open_sae = state.screens.get("features", {}).get("sae") == context.sae_id
    focused = screen.focused
    return {
        "pid": os.getpid(),
        "version": mi_crow.__version__,
        "workspace": str(context.workspace.root),
        "screen": app.current_mode,
        "popup": open_popup(app),
        "focus": focused.id if focused is not None else None,
        "columns": app.size.width,
        "rows": app.size.height,
        "theme": app.theme,
        "sae": context.sae_id,
        "index": context.features is not None,
        "feature": feature if of_open_sae else None,
        "session": {
            "phase": session.phase,
            "sae": session.sae_id or None,
            "model": session.model_id or None,
            "device": session.device or None,
        },
        "jobs": [
            {"job_id": job.job_id, "kind": job.kind, "status": job.status}
            for job in context.jobs()
            if job.status in ACTIVE
        ],
        "unread_errors": app.message_log.unread_errors,
        "messages": told(app.message_log.since(0.0)[-_MESSAGES:]),
        "screens": {name: dict(own) for name, own in state.screens.items()},
    }


def told(messages: Sequence[Told]) -> list[dict[str, Any]]:
    """Messages, the earliest first."""
    return [
        {"time": one.time, "severity": one.severity, "said": one.sentence, "remedy": one.remedy}
        for one in messages
    ]

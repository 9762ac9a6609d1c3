"""What a screen says that needs an SAE while none is open."""

from tui.context import AppContext


def no_sae(context: AppContext) -> str:
    """Why there is nothing to see, and the keys that change that; empty while an SAE is open."""
    if context.sae_id is not None:
        return ""
    if not context.has_looked:
        return "Looking at the workspace…"
    if context.saes():
        return "No SAE is open: 1 goes to Runs, where enter opens one"
    return "No SAE yet: 1 goes to Runs, where n starts the demo or a capture"

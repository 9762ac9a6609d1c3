"""What a screen says that needs an SAE while none is open."""

from tui.context import AppContext
from tui.preferences.key_words import key


def no_sae(context: AppContext) -> str:
    """Why there is nothing to see, and the keys that change that; empty while an SAE is open."""
    if context.sae_id is not None:
        return ""
    if not context.has_looked:
        return "Looking at the workspace…"
    runs = key("app.runs")
    if context.saes():
        return f"No SAE is open: {runs} goes to Runs, where {key('list.open')} opens one"
    return f"No SAE yet: {runs} goes to Runs, where {key('runs.new')} starts the demo or a capture"

"""What the Features screen shows while no index is open; pure."""

from typing import TYPE_CHECKING

from textual.content import Content

from mi_crow.store.workspace import SaeSummary
from tui.preferences.key_words import key
from tui.text import printable

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.queries import FeatureStore


def welcome(
    sae_id: str | None,
    sae: SaeSummary | None,
    store: "FeatureStore | None",
    error: str,
    *,
    looked: bool,
    making: str = "",
) -> Content | None:
    """What to do first; None when the index is open. `looked`: the workspace has been read.
    `making`: the job that makes an SAE now."""
    if store is not None:
        return None
    if sae_id is None:
        if not looked:
            return Content.styled("Looking at the workspace…", "$muted")
        start = f"{key('runs.new')} starts the demo or a capture"
        makes = f"{printable(making)} makes one"
        return _page("No SAE yet", "", f"Runs, where {makes if making else start}")
    name = printable(sae_id)
    index = f"{key('runs.new', 'new.index')} on the SAE"
    if sae is not None and not sae.has_index:
        return _page(f"{name} has no feature index yet", "", f"Runs, then {index} builds it")
    if error:
        return _page(
            f"{name} cannot be opened", printable(error), f"Runs, then {index} rebuilds it"
        )
    return Content.styled(f"Opening {name}…", "$muted")


def _page(title: str, detail: str, on_runs: str) -> Content:
    """`on_runs` is what can be done about it there."""
    parts: list[str | tuple[str, str]] = [(title, "bold $foreground"), "\n\n"]
    if detail:
        parts += [(detail, "$muted"), "\n\n"]
    parts += [(key("app.runs"), "bold $primary"), (f"   {on_runs}", "$muted")]
    return Content.assemble(*parts)

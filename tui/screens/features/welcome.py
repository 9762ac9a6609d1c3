"""What the Features screen shows while no index is open; pure."""

from typing import TYPE_CHECKING

from textual.content import Content

from mi_crow.store.workspace import SaeSummary
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
) -> Content | None:
    """What to do first; None when the index is open. `looked`: the workspace has been read."""
    if store is not None:
        return None
    if sae_id is None:
        if not looked:
            return Content.styled("Looking at the workspace…", "$muted")
        return _page("No SAE yet", "", ("1", "Runs, where n starts the demo or a capture"))
    name = printable(sae_id)
    if sae is not None and not sae.has_index:
        return _page(
            f"{name} has no feature index yet",
            "",
            ("1", "Runs, then n i on the SAE builds it"),
        )
    if error:
        again = "Runs, then n i on the SAE rebuilds it"
        return _page(f"{name} cannot be opened", printable(error), ("1", again))
    return Content.styled(f"Opening {name}…", "$muted")


def _page(title: str, detail: str, *keys: tuple[str, str]) -> Content:
    parts: list[str | tuple[str, str]] = [(title, "bold $foreground"), "\n\n"]
    if detail:
        parts += [(detail, "$muted"), "\n\n"]
    for key, words in keys:
        parts += [(key, "bold $primary"), (f"   {words}", "$muted"), "\n"]
    return Content.assemble(*parts).rstrip()

"""The line that asks for the name of one feature, on the screen and on its map."""

from functools import partial
from typing import TYPE_CHECKING

from tui.annotate import Naming, name_missing, naming_mistake
from tui.screens.features.reading import known_words

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.queries import FeatureStore
    from mi_crow.mechanistic.features.records import FeatureRow
    from tui.widgets.prompt_line import PromptLine

SAVES_ONE = "enter saves · esc cancels"
TAKES_ONE = "→ takes it · enter saves"
SAVES = "enter saves, next · ctrl+t stays"
TAKES = "→ takes it · enter next · ctrl+t stays"  # as much as fits beside a text at 80 columns


def ask_name(
    prompt: "PromptLine",
    store: "FeatureStore | None",
    sae_id: str,
    row: "FeatureRow",
    score: float | None = None,
    *,
    on: bool = False,
    goes_on: bool = False,
) -> Naming:
    """Asks for a name; `score` is that of the proposed one, where the row does not know it. A label
    is offered as the text; where the line `goes_on` from another feature only as a proposal, so
    that one enter too many names nothing. With `on`, enter goes on to the next feature."""
    known = row.more.get("score") if score is None else score
    if row.explainer:
        known = row.detection  # the other is that of a name which is not shown
    label = (row.top_label or "") if goes_on else ""
    offered = "" if row.concept else row.proposed or label
    proposed = (row.proposed, known) if row.proposed and known is not None else None
    hints = (TAKES, SAVES) if on else (TAKES_ONE, SAVES_ONE)
    prompt.ask(
        "tag",
        f"#{row.feature} is",
        row.concept or ("" if row.proposed or goes_on else row.top_label) or "",
        suggestions=known_words(store, row.top_label),
        placeholder="what it stands for  #tag  ~0.8  -- note",
        proposal=offered,
        hint=hints[0] if offered else hints[1],
        check=partial(naming_mistake, offered=offered),
        refuse=None if row.concept else name_missing,
        select=True,
        opens=on,
        again=on and not row.concept,
    )
    return Naming(sae_id, row.feature, row.concept, proposed, offered)

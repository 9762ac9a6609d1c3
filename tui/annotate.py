"""Naming features: the few writes that several screens do, each in a thread."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mi_crow.errors import MiCrowError
from tui.text import printable

if TYPE_CHECKING:
    from tui.screens.base import MiCrowScreen


def write(screen: "MiCrowScreen", change: Callable[[], object], done: str) -> None:
    """Does `change` to the annotations in a thread; then tells `done`, or what went wrong."""
    screen.run_worker(
        partial(_write, screen, change, done), thread=True, group="annotate", exit_on_error=False
    )


def _write(screen: "MiCrowScreen", change: Callable[[], object], done: str) -> None:
    app = screen.mi_crow
    try:
        change()
    except (MiCrowError, OSError) as error:
        sentence = error.sentence if isinstance(error, MiCrowError) else str(error)
        app.call_from_thread(app.notify, printable(sentence), severity="error", markup=False)
        return
    app.call_from_thread(app.notify, printable(done), markup=False)
    app.call_from_thread(app.concepts_changed)


def name_feature(screen: "MiCrowScreen", feature: int, before: str | None, name: str) -> None:
    """Gives a feature of the open SAE a name in place of `before`; an empty one takes it away."""
    sae_id = screen.context.sae_id
    if sae_id is None or name == (before or ""):
        return
    annotations = screen.context.annotations

    def change() -> None:
        if name:
            annotations.set_concept(sae_id, feature, name)
        if before:
            annotations.remove_concept(sae_id, feature, before)

    write(screen, change, f"#{feature} is “{name}”" if name else f"#{feature} has no name now")

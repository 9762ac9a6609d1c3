"""What an open app does and tells when another program asks: its own actions and nothing else."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from textual.dom import DOMNode

from mi_crow.bounds import FEATURE
from mi_crow.errors import NotFoundError, UserError, nearest
from mi_crow.remote.wire import QUIT
from mi_crow.store.json_object import JsonObject
from mi_crow.store.workspace import Workspace
from tui import messages
from tui.actions import BY_ID, SCREENS
from tui.remote.offer import bound_actions, offer, open_popup
from tui.remote.pump import on_pump, until
from tui.remote.telling import app_state, told
from tui.widgets.frame.palette import offered

if TYPE_CHECKING:
    from tui.app import MiCrowApp
    from tui.screens.features.screen import FeaturesScreen

_OPENING_S: Final = 45.0  # for an index of a large SAE on a slow disk
_SETTLING_S: Final = 2.0  # after which an action still works in the background
_LISTED: Final = 20  # features that the answer to a filter names

Command = Callable[[JsonObject], Awaitable[dict[str, Any]]]


class RemoteCommands:
    """The requests of `mi-crow app`, by the name that is in `do`."""

    def __init__(self, app: "MiCrowApp") -> None:
        self._app = app
        self._commands: dict[str, tuple[frozenset[str], Command]] = {
            "state": (frozenset(), self._state),
            "actions": (frozenset(), self._actions),
            "show": (frozenset({"screen"}), self._show),
            "open-feature": (frozenset({"sae", "feature"}), self._open_feature),
            "filter": (frozenset({"query"}), self._filter),
            "do": (frozenset({"action"}), self._do),
            QUIT: (frozenset(), self._quit),
        }

    async def answer(self, request: JsonObject) -> dict[str, Any]:
        """Does what is asked for and says what came of it. Raises MiCrowError."""
        name = request.text("do")
        if name not in self._commands:
            raise UserError(
                f"{name[:80]!r} is nothing that the app can be asked for",
                hint=f"there is {', '.join(self._commands)}",
            )
        takes, command = self._commands[name]
        unknown = sorted(set(request) - takes - {"do"})
        if unknown:
            raise UserError(f"{name} takes no {unknown[0][:80]!r}")
        return await command(request)

    # What is asked for.

    async def _state(self, _: JsonObject) -> dict[str, Any]:
        return await on_pump(self._app, partial(app_state, self._app))

    async def _actions(self, _: JsonObject) -> dict[str, Any]:
        return await on_pump(self._app, partial(offer, self._app))

    async def _quit(self, _: JsonObject) -> dict[str, Any]:
        return {QUIT: True, "pid": os.getpid()}

    async def _show(self, request: JsonObject) -> dict[str, Any]:
        name = request.text("screen")
        if name not in SCREENS:
            raise NotFoundError(
                f"there is no screen {name[:80]!r}", hint=f"there is {', '.join(SCREENS)}"
            )
        await self._go(name)
        return {"screen": name}

    async def _open_feature(self, request: JsonObject) -> dict[str, Any]:
        sae_id, feature = request.text("sae"), request.integer("feature")
        FEATURE.check(feature, "feature")
        await asyncio.to_thread(_check_index, self._app.context.workspace, sae_id)
        await self._open_index(sae_id)
        screen = await self._features()
        total = self._total()
        if feature >= total:
            raise NotFoundError(
                f"feature {feature} is not in SAE {sae_id!r}",
                hint=f"its features are 0 to {total - 1}",
            )

        async def open_it() -> None:
            if screen.open_feature != feature:
                self._app.leave_place()
            await self._app.go("features", messages.OpenFeature(feature))

        await on_pump(self._app, open_it)
        await self._wait(lambda: screen.open_feature == feature and not screen.is_working("detail"))
        return {"screen": "features", "sae": sae_id, "feature": feature}

    async def _filter(self, request: JsonObject) -> dict[str, Any]:
        from mi_crow.mechanistic.features.query_language import parse_query

        text = request.text("query").strip()
        parse_query(text)
        screen = await self._features()
        self._total()
        before = time.time()
        await on_pump(self._app, partial(screen.search, text))
        await self._wait(lambda: screen.listed is not None)
        if screen.listed is None or screen.listed[0] != text:
            said = [one.sentence for one in self._app.message_log.since(before)]
            raise UserError(said[-1] if said else "the filter was changed meanwhile")
        _, found, total = screen.listed
        return {
            "filter": text,
            "shown": len(found),
            "total": total,
            "features": list(found[:_LISTED]),
        }

    async def _do(self, request: JsonObject) -> dict[str, Any]:
        name = request.text("action")
        action = BY_ID.get(name)
        if action is None:
            raise NotFoundError(
                f"there is no action {name[:80]!r}",
                hint=f"there is {nearest(name, BY_ID)}; mi-crow app actions lists them",
            )
        if name == "app.quit":
            return await self._quit(request)
        before = time.time()

        async def perform() -> None:
            popup, bound = open_popup(self._app), bound_actions(self._app.screen)
            if name in bound:
                await self._app.run_action(action.action, default_namespace=bound[name])
            elif popup:
                raise _covered(popup, bound)
            elif action not in offered(self._app.screen):
                raise UserError(f"{action.help}: not possible here")
            else:
                await self._app.perform(action, self._app.screen.focused)

        await on_pump(self._app, perform)
        workers = self._app.workers
        await until(lambda: all(one.is_finished for one in workers), _SETTLING_S)
        return {
            "action": name,
            "screen": self._app.current_mode,
            "popup": open_popup(self._app),
            "told": told(self._app.message_log.since(before)),
        }

    # The way there.

    async def _go(self, screen: str) -> None:
        async def go() -> None:
            if popup := open_popup(self._app):
                raise _covered(popup, bound_actions(self._app.screen))
            await self._app.go(screen)

        await on_pump(self._app, go)

    async def _features(self) -> "FeaturesScreen":
        await self._go("features")
        screen = cast("FeaturesScreen", self._app.base_screen)
        await self._wait(lambda: screen.is_mounted)
        return screen

    async def _open_index(self, sae_id: str) -> None:
        app, context = self._app, self._app.context

        def open_it() -> None:
            if popup := open_popup(app):
                raise _covered(popup, bound_actions(app.screen))
            if context.sae_id != sae_id or context.features is None:
                app.open_sae(sae_id)

        await on_pump(app, open_it)
        await self._wait(lambda: not app.is_working("index"))

    def _total(self) -> int:
        """Features of the open index. Raises UserError where there is none."""
        context = self._app.context
        if context.features is None:
            screen = cast("FeaturesScreen", self._app.base_screen)
            raise UserError(screen.error or "no feature index is open")
        return context.features.meta().n_features

    async def _wait(self, holds: Callable[[], bool]) -> None:
        if not await until(holds, _OPENING_S):
            raise UserError("the app is busy", hint="try again")


def _check_index(workspace: Workspace, sae_id: str) -> None:
    """Raises UserError or NotFoundError when there is no such SAE or it has no index. Blocks."""
    folder: Path = workspace.sae_dir(sae_id)
    if not (folder / "features.duckdb").exists():
        raise UserError(
            f"SAE {sae_id!r} has no feature index", hint=f"mi-crow index --sae {sae_id} builds it"
        )


def _covered(popup: str, bound: Mapping[str, DOMNode]) -> UserError:
    closing = [name for name in bound if name.partition(".")[2] == "close"]
    hint = f"mi-crow app do {closing[0]} closes it" if closing else ""
    return UserError(f"{popup!r} is open over the screen", hint=hint)

"""From a task of the event loop to the app's message pump and back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from textual.app import App

_LOOK_S: Final = 0.02


async def on_pump(app: App[Any], call: Callable[[], Any]) -> Any:
    """What `call` returns, or what it makes when that is awaited, called by the app as its own
    actions are. Raises what it raises."""
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        try:
            value = call()
            if isinstance(value, Awaitable):
                value = await value
        except Exception as error:
            if not done.done():  # nobody waits for it any more
                done.set_exception(error)
        else:
            if not done.done():
                done.set_result(value)

    app.call_next(run)
    return await done


async def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Waits until something holds; False when it does not in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not holds():
        if loop.time() > deadline:
            return False
        await asyncio.sleep(_LOOK_S)  # the app goes on meanwhile
    return True

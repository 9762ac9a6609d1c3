"""Work in threads: widgets are touched by the message pump only, and the latest answer counts."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mi_crow.causes import explained, sentence_of
from mi_crow.errors import MiCrowError
from tui.text import printable

if TYPE_CHECKING:
    from textual.dom import DOMNode as _Node

    from tui.widgets.trouble import Trouble
    from tui.workbench import Workbench
else:
    _Node = object

Answer = TypeVar("Answer")
REST_S = 0.12  # without another key, after which what follows a cursor is read
_AFTER_FRAME = 2 / 3  # of a rest, from the frame that the move brought to what follows
HOLD_S = 1.0  # what is typed within it after a question to a model is for the answer


@dataclass(frozen=True, eq=False)
class _Task:
    """What runs in a thread, and who gets the answer or the error."""

    work: Callable[[], Any]
    then: Callable[[Any], object]
    failed: Callable[[Exception], object]
    trouble: "Trouble | None"
    opens: bool  # the answer opens a popup
    slow: bool  # what is typed meanwhile is for that only for a moment

    def succeeded(self, answer: Any) -> object:
        if self.trouble is not None:
            self.trouble.clear()
        return self.then(answer)

    def failed_with(self, error: Exception) -> object:
        if self.trouble is not None:
            self.trouble.show(error)
        return self.failed(error)


class ThreadWork(_Node):
    """Mixed into the app, screens, popups and widgets that wait for a disk or a model."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._newest_tasks: dict[str, _Task] = {}  # by group, while a thread of the group runs
        self._rests: dict[str, tuple[float, Callable[[], object]]] = {}  # until when, then what
        self._hold_keys: set[_Task] = set()  # what is typed waits for their popups

    def in_thread(
        self,
        work: Callable[[], Answer],
        then: Callable[[Answer], object] | None = None,
        *,
        group: str = "",
        failed: Callable[[Exception], object] | None = None,
        trouble: "Trouble | None" = None,
        opens: bool = False,
        slow: bool = False,
    ) -> None:
        """Calls `work` in a thread, then `then` with what it returned, or `failed` (by default
        `tell`) with what it raised, on the message pump. `trouble` is the place in the pane that
        keeps what was raised until the next success. With `opens`, the answer opens a popup: what
        is typed meanwhile is for that, of work that is `slow` as that of a model is for a moment
        only, and on a screen that was left it waits until one is back.

        A group has one thread at a time. Work asked for meanwhile waits, only the latest of it is
        done, and answers that it made obsolete are dropped. Without a group everything runs at
        once and every answer arrives: for writes.
        """
        task = _Task(work, then or _ignore, failed or self.tell, trouble, opens, slow)
        running = group in self._newest_tasks
        if group:
            self._newest_tasks[group] = task
        if not running:
            self._start_thread(group, task)

    def opens_now(self, then: Callable[[], object]) -> bool:
        """Whether a popup can open over what asked for it; else `then` is called once it can."""
        return True

    def when_rested(self, group: str, then: Callable[[], object]) -> None:
        """Calls `then` on the message pump once nothing was asked for in this group for a moment:
        what follows a cursor must not hold up its next move. Only the latest of them is called,
        and not in one frame with the move, which a busy machine draws late.
        """
        resting = group in self._rests
        self._rests[group] = monotonic() + REST_S, then
        self.call_after_refresh(self._drawn_before, group)
        if not resting:
            self.run_worker(self._rest(group), group=f"rest of {group}", exit_on_error=False)

    def is_resting(self, group: str) -> bool:
        """Whether something waits for the end of the moves."""
        return group in self._rests

    def _drawn_before(self, group: str) -> None:
        """What was asked for before this frame comes some time after it."""
        if (rest := self._rests.get(group)) is not None:
            until, then = rest
            self._rests[group] = max(until, monotonic() + _AFTER_FRAME * REST_S), then

    async def _rest(self, group: str) -> None:
        while (left := self._rests[group][0] - monotonic()) > 0:
            await asyncio.sleep(left)
        _, then = self._rests.pop(group)
        self.call_later(then)

    def is_working(self, group: str) -> bool:
        """Whether a thread of this group runs."""
        return group in self._newest_tasks

    def work_changed(self) -> None:
        """A thread has started, or it is over."""

    def tell(self, error: Exception) -> None:
        """Shows what went wrong, in one sentence."""
        sentence, remedy = told_words(error)
        cast("Workbench", self.app).notify(sentence, severity="error", remedy=remedy)

    def _start_thread(self, group: str, task: _Task) -> None:
        def run() -> None:
            try:
                answer = task.work()
            except Exception as error:
                self.call_later(self._thread_ended, group, task, partial(task.failed_with, error))
            else:
                self.call_later(self._thread_ended, group, task, partial(task.succeeded, answer))

        self.work_changed()
        if task.opens:
            self._hold_keys.add(task)
            cast("Workbench", self.app).opening(1)
            if task.slow:
                self.set_timer(HOLD_S, partial(self._let_keys_go, task))
        self.run_worker(run, thread=True, group=group or "default", exit_on_error=False)

    async def _thread_ended(self, group: str, task: _Task, deliver: Callable[[], object]) -> None:
        try:
            latest = self._newest_tasks.get(group, task)
            if latest is not task:
                self._start_thread(group, latest)
                return
            self._newest_tasks.pop(group, None)
            self.work_changed()
            if task.opens and not self.opens_now(deliver):
                return
            result = deliver()
            if isawaitable(result):
                await result
        finally:
            self._let_keys_go(task)

    def _let_keys_go(self, task: _Task) -> None:
        if task in self._hold_keys:
            self._hold_keys.remove(task)
            cast("Workbench", self.app).opening(-1)


def told_words(error: Exception) -> tuple[str, str]:
    """The sentence about `error`, and what to do about it, where that is known; printable."""
    shown = explained(error) if isinstance(error, MiCrowError | OSError) else error
    if isinstance(shown, MiCrowError):
        return printable(str(shown)), printable(shown.hint)
    return printable(error_sentence(error)), ""


def error_sentence(error: Exception) -> str:
    """One line about `error`; one that nobody foresaw says its type, for a report."""
    if isinstance(error, MiCrowError | OSError):
        return sentence_of(error)
    return f"{type(error).__name__}: {error}"


def _ignore(_: object) -> None:
    pass

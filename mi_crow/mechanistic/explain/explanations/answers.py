"""The answers of a chat model that were understood, kept until the job that paid for them is over.

A line of JSON each, appended as it comes: a job that is killed asks again only what was on its way.
"""

import json
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from mi_crow.language_model.endpoint import Endpoint, RubbishError
from mi_crow.mechanistic.explain.explanations.config import LOCAL, ExplanationsConfig
from mi_crow.mechanistic.explain.explanations.scores import Ask

_ASKED = 2  # times, where an answer is not in the form asked for
_Found = TypeVar("_Found")


class KeptAnswers:
    """Asks what was not answered before; calls from any thread.

    path: of the answers of one explainer; `forget` removes it.
    """

    def __init__(self, path: Path, ask: Ask) -> None:
        self._path, self._ask = path, ask
        self._held = _read(path)
        self._lock = threading.Lock()
        self._of_thread = threading.local()
        self.unread: int = 0  # answers that were not in the form asked for, at last
        self.trouble: str = ""  # what was wrong with the latest of them

    def __call__(self, question: str) -> str:
        self._keep()  # the one before was understood
        key = sha256(question.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        if key in self._held:
            return self._held[key]
        answer = self._ask(question)
        self._of_thread.latest = key, answer
        return answer

    def in_form(self, work: Callable[[], _Found]) -> _Found:
        """What `work` gives, which asks and reads; again where an answer was not in the form.
        Raises RubbishError after that."""
        for _ in range(_ASKED):
            try:
                found = work()
            except RubbishError as error:
                self._of_thread.latest, self.trouble = None, str(error)
                continue
            self._keep()
            return found
        with self._lock:
            self.unread += 1
        raise RubbishError("no answer in the form that was asked for")

    def forget(self) -> None:
        """Removes the file: what was found is elsewhere by now."""
        self._path.unlink(missing_ok=True)

    def _keep(self) -> None:
        latest = getattr(self._of_thread, "latest", None)
        if latest is None:
            return
        self._of_thread.latest = None
        key, answer = latest
        line = json.dumps({"question": key, "answer": answer}) + "\n"
        with self._lock:
            self._held[key] = answer
            with self._path.open("ab") as file:
                file.write(line.encode())


def asker(config: ExplanationsConfig, ask: Ask | None) -> Ask:
    """Who is asked, with at most `per_minute` questions that start in a minute, those that are put
    again among them."""
    turn = _turns(config.per_minute)
    if ask is None and not config.is_local:
        return Endpoint(config.explainer, config.model, turn=turn).ask
    if ask is None:
        from mi_crow.mechanistic.explain.explanations.local import local_chat

        ask = local_chat(config.explainer.removeprefix(LOCAL), config.device)
    answer = ask

    def asked(question: str) -> str:
        turn()
        return answer(question)

    return asked


def _turns(per_minute: int | None) -> Callable[[], None]:
    """A function that waits for the next turn, for any thread."""
    pause, lock = 60 / per_minute if per_minute else 0.0, threading.Lock()
    free_at = [0.0]

    def turn() -> None:
        with lock:
            now = time.monotonic()
            wait = max(free_at[0] - now, 0.0)
            free_at[0] = now + wait + pause
        time.sleep(wait)

    return turn


def _read(path: Path) -> dict[str, str]:
    """What a file holds; a line that is not whole is left out."""
    found: dict[str, str] = {}
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        try:
            one = json.loads(line)
            key, answer = one["question"], one["answer"]
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
        if isinstance(key, str) and isinstance(answer, str):
            found[key] = answer
    return found

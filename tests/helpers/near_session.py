"""The operations of the model session in the process of a test: real models, no pipe."""

from collections.abc import Iterator
from typing import Any

from mi_crow.session.operations import Operations
from mi_crow.store.workspace import Workspace

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class NearSession:
    """Answers like a SessionClient. `template` becomes the chat template of each model."""

    def __init__(self, workspace: Workspace, template: str = "") -> None:
        self.alive = True
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._operations = Operations(workspace)
        self._template = template
        self._stopped = False

    def start(self) -> None:
        self.alive = True

    def close(self) -> None:
        self.alive = False

    def interrupt(self, request_id: str | None = None) -> None:
        self._stopped = True

    def request(self, op: str, **params: Any) -> Iterator[dict[str, Any]]:
        self.asked.append((op, params))
        self._stopped = False
        events: list[dict[str, Any]] = []
        result = self._operations.run(op, dict(params), events.append, lambda: self._stopped)
        if op == "load" and self._template:
            held = self._operations._held
            assert held is not None
            held.loaded.lm.tokenizer.chat_template = self._template
        yield from events
        yield {**result, "event": "result"}

    def call(self, op: str, **params: Any) -> dict[str, Any]:
        return [*self.request(op, **params)][-1]

"""A conversation on both sides: alike up to the first answer, then each with its own. Torch-free.

As JSON it is a list of messages, or what `as_json` gives, where the sides have parted:

    [{"role": "user", "content": "Good morning"}]
    {"baseline": [...], "steered": [...]}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_crow.errors import UserError
from mi_crow.store.json_file import parse_json

Message = dict[str, str]  # role, content

_HINT = 'write a list of messages, e.g. [{"role": "user", "content": "Good morning"}]'
_MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class Branches:
    """What was said so far, on each side."""

    baseline: tuple[Message, ...] = ()
    steered: tuple[Message, ...] = ()

    @property
    def alike(self) -> bool:
        """Whether both sides have heard the same."""
        return self.baseline == self.steered

    def asked(self, text: str) -> "Branches":
        """With a message of the user on both sides. Raises UserError for an empty one."""
        if not text.strip():
            raise UserError("the message is empty", hint="write something to answer")
        said = {"role": "user", "content": text}
        return Branches((*self.baseline, said), (*self.steered, said))

    def answered(self, baseline: str, steered: str) -> "Branches":
        """With the assistant's answer on each side."""
        return Branches(
            (*self.baseline, {"role": "assistant", "content": baseline}),
            (*self.steered, {"role": "assistant", "content": steered}),
        )

    def unanswered(self) -> "Branches":
        """Without the answers after the last question."""
        return Branches(_asking(self.baseline), _asking(self.steered))

    def until(self, place: int) -> "Branches":
        """The first `place` messages of each side."""
        return Branches(self.baseline[:place], self.steered[:place])

    def from_side(self, side: str) -> "Branches":
        """What was said on one side, on both."""
        said = self.baseline if side == "baseline" else self.steered
        return Branches(said, said)

    def edited(self, place: int, side: str, content: str) -> "Branches":
        """With other words in message number `place` of a side (`both`: of either), and without
        what followed it. Raises UserError for empty ones."""
        if not content.strip():
            raise UserError("the message is empty", hint="write something, or remove it")

        def changed(messages: tuple[Message, ...], own: str) -> tuple[Message, ...]:
            if side not in (own, "both") or place >= len(messages):
                return messages[: place + 1]
            return (*messages[:place], {**messages[place], "content": content})

        return Branches(changed(self.baseline, "baseline"), changed(self.steered, "steered"))

    @property
    def system(self) -> str:
        """The system prompt; empty without one."""
        first = self.steered[0] if self.steered else {}
        return first.get("content", "") if first.get("role") == "system" else ""

    def with_system(self, content: str) -> "Branches":
        """With this system prompt in front on both sides; without any where it is empty."""
        front = ({"role": "system", "content": content},) if content.strip() else ()

        def changed(messages: tuple[Message, ...]) -> tuple[Message, ...]:
            own = messages[1:] if messages and messages[0]["role"] == "system" else messages
            return (*front, *own)

        return Branches(changed(self.baseline), changed(self.steered))

    def check_asks(self) -> None:
        """Raises UserError where nobody waits for an answer."""
        for messages in (self.baseline, self.steered):
            if not messages:
                raise UserError("the conversation is empty", hint="write a message")
            if messages[-1]["role"] == "assistant":
                raise UserError(
                    "the conversation ends with an answer", hint="write the user's next message"
                )

    def as_json(self) -> dict[str, Any]:
        return {"baseline": list(self.baseline), "steered": list(self.steered)}

    @classmethod
    def from_json(cls, data: Any) -> "Branches":
        """Reads a list of messages, `as_json`, or an object that holds one of them under `messages`
        or `branches`, such as the result of a chat. Raises UserError."""
        if isinstance(data, Mapping):
            for key in ("branches", "messages"):
                if key in data:
                    return cls.from_json(data[key])
            if set(data) == {"baseline", "steered"}:
                return cls(*(_messages(data[side]) for side in ("baseline", "steered")))
            raise UserError("a conversation is a list of messages", hint=_HINT)
        both = _messages(data)
        return cls(both, both)

    @classmethod
    def read(cls, path: str) -> "Branches":
        """Reads a file with that JSON. Raises UserError."""
        try:
            if Path(path).stat().st_size > _MOST_BYTES:
                raise UserError(f"{path!r} is too large for a conversation", hint=_HINT)
            content = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"{path!r} cannot be read ({error.strerror})") from error
        return cls.from_json(parse_json(content, path))


def _asking(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    end = len(messages)
    while end and messages[end - 1]["role"] == "assistant":
        end -= 1
    return messages[:end]


def transcript(messages: Sequence[Message]) -> str:
    """A conversation as people type it: `user: Good morning`, a line a message."""
    return "\n".join(f"{one['role']}: {one['content']}" for one in messages)


def _messages(data: Any) -> tuple[Message, ...]:
    if not isinstance(data, Sequence) or isinstance(data, str):
        raise UserError("a conversation is a list of messages", hint=_HINT)
    found = []
    for number, one in enumerate(data, 1):
        role, content = (
            (one.get("role"), one.get("content")) if isinstance(one, Mapping) else (None, None)
        )
        if not isinstance(role, str) or not isinstance(content, str):
            raise UserError(f"message {number} has no role and content that are texts", hint=_HINT)
        found.append({"role": role, "content": content})
    return tuple(found)

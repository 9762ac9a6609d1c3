"""Conversations from data sets, in the form that chat templates expect."""

from collections.abc import Mapping, Sequence
from typing import Any

_ROLES = {"human": "user", "gpt": "assistant"}
_ROLE_KEYS, _CONTENT_KEYS = ("role", "from"), ("content", "value")


def is_conversation(value: Any) -> bool:
    """True for a list of messages, whatever their content."""
    turns = _turns(value)
    return bool(turns) and all(isinstance(turn, Mapping) for turn in turns) and _role(turns[0])[0]


def as_messages(value: Any) -> list[dict[str, Any]] | None:
    """Messages with `role` and `content`, of that form or of ShareGPT's `from` and `value`.

    None for what is not a conversation, is empty, or has more than text in it.
    """
    messages = []
    for turn in _turns(value):
        if not isinstance(turn, Mapping):
            return None
        known, role = _role(turn)
        content = _content(next((turn[key] for key in _CONTENT_KEYS if key in turn), None))
        if not known or content is None:
            return None
        # Tool calls and the like stay; a gap in a table counts as a missing key.
        others = {
            key: item
            for key, item in turn.items()
            if item is not None and key not in (*_ROLE_KEYS, *_CONTENT_KEYS)
        }
        messages.append({"role": role, "content": content, **others})
    if any(message["content"].strip() or "tool_calls" in message for message in messages):
        return messages
    return None


def _turns(value: Any) -> Sequence[Any]:
    """The turns of a list, or of one column for roles and one for contents."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, Mapping) and value and all(isinstance(v, list) for v in value.values()):
        return [
            dict(zip(value, items, strict=True)) for items in zip(*value.values(), strict=False)
        ]
    return ()


def _role(turn: Mapping[str, Any]) -> tuple[bool, str]:
    role = next((turn[key] for key in _ROLE_KEYS if key in turn), None)
    return isinstance(role, str), _ROLES.get(role, role) if isinstance(role, str) else ""


def _content(value: Any) -> str | None:
    """The text of one message; None if a part of it is not text."""
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list | tuple):
        return None
    texts = []
    for part in value:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str) or (isinstance(part, Mapping) and part.get("type") != "text"):
            return None
        texts.append(text)
    return "".join(texts)

"""Conversations to text with a tokenizer's own chat template."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from mi_crow.errors import UserError

# Some templates write today's date; a run must not depend on the day on which it resumes.
_TODAY = datetime(2025, 1, 1)
_ROLES = ("system", "user", "assistant", "tool")
_ROLE = re.compile(rf"\s*({'|'.join(_ROLES)})\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)
_DATE = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


def chat_renderer(
    tokenizer: Any, *, reply: bool = False
) -> Callable[[list[dict[str, Any]]], str] | None:
    """A function that turns a conversation into one text, special tokens included; None without a
    chat template. With `reply` the text ends where the assistant's answer begins.

    The messages have `role` and `content`. The function raises ValueError for a conversation that
    the template refuses, such as one whose roles do not alternate. Templates that write today's
    date write 1 January 2025.
    """
    from jinja2.exceptions import TemplateError

    try:
        template = tokenizer.get_chat_template()
    except (AttributeError, ValueError):
        return None
    template = _DATE.sub(lambda call: repr(_TODAY.strftime(call[2])), template)

    def render(messages: list[dict[str, Any]]) -> str:
        try:
            return tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=reply
            )
        except (TemplateError, TypeError, KeyError) as error:
            raise ValueError(f"the chat template refuses it ({error})") from error

    return render


class ChatPrompt(NamedTuple):
    """A conversation as the prompt of the assistant's next answer."""

    text: str
    spans: tuple[tuple[int, str], ...]  # where in `text` each message ends, and whose it is

    def role_at(self, place: int) -> str:
        """Whose the character at `place` is; what follows the last message is the assistant's."""
        return next((role for end, role in self.spans if place < end), "assistant")


def chat_prompt(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> ChatPrompt:
    """The prompt that asks for an answer to `messages` (`role`, `content`). What the template
    writes in front of a message belongs to it.

    Raises UserError without messages or template, and for messages that the template refuses.
    """
    render = chat_renderer(tokenizer, reply=True)
    so_far = chat_renderer(tokenizer)
    if render is None or so_far is None:
        raise UserError("this model has no chat template", hint="write a plain prompt")
    if not messages:
        raise UserError("the conversation is empty", hint="write a message")
    said = [{"role": one["role"], "content": one["content"]} for one in messages]
    try:
        text = render(said)
    except ValueError as error:
        raise UserError(str(error)) from error
    spans, end = [], 0
    for number, one in enumerate(said, 1):
        end = _end_of(so_far, said[:number], text, one["content"], end)
        spans.append((end, one["role"]))
    return ChatPrompt(text, tuple(spans))


def _end_of(
    so_far: Callable[[list[dict[str, Any]]], str],
    said: list[dict[str, Any]],
    text: str,
    content: str,
    start: int,
) -> int:
    """Where in `text` the last of `said` ends: where the conversation up to it does, if the text
    begins with that, else after its content."""
    try:
        before = so_far(said)
    except ValueError:  # some templates refuse a conversation without a question
        before = ""
    if before and text.startswith(before):
        return len(before)
    found = text.find(content.strip(), start)
    return start if found < 0 else found + len(content.strip())


def token_roles(tokenizer: Any, prompt: ChatPrompt, ids: Sequence[int]) -> list[str]:
    """Whose each of the tokens `ids` of a prompt is, as the model reads it; a BOS token that was
    put in front belongs to the first message."""
    plain = tokenizer(
        prompt.text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast
    )
    if tokenizer.is_fast:
        starts = [start for start, _ in plain["offset_mapping"]]
    else:
        own = plain["input_ids"]
        starts = [len(tokenizer.decode(own[:number])) for number in range(len(own))]
    added = max(len(ids) - len(starts), 0)
    return [prompt.role_at(start) for start in [0] * added + starts][: len(ids)]


def template_writes(tokenizer: Any, start: int | None) -> bool:
    """Whether the chat template begins a conversation with the token `start`."""
    render = chat_renderer(tokenizer)
    if render is None or start is None:
        return False
    try:
        text = render([{"role": "user", "content": "a"}])
    except ValueError:
        return False
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])[:1] == [start]


def read_conversation(text: str) -> list[dict[str, str]]:
    """The messages of a conversation as people type it: each begins with a line `user: ...`,
    `assistant: ...`, `system: ...` or `tool: ...` and goes on until the next; a text without any is
    a user's message. A JSON list of messages with `role` and `content` is read too.

    Raises UserError for an empty one, and for JSON that is something else.
    """
    if text.lstrip().startswith("[{"):
        return _messages(text)
    found: list[tuple[str, list[str]]] = []
    for line in text.strip().split("\n"):
        match = _ROLE.fullmatch(line)
        if match is not None:
            found.append((match[1].lower(), [match[2]]))
        elif found:
            found[-1][1].append(line)
        else:
            found.append(("user", [line]))
    said = [{"role": role, "content": "\n".join(lines).strip()} for role, lines in found]
    if not any(one["content"] for one in said):
        raise UserError("the conversation is empty", hint="write user: and a message")
    return said


def _messages(text: str) -> list[dict[str, str]]:
    from mi_crow.store.json_file import parse_json

    found = parse_json(text, "a conversation")
    right = isinstance(found, list) and all(
        isinstance(one, dict) and isinstance(one.get("content"), str) and one.get("role") in _ROLES
        for one in found
    )
    if not right:
        raise UserError(
            "the conversation is not a list of messages",
            hint='write [{"role": "user", "content": "..."}], or lines that begin with user:',
        )
    return [{"role": one["role"], "content": one["content"]} for one in found]


def chat_text(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """A conversation through the model's template, special tokens as text; after a user's message
    the assistant's answer begins. Raises UserError like `chat_prompt`."""
    prompt = chat_prompt(tokenizer, messages)
    if messages[-1]["role"] != "assistant":
        return prompt.text
    return prompt.text[: prompt.spans[-1][0]]

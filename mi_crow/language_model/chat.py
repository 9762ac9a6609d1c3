"""Conversations to text with a tokenizer's own chat template."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

# Some templates write today's date; a run must not depend on the day on which it resumes.
_TODAY = datetime(2025, 1, 1)
_DATE = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


def chat_renderer(tokenizer: Any) -> Callable[[list[dict[str, Any]]], str] | None:
    """A function that turns a conversation into one text, special tokens included; None without a
    chat template.

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
            return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
        except (TemplateError, TypeError, KeyError) as error:
            raise ValueError(f"the chat template refuses it ({error})") from error

    return render


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

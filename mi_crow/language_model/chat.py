"""Conversations to text by a tokenizer's own chat template."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

# Some templates write today's date; a run must not depend on the day it goes on.
_TODAY = datetime(2025, 1, 1)


def chat_renderer(tokenizer: Any) -> Callable[[list[dict[str, Any]]], str] | None:
    """Makes one text of a conversation, special tokens included; None without a chat template.

    The messages have `role` and `content`. The function raises ValueError for a conversation that
    the template refuses, such as one whose roles do not alternate.
    """
    from jinja2.exceptions import TemplateError

    try:
        tokenizer.get_chat_template()
    except (AttributeError, ValueError):
        return None

    def render(messages: list[dict[str, Any]]) -> str:
        try:
            return tokenizer.apply_chat_template(
                messages, tokenize=False, strftime_now=_TODAY.strftime
            )
        except (TemplateError, TypeError, KeyError) as error:
            raise ValueError(f"the chat template refuses it ({error})") from error

    return render

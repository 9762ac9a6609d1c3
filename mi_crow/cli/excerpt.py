"""Tokens of the index as they are printed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import Example

_AROUND = 10  # tokens printed on either side of the strongest one
_LONGEST_TOKEN = 40  # characters printed of one


def short_token(token: str) -> str:
    """A token cut to print: some are thousands of characters long."""
    return token if len(token) <= _LONGEST_TOKEN else f"{token[:_LONGEST_TOKEN]}…"


def excerpt(example: "Example") -> str:
    """The tokens around the strongest one of an example, which is marked by «»."""
    peak = max(range(len(example.tokens)), key=lambda i: example.acts[i])
    first = max(0, peak - _AROUND)
    tokens = [short_token(token) for token in example.tokens[first : peak + _AROUND + 1]]
    peak -= first
    return f"{''.join(tokens[:peak])}«{tokens[peak]}»{''.join(tokens[peak + 1 :])}".strip()

"""The sampler: templates with slots, optional parts and choices, expanded at random.

A template is plain text with four signs:

    {name}       one entry of the word list `name`, itself a template
    {name:form}  the same, its verb put into the form `past`, `s`, `ing`, or its noun into `pl`
    [text]       present half of the time
    (a|b|c)      one of them

A clause entry `subject / verb rest` holds a subject and a verb in its base form, which then agree;
`//` says that the subject is plural where its last word does not show it. `a_` becomes `a` or `an`;
`^` makes the next letter a capital. A slot in capitals keeps its first filling for the passage.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from sample_data.grammar.inflection import inflect_verb, is_plural, plural

Node = str | tuple
WordLists = Mapping[str, tuple[str, ...]]

# Entries that should not come back within one passage; drawn again a few times when they do.
_UNREPEATED = {"vp", "hap", "fact", "line", "neutral", "open", "n", "stuff", "idea", "cause"}


def words(**lists: str) -> dict[str, tuple[str, ...]]:
    """Word lists from strings: one entry a line where there are lines, else separated by commas."""
    parsed = {}
    for name, text in lists.items():
        separator = "\n" if "\n" in text.strip() else ","
        entries = (entry.strip() for entry in text.split(separator))
        parsed[name] = tuple(entry for entry in entries if entry)
    return parsed


@dataclass
class Context:
    """What one passage draws from: its random numbers, its word lists, and what it said before."""

    rng: random.Random
    lists: WordLists
    fallback: WordLists
    remembered: dict[str, str] = field(default_factory=dict)
    used: set[tuple[str, str]] = field(default_factory=set)

    def entries(self, name: str) -> tuple[str, ...]:
        found = self.lists.get(name) or self.fallback.get(name)
        if not found:
            raise KeyError(f"no word list is called {name!r}")
        return found

    def pick(self, name: str) -> str:
        entries = self.entries(name)
        choice = self.rng.choice(entries)
        if name in _UNREPEATED:
            for _ in range(6):
                if (name, choice) not in self.used:
                    break
                choice = self.rng.choice(entries)
            self.used.add((name, choice))
        return choice


def expand(context: Context, template: str) -> str:
    """The template with every slot filled, before `finish` sets articles and capitals."""
    return _expand_nodes(context, _parse(template))


def finish(text: str) -> str:
    """Set articles, capitals and spaces right."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([,.;:?!])", r"\1", text)
    text = re.sub(r",([.;?!])", r"\1", text)
    text = re.sub(r"\b([aA])_ (\w+)", _article, text)
    return re.sub(r"\^([^\w^]*)(\w)", lambda match: match[1] + match[2].upper(), text)


def _article(match: re.Match[str]) -> str:
    article, word = match[1], match[2]
    lower = word.lower()
    vowel = lower[0] in "aeiou" and not lower.startswith(("unit", "use", "usu", "one"))
    vowel = vowel or lower.startswith(("hour", "honest")) or lower == "x"
    return f"{article}{'n' if vowel else ''} {word}"


def _expand_nodes(context: Context, nodes: tuple[Node, ...]) -> str:
    return "".join(node if isinstance(node, str) else _expand_node(context, node) for node in nodes)


def _expand_node(context: Context, node: tuple) -> str:
    kind = node[0]
    if kind == "slot":
        return _expand_slot(context, node[1], node[2])
    if kind == "optional":
        return _expand_nodes(context, node[1]) if context.rng.random() < 0.5 else ""
    return _expand_nodes(context, context.rng.choice(node[1]))


def _expand_slot(context: Context, name: str, form: str) -> str:
    """Fill a slot; a name in capitals is drawn once and then stays the same in the passage."""
    if name == "num":
        return str(context.rng.randint(3, 95))
    if name.isupper():
        if name not in context.remembered:
            context.remembered[name] = expand(context, context.pick(name))
        text = context.remembered[name]
    else:
        text = expand(context, context.pick(name))
    if form == "pl":
        return plural(text)
    if "/" in text:
        return _conjugate_clause(text, form or "s")
    if form:
        return _conjugate(text, form)
    return text.replace("+", "")


def _conjugate_clause(text: str, form: str) -> str:
    many = "//" in text
    subject, _, predicate = text.partition("//" if many else "/")
    many = many or is_plural(subject)
    verb_form = {"s": "plural", "past": "past_plural"}.get(form, form) if many else form
    return f"{subject.strip()} {_conjugate(predicate.strip(), verb_form)}"


def _conjugate(text: str, form: str) -> str:
    """The first verb, and every other one marked with `+`, in the wanted form (or as it is)."""
    return re.sub(r"^(\w+)|\+(\w+)", lambda match: inflect_verb(match[1] or match[2], form), text)


@cache
def _parse(template: str) -> tuple[Node, ...]:
    nodes, end = _parse_until(template, 0, "")
    if end != len(template):
        raise ValueError(f"unbalanced template: {template!r}")
    return nodes


def _parse_until(text: str, at: int, closers: str) -> tuple[tuple[Node, ...], int]:
    """Nodes from `at` up to one of `closers` (or the end), and where that is."""
    nodes: list[Node] = []
    literal = ""
    while at < len(text) and text[at] not in closers:
        sign = text[at]
        if sign not in "{[(":
            literal, at = literal + sign, at + 1
            continue
        if literal:
            nodes.append(literal)
            literal = ""
        node, at = _parse_sign(text, at)
        nodes.append(node)
    if literal:
        nodes.append(literal)
    return tuple(nodes), at


def _parse_sign(text: str, at: int) -> tuple[Node, int]:
    if text[at] == "{":
        end = text.index("}", at)
        name, _, form = text[at + 1 : end].partition(":")
        return ("slot", name, form), end + 1
    if text[at] == "[":
        inner, end = _parse_until(text, at + 1, "]")
        return ("optional", inner), end + 1
    choices = []
    while text[at] != ")":
        inner, at = _parse_until(text, at + 1, "|)")
        if at == len(text):
            raise ValueError(f"unbalanced template: {text!r}")
        choices.append(inner)
    return ("choice", tuple(choices)), at + 1

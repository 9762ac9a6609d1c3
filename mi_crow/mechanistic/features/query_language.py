"""One line of text that says which features are wanted and in which order. Torch-free.

    rain -sport density<1% max>5 label:weather tag:"to check" on:"the harbour" sort:auroc:weather
    like:42 like:"texts about the sea"

Words are searched for, a `-` in front turns a word or a condition round, quotes keep spaces, colons
and signs as they are. The app's filter line and `mi-crow features` take the same text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mi_crow.bounds import without_commas
from mi_crow.errors import UserError, nearest
from mi_crow.mechanistic.features.catalogue import (
    BY_LABEL,
    COLUMNS,
    KINDS,
    LAYER,
    OF_CONCEPTS,
    ORIGIN,
    starts_with_least,
)
from mi_crow.mechanistic.sae.cross_layer.origins import ORIGINS

# Conditions on numbers, by name: the column of the index and what it says.
NUMBERS: Mapping[str, tuple[str, str]] = {
    column.name: (column.key, column.help)
    for column in COLUMNS
    if column.is_number and column.name not in ("feature", *OF_CONCEPTS)
}
# Conditions on words, by name.
WORDS: Mapping[str, str] = {
    "label": "its best label is this",
    "concept": "a name of it contains this",
    "tag": "it has this tag",
    "named": "yes or no: it has a name",
    "note": "yes or no: it has a note",
    "source": "who named it: user, auto, import, ..",
    "on": "it is strong in the indexed documents that contain this text",
    "like": "it is about what this text says, or its decoder row is near this feature's",
    "token": "it promotes a token that contains this",
    "proposed": "its proposed name contains this",
    LAYER: "its layer is this: 2, 1,3-5 or resid_post.2; layer>2 compares",
    ORIGIN: f"which of two models it is of: {', '.join(ORIGINS)}",
    "kind": f"its kind is this: {', '.join(KINDS)}",
    "feature": "its number is one of these, such as 7,400-405",
}
ORDERS: Mapping[str, str] = {
    "feature": "feature",
    "label": "top_label",
    "concept": "concept",
    **{column.name: column.sort for column in COLUMNS if column.name != "meaning"},
    "relevance": "relevance",
}
_SORT = "sort"
_NO_OPERATORS = ("AND", "OR", "NOT", "|", "||", "&", "&&")  # of other query languages
_NOT = re.compile(r"!(?P<term>[A-Za-z_\"].*)", re.DOTALL)
_SIGNED = re.compile(r"(?P<sign><=|>=|<|>|=)(?P<value>.+)")
_UNEQUAL = re.compile(r"(?P<name>[A-Za-z_]+):?(!=|<>|!)(?P<value>.*)", re.DOTALL)
_TERM = re.compile(r"""\s*(?P<term>(?:[^\s"]+|"[^"]*"?)+)""")
_QUOTED = re.compile(r'"(?P<inside>(?:[^"]|"")*)"')  # a quote in it is written twice
_CONDITION = re.compile(r"(?P<name>[A-Za-z_]+)(?P<sign>:|<=|>=|<|>|=)(?P<value>.*)", re.DOTALL)
_FEATURES = re.compile(r"[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*")
_YES = {"yes": True, "no": False}
# Numbers as the tables write them: 1,200, 80.9k, 0.5%.
_UNITS = {"k": 1_000, "K": 1_000, "M": 1_000_000}
_APART = re.compile(r"(<=|>=|<|>|=)([0-9.,]+[%kKM]?)?")  # the rest of a condition with spaces


class QueryError(UserError):
    """What is wrong in a query: `reason`, and from `start` to `end` the place in its text."""

    def __init__(self, message: str, start: int, end: int, hint: str = "") -> None:
        super().__init__(f"{message} (character {start + 1})", hint=hint)
        self.reason = message
        self.start = start
        self.end = end


@dataclass(frozen=True)
class Condition:
    """One condition. `value` is a number, True or False, a feature's number, or a text. It stands
    from `start` to `end` in the text."""

    name: str  # of NUMBERS or WORDS; empty: a word that is searched for
    sign: str
    value: float | int | bool | str
    negated: bool = False
    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)


@dataclass(frozen=True)
class FeatureQuery:
    """A query as it was understood."""

    search: str = ""
    conditions: tuple[Condition, ...] = ()
    sort: str | None = None  # of the index's orders, or `auroc:` and a label
    descending: bool | None = None  # None: as suits the order

    @property
    def ranks(self) -> bool:
        """Whether it says which features match better than others."""
        scored = any(one.name in ("on", "like") and not one.negated for one in self.conditions)
        return bool(self.search) or scored

    @property
    def orders(self) -> bool:
        """Whether it has an order of its own, by its words or by `sort:`."""
        return self.ranks or self.sort is not None


def parse_query(text: str) -> FeatureQuery:
    """The query that `text` says. Raises QueryError, which names the place."""
    words: list[str] = []
    conditions: list[Condition] = []
    sort: tuple[str | None, bool | None] = None, None
    before = ""
    for term, start in _terms(text):
        end = start + len(term)
        negated = term.startswith("-") and len(term) > 1
        bare = term[1:] if negated else term
        found = _CONDITION.fullmatch(bare)
        if before in NUMBERS and (apart := _APART.fullmatch(bare)):
            hint = f"write it in one piece: {before}{apart[1]}{apart[2] or '0.5'}"
            raise QueryError("a condition has no spaces", start, end, hint)
        before = bare.lower()
        if bare in _NO_OPERATORS:
            raise QueryError(
                f"{bare} is not an operator here",
                start,
                end,
                f'all conditions must hold, a leading - excludes; write "{bare}" for the word',
            )
        _refuse_unequal(bare, start, end)
        if found is None or bare.startswith('"'):
            word = _unquoted(bare, start, end)
            if negated:
                conditions.append(Condition("", ":", word, True, start, end))
            elif word:
                words.append(word)
            continue
        name, sign, raw = found["name"].lower(), found["sign"], found["value"]
        value = _unquoted(raw, start, end)
        _refuse_two_signs(name, sign, raw, start, end)
        if name == _SORT:
            sort = _order(value, negated, start, end)
        elif name in NUMBERS or (name == LAYER and sign not in (":", "=")):
            sign, number = _number(name, sign, value, start, end)
            conditions.append(Condition(name, sign, number, negated, start, end))
        elif name in WORDS:
            wanted = _word(name, sign, value, start, end)
            conditions.append(Condition(name, ":", wanted, negated, start, end))
        else:
            known = (*NUMBERS, *WORDS, _SORT)
            raise QueryError(
                f"{name!r} is not a condition", start, end, f"there is {nearest(name, known)}"
            )
    return FeatureQuery(" ".join(words), tuple(conditions), *sort)


def _refuse_unequal(bare: str, start: int, end: int) -> None:
    """Raises QueryError for `label!=weather` and `!rain`, which would be searched for."""
    if excluded := _NOT.fullmatch(bare):
        hint = f"a leading - does: -{excluded['term']}"
        raise QueryError("a leading ! does not exclude", start, end, hint)
    found = _UNEQUAL.fullmatch(bare)
    if found is None or (name := found["name"].lower()) not in (*NUMBERS, *WORDS):
        return
    sign = ":" if name in WORDS else "="
    value = found["value"].lstrip("=") or ".."
    hint = f"a leading - excludes: -{name}{sign}{value}"
    raise QueryError("no sign means 'not equal'", start, end, hint)


def _refuse_two_signs(name: str, sign: str, raw: str, start: int, end: int) -> None:
    """Raises QueryError for `density==0.5`, `density=<0.5` and `label==weather`."""
    meant = _SIGNED.fullmatch(raw) if sign == "=" else None
    if meant is None or name not in (*NUMBERS, *WORDS):
        return
    first = meant["sign"][0]
    compares = first in "<>" and (name in NUMBERS or name == LAYER)
    right = f"{first}=" if compares else ":" if name in WORDS else "="
    raise QueryError(
        f"{sign}{first} is not a sign", start, end, f"write {name}{right}{meant['value']}"
    )


def _sign(name: str) -> str:
    """The sign that most often follows a condition's name."""
    if name in NUMBERS:
        return "<" if name == "density" else ">"
    return ":"


# All that can be asked for, on one line: a narrow one ends after what is wanted most.
_WANTED_MOST = ("density", "label", "tag", "on", "like", _SORT)
REFERENCE = " ".join(
    (
        "words",
        "-not",
        *(f"{name}{_sign(name)}" for name in dict.fromkeys((*_WANTED_MOST, *WORDS, *NUMBERS))),
    )
)


def completions(text: str, vocabulary: Mapping[str, Iterable[str]]) -> list[str]:
    """`text` with its last term completed in every way that is known, the likeliest first.

    `vocabulary` gives the values of `label`, `concept`, `tag` and `source`.
    """
    head, last = _last_term(text)
    sign = "-" if last.startswith("-") else ""
    bare = last.removeprefix(sign)
    if not bare:
        return []
    name, colon, typed = bare.partition(":")
    if not colon:
        known = [f"{name}{_sign(name)}" for name in (*WORDS, _SORT, *NUMBERS)]
        begun = bare.lower()
        return [f"{head}{sign}{word}" for word in known if word.startswith(begun) and word != begun]
    values = _values(name, vocabulary)
    typed = typed.removeprefix('"').replace('""', '"').casefold()
    return [
        f"{head}{sign}{name}:{_quoted(value)}"
        for value in values
        if value.casefold().startswith(typed) and value.casefold() != typed
    ]


def _values(name: str, vocabulary: Mapping[str, Iterable[str]]) -> Sequence[str]:
    if name in ("named", "note"):
        return tuple(_YES)
    if name == "kind":
        return tuple(KINDS)
    if name == ORIGIN:
        return ORIGINS
    if name == _SORT:
        return (*ORDERS, *(f"{BY_LABEL}{label}" for label in vocabulary.get("label", ())))
    return tuple(vocabulary.get(name, ()))


def _quoted(value: str) -> str:
    doubled = value.replace('"', '""')
    return f'"{doubled}"' if re.search(r'[\s"]', value) else value


def _last_term(text: str) -> tuple[str, str]:
    """What is before the last term, and the term."""
    terms = list(_terms(text))
    if not terms or (text[-1:].isspace() and text.count('"') % 2 == 0):
        return text, ""
    term, start = terms[-1]
    return text[:start], term


def _terms(text: str) -> Iterator[tuple[str, int]]:
    for match in _TERM.finditer(text):
        yield match["term"], match.start("term")


def _unquoted(value: str, start: int, end: int) -> str:
    if value.count('"') % 2:
        raise QueryError("a quote is not closed", start, end, 'close it with "')
    return _QUOTED.sub(lambda found: found["inside"].replace('""', '"'), value).strip()


def _number(name: str, sign: str, raw: str, start: int, end: int) -> tuple[str, float]:
    value = _float(raw)
    if sign == ":":
        number = "0.5" if value != value else raw
        hint = f"compare it: {name}>{number}, {name}<{number} or {name}={number}"
        if _SIGNED.fullmatch(raw):
            hint = f"write {name}{raw}"
        label = re.split("[<>=]", raw)[0]
        if f"{name}:" == BY_LABEL and label and value != value:
            hint = f"write label:{_quoted(label)} auroc>0.9, or sort:auroc:{_quoted(label)}"
        raise QueryError(f"{name!r} is a number", start, end, hint)
    if value != value or abs(value) == float("inf"):
        reason = f"{raw!r} is not a number" if raw else f"{name}{sign} needs a number"
        raise QueryError(reason, start, end, f"for example {name}{sign}0.01")
    return sign, value


def _float(raw: str) -> float:
    """The number, NaN where it is none."""
    unit = raw[-1:]
    number = raw[:-1] if unit == "%" or unit in _UNITS else raw
    try:
        value = float(without_commas(number))
        return value / 100 if unit == "%" else value * _UNITS.get(unit, 1)
    except ValueError:
        return float("nan")


def _word(name: str, sign: str, value: str, start: int, end: int) -> int | bool | str:
    if sign not in (":", "="):
        raise QueryError(f"{name!r} cannot be compared", start, end, f"write {name}:{value}")
    if not value:
        raise QueryError(f"{name}: needs a value", start, end, WORDS[name])
    if name in ("named", "note"):
        if value.lower() not in _YES:
            raise QueryError(f"{value!r} is not yes or no", start, end, f"write {name}:yes")
        return _YES[value.lower()]
    if name == "kind" and value.lower() not in KINDS:
        raise QueryError(
            f"{value!r} is not a kind", start, end, f"there is {nearest(value, KINDS, len(KINDS))}"
        )
    if name == ORIGIN and value.lower() not in ORIGINS:
        raise QueryError(
            f"{value!r} is not an origin",
            start,
            end,
            f"there is {nearest(value, ORIGINS, len(ORIGINS))}",
        )
    if name == "feature" and not (_FEATURES.fullmatch(value) and all(ranges_in(value))):
        raise QueryError(f"{value!r} are no features", start, end, "write feature:7,400-405")
    if name == "like":
        number = value.removeprefix("#")
        if number.isascii() and number.isdigit() and len(number) < 10:
            return int(number)
        if not any(character.isalnum() for character in number):
            hint = 'write like:42 or like:"texts about the sea"'
            raise QueryError(f"{value!r} has no word and is not a feature", start, end, hint)
    return value


def ranges_in(value: str) -> list[range]:
    """The numbers that `feature:` names.

    >>> ranges_in("7,400-402")
    [range(7, 8), range(400, 403)]
    """
    ends = (part.partition("-") for part in value.split(","))
    return [range(int(first), int(last or first) + 1) for first, _, last in ends]


def _order(value: str, ascending: bool, start: int, end: int) -> tuple[str, bool | None]:
    """The order of `sort:`; `-sort:`, or a `-` before the order, turns it round."""
    if value.startswith("-"):
        value, ascending = value[1:], not ascending
    if value.startswith(BY_LABEL) and len(value) > len(BY_LABEL):
        return value, not ascending
    if value not in ORDERS:
        raise QueryError(
            f"{value!r} is not an order" if value else f"{_SORT}: needs an order",
            start,
            end,
            f"there is {nearest(value, (*ORDERS, f'{BY_LABEL}LABEL'))}",
        )
    first = starts_with_least(ORDERS[value])
    return ORDERS[value], first if ascending else not first

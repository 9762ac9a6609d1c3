"""The published SAEs that can be imported by name, and the search among them. Torch-free."""

import re
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mi_crow.errors import UserError
from mi_crow.store.columnar.parquet import parquet_look

TABLE = Path(__file__).with_name("published.parquet")
CHECKED = 2000  # tokens that the fit of a chosen one is measured on
_BYTES = 4  # of a stored number; a few publishers store two
QUERY_HELP = "words, and conditions such as layer:12 width:65k l0<60 point:resid_post cached:yes"


@dataclass(frozen=True)
class PublishedSae:
    """One SAE, transcoder or set of them on the hub. What its publisher does not say is None or
    empty.

    release, name: what its publishers' lists call it.
    width: number of latents; inputs: numbers a token at the hook point.
    l0: average number of active latents a token, as its publisher measured it.
    target: the hook point that a transcoder predicts.
    scale, centred: what its files leave out; see the import's options of the same name.
    """

    release: str
    name: str
    model: str
    layer: int | None
    hook_point: str
    target: str
    width: int | None
    l0: float | None
    inputs: int | None
    format: str
    repository: str
    path: str
    licence: str
    neuronpedia: str
    scale: float | None
    centred: bool
    cached: bool = False  # its files are on this machine

    @property
    def source(self) -> str:
        """What `mi-crow import` takes: org/name, or org/name/folder."""
        return f"{self.repository}/{self.path}" if self.path else self.repository

    @property
    def bytes(self) -> int | None:
        """About how large its files are: an encoder and a decoder in fp32; None: not known."""
        if self.width is None or self.inputs is None:
            return None
        return 2 * self.width * self.inputs * _BYTES

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"source": self.source, "bytes": self.bytes}


@dataclass(frozen=True)
class Found:
    """What a search found: the first of them, and how many there are."""

    saes: list[PublishedSae]
    total: int


def search(query: str = "", most: int | None = None) -> Found:
    """The SAEs for which every word of the query is in a name and every condition holds, by
    model, release and layer; at most `most` of them.

    Conditions: `layer`, `width`, `l0`, `model`, `point`, `release`, `format`, `cached`, with `:`
    and, for numbers, `<`, `<=`, `>`, `>=`. What is not known meets no condition. Raises UserError
    for a condition that makes no sense, CorruptDataError or MachineError for the table.
    """
    here = _cached_files()
    tests = [_test(word, here) for word in query.split()]
    where = " AND ".join(["true", *(test for test, _ in tests)])
    values = [value for _, some in tests for value in some]
    limit = "" if most is None else f"LIMIT {most:d}"
    with parquet_look() as look:
        rest = f"WHERE {where} ORDER BY file_row_number {limit}"
        rows = look.ask(TABLE, "* EXCLUDE file_row_number", rest, values)
        total = len(rows)
        if total == most:
            total = look.ask(TABLE, "count(*) AS total", f"WHERE {where}", values)[0]["total"]
    return Found([PublishedSae(**row, cached=_is_here(row, here)) for row in rows], total)


def published_as(source: str) -> PublishedSae | None:
    """The SAE that `mi-crow import` takes as `source`; None when it is not in the table. Raises
    CorruptDataError or MachineError for the table."""
    where = (
        "WHERE repository || if(path = '', '', '/') || path = ? ORDER BY file_row_number LIMIT 1"
    )
    with parquet_look() as look:
        rows = look.ask(TABLE, "* EXCLUDE file_row_number", where, [source])
    return PublishedSae(**rows[0]) if rows else None


_POWERS: dict[float, float] = {65: 64, 131: 128, 262: 256, 524: 512}
_NUMBERS = ("layer", "width", "l0")
_TEXTS = {"model": "model", "point": "hook_point", "release": "release", "format": "format"}
_CONDITION = re.compile(r"([a-z]\w*)(<=|>=|[:=<>])(.*)", re.IGNORECASE)
_NAMES = (
    "lower(concat_ws(' ', release, name, model, hook_point, target, format, repository, path, "
    "neuronpedia, if(target = '', 'sae', 'transcoder')))"
)
_HERE = "list_contains(?, repository || '/' || path)"

_Test = tuple[str, list[Any]]
"""A condition in SQL, and the values of its question marks."""


def _test(word: str, here: Mapping[str, Set[str]]) -> _Test:
    match = _CONDITION.fullmatch(word)
    if match is None:
        return f"contains({_NAMES}, ?)", [word.lower()]
    name, sign, value = match[1].lower(), match[2], match[3]
    if name in _NUMBERS:
        return f"{name} {'=' if sign == ':' else sign} ?", [_number(name, value)]
    if sign not in ":=":
        raise UserError(f"{word!r} compares with {sign}, which only numbers can")
    if name in _TEXTS:
        return f"contains(lower({_TEXTS[name]}), ?)", [value.lower()]
    if name != "cached":
        known = [*_NUMBERS, *_TEXTS, "cached"]
        hint = f"conditions are {', '.join(known)}"
        raise UserError(f"{name!r} is not a condition of the library", hint=hint)
    if value not in ("yes", "no"):
        raise UserError(f"cached is yes or no, not {value!r}")
    names = [f"{one}/{name}" for one, files in here.items() for name in ("", *files)]
    return (_HERE if value == "yes" else f"NOT {_HERE}"), [names]


def _number(name: str, text: str) -> float:
    """`65k` is 64 x 1024, as publishers write it, and so is 65536."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([km]?)", text.lower())
    if match is None:
        raise UserError(
            f"{name} needs a number, not {text!r}", hint=f"such as {name}:12, {name}<64"
        )
    if not match[2]:
        return float(match[1])
    return binary(float(match[1])) * (1024 if match[2] == "k" else 2**20)


def binary(count: float) -> float:
    """The power of two that is meant by 65, 131, 262 or 524 thousand."""
    return _POWERS.get(count, count)


def _cached_files() -> Mapping[str, Set[str]]:
    """The files of repositories in the hub's cache, and the folders that they are in."""
    from huggingface_hub import constants

    found: dict[str, set[str]] = {}
    for folder in Path(constants.HF_HUB_CACHE).glob("models--*--*/snapshots/*"):
        names = found.setdefault("/".join(folder.parent.parent.name.split("--")[1:]), set())
        for file in folder.rglob("*"):
            names.add(file.relative_to(folder).as_posix())
    return found


def _is_here(row: dict[str, Any], here: Mapping[str, Set[str]]) -> bool:
    names = here.get(row["repository"], set())
    return row["path"] in names if row["path"] else bool(names)

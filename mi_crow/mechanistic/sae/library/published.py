"""The published SAEs that can be imported by name, and the search among them. Torch-free."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.library.cache import Cached, cached_files
from mi_crow.store.columnar.parquet import ParquetLook, parquet_look

TABLE = Path(__file__).with_name("published.parquet")
CHECKED = 2000  # tokens that the fit of a chosen one is measured on
_KEPT = 8  # answers
QUERY_HELP = "words, layer:12 width:65k l0<60 size<1GB point:resid kind:clt sort:l0"


@dataclass(frozen=True)
class PublishedSae:
    """One SAE, transcoder or set of them on the hub. What its publisher does not say is None or
    empty.

    release, name: what its publishers' lists call it.
    kind: `sae`, `transcoder`, `clt` or `crosscoder`; the last two are of several `layers`.
    width: number of latents, of all layers; inputs: numbers a token at the hook point.
    l0: average number of active latents a token, as its publisher measured it.
    target: the hook point that a transcoder predicts.
    bytes: of its files, computed from the tensors that such files hold; a publisher may have
        compressed them.
    variant: what tells it from others of its place, width and L0, such as `trainer 3`.
    scale, centred: what its files leave out; see the import's options of the same name.
    """

    release: str
    name: str
    kind: str
    model: str
    layer: int | None
    layers: tuple[int, ...]
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
    variant: str
    bytes: int | None
    cached: bool = False  # its files are on this machine

    @property
    def source(self) -> str:
        """What `mi-crow import` takes: org/name, or org/name/folder."""
        return f"{self.repository}/{self.path}" if self.path else self.repository

    @property
    def place(self) -> str:
        """What it reads, and what it predicts where that is something else."""
        return " → ".join(filter(None, (self.hook_point, self.target)))

    @property
    def memory(self) -> int | None:
        """Bytes that an import takes: the tensors, and a second copy of one of two matrices."""
        if self.bytes is None:
            return None
        kept = 1.0
        if self.layers and self.format == "Gemma Scope 2":  # decoders to earlier layers stay away
            number = len(self.layers)
            kept = (number + 3) / (2 * number + 2)
        return int(self.bytes * kept * 3 / 2)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"source": self.source, "memory": self.memory}


@dataclass(frozen=True)
class Found:
    """What a search found: the first of them, how many there are, and for how many models."""

    saes: list[PublishedSae]
    total: int
    models: int


# The table does not change, so that an answer holds as long as the cache has the same files.
_latest: dict[tuple[str, int | None], tuple[Cached, Found]] = {}


def search(query: str = "", most: int | None = None) -> Found:
    """The SAEs for which every word of the query is in a name and every condition holds, by
    model, release and layer, or as `sort:` says; at most `most` of them.

    Conditions: `layer`, `width`, `l0`, `size`, `model`, `point`, `release`, `format`, `kind`,
    `cached`, with `:` and, for numbers, `<`, `<=`, `>`, `>=`. `layer` holds for an SAE over several
    layers if it does for one of them. What is not known meets no condition, and comes last in any
    order. Raises UserError for a condition that makes no sense, CorruptDataError or MachineError
    for the table.
    """
    here = cached_files()
    before = _latest.get((query, most))
    if before is not None and before[0].repositories == here.repositories:
        return before[1]
    found = _asked(query, most, here)
    _latest[query, most] = here, found
    while len(_latest) > _KEPT:
        _latest.pop(next(iter(_latest)), None)
    return found


def _asked(query: str, most: int | None, here: Cached) -> Found:
    order = "file_row_number"
    tests: list[_Test] = []
    for word in query.split():
        if (wanted := re.fullmatch(r"sort[:=](-?)(.*)", word, re.IGNORECASE)) is not None:
            order = f"{_order(wanted[2], descending=bool(wanted[1]))}, file_row_number"
        else:
            tests.append(_test(word, here))
    where = " AND ".join(["true", *(test for test, _ in tests)])
    values = [value for _, some in tests for value in some]
    limit = "" if most is None else f"LIMIT {most:d}"
    with parquet_look() as look:
        rest = f"WHERE {where} ORDER BY {order} {limit}"
        rows = look.ask(TABLE, "* EXCLUDE file_row_number", rest, values)
        total, models = len(rows), len({row["model"] for row in rows})
        if total == most:
            counts = "count(*) AS total, count(DISTINCT model) AS models"
            total, models = look.ask(TABLE, counts, f"WHERE {where}", values)[0].values()
        others = _others(query, here, look)
    saes = [_published(row, here) for row in rows]
    return Found([*saes, *others][:most], total + len(others), models + bool(others))


def _published(row: dict[str, Any], here: Mapping[str, int]) -> PublishedSae:
    row["layers"] = tuple(row["layers"])
    files = max(1, len(row["layers"]) * (2 if row["format"] == _TWO_A_LAYER else 1))
    cached = here.get(f"{row['repository']}/{row['path']}", 0) >= files
    return PublishedSae(**row, cached=cached)


def _others(query: str, here: Cached, look: ParquetLook) -> list[PublishedSae]:
    """What the hub's cache holds and the table does not know, where `cached:yes` asks for that; of
    such SAEs only names are known."""
    words = query.lower().split()
    rest = [word for word in words if word != "cached:yes" and not word.startswith("sort")]
    if len(rest) == len(words) or any(_CONDITION.fullmatch(word) for word in rest):
        return []
    found = [
        PublishedSae(
            release=repository.rpartition("/")[2],
            name=label,
            kind="",
            model="",
            layer=None,
            layers=(),
            hook_point="",
            target="",
            width=None,
            l0=None,
            inputs=None,
            format=kind,
            repository=repository,
            path=label,
            licence="",
            neuronpedia="",
            scale=None,
            centred=False,
            variant="",
            bytes=None,
            cached=True,
        )
        for repository, label, kind in here.saes()
    ]
    named = [sae for sae in found if all(word in sae.source.lower() for word in rest)]
    where = f"WHERE list_contains(?, {_SOURCE})"
    known = look.ask(TABLE, f"{_SOURCE} AS source", where, [[sae.source for sae in named]])
    listed = {row["source"] for row in known}
    return [sae for sae in named if sae.source not in listed]


def published_as(source: str) -> PublishedSae | None:
    """The SAE that `mi-crow import` takes as `source`, whether it is cached or not; None when it is
    not in the table. Raises
    CorruptDataError or MachineError for the table."""
    where = f"WHERE {_SOURCE} = ? ORDER BY file_row_number LIMIT 1"
    with parquet_look() as look:
        rows = look.ask(TABLE, "* EXCLUDE file_row_number", where, [source])
    return _published(rows[0], {}) if rows else None


ORDERS = {
    "layer": "coalesce(layer, layers[1])",
    "width": "width",
    "l0": "l0",
    "size": "bytes",
    "model": "lower(model)",
    "release": "lower(release)",
    "source": "lower(repository || '/' || path)",
}
"""What `sort:` takes, with what that is in the table."""

_POWERS: dict[float, float] = {65: 64, 131: 128, 262: 256, 524: 512}
_NUMBERS = {"layer": "layer", "width": "width", "l0": "l0", "size": "bytes"}
_TEXTS = {"model": "model", "point": "hook_point", "release": "release", "format": "format"}
_KINDS = ("sae", "transcoder", "clt", "crosscoder")
_CONDITION = re.compile(r"([a-z]\w*)(<=|>=|[:=<>])(.*)", re.IGNORECASE)
_NAMES = (
    "lower(concat_ws(' ', release, name, model, hook_point, target, format, repository, path, "
    "neuronpedia, kind))"
)
_SOURCE = "repository || if(path = '', '', '/') || path"
_TWO_A_LAYER = "circuit-tracer"
_HERE = (
    "coalesce(list_extract(?, list_position(?, repository || '/' || path)), 0) "
    f">= greatest(1, len(layers) * if(format = '{_TWO_A_LAYER}', 2, 1))"
)
_SIZES = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}

_Test = tuple[str, list[Any]]
"""A condition in SQL, and the values of its question marks."""


def _order(name: str, *, descending: bool) -> str:
    if name.lower() not in ORDERS:
        known = ", ".join(ORDERS)
        raise UserError(
            f"the library cannot be sorted by {name!r}",
            hint=f"sort by {known}, with - before it for the largest first, such as sort:-width",
        )
    return f"{ORDERS[name.lower()]} {'DESC' if descending else 'ASC'} NULLS LAST"


def _test(word: str, here: Cached) -> _Test:
    match = _CONDITION.fullmatch(word)
    if match is None:
        return f"contains({_NAMES}, ?)", [word.lower()]
    name, sign, value = match[1].lower(), match[2], match[3]
    if name in _NUMBERS:
        compares = f"{'=' if sign == ':' else sign} ?"
        number = _bytes(value) if name == "size" else _number(name, value)
        if name != "layer":
            return f"{_NUMBERS[name]} {compares}", [number]
        any_of = f"len(list_filter(layers, lambda one: one {compares})) > 0"
        return f"(layer {compares} OR {any_of})", [number, number]
    if sign not in ":=":
        raise UserError(f"{word!r} compares with {sign}, which only numbers can")
    if name in _TEXTS:
        return f"contains(lower({_TEXTS[name]}), ?)", [value.lower()]
    if name == "kind":
        if value.lower() not in _KINDS:
            raise UserError(f"{value!r} is not a kind of SAE", hint=f"use {', '.join(_KINDS)}")
        return "kind = ?", [value.lower()]
    if name != "cached":
        known = [*_NUMBERS, *_TEXTS, "kind", "cached"]
        hint = f"conditions are {', '.join(known)}; sort:l0 puts them in order"
        raise UserError(f"{name!r} is not a condition of the library", hint=hint)
    if value not in ("yes", "no"):
        raise UserError(f"cached is yes or no, not {value!r}")
    return (_HERE if value == "yes" else f"NOT ({_HERE})"), [[*here.values()], [*here]]


def _bytes(text: str) -> float:
    """`1GB`, `300 MB` without the space, or a number of bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:([kmgt])b?)?", text.lower())
    if match is None:
        raise UserError(f"size needs a number of bytes, not {text!r}", hint="such as size<1GB")
    return float(match[1]) * _SIZES.get(match[2] or "", 1)


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

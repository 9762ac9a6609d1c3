"""Saved inspections as files: JSON for programs, Markdown for people. Torch-free."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mi_crow.errors import CorruptDataError
from mi_crow.mechanistic.concepts.annotations_inspections import SavedInspection
from mi_crow.mechanistic.concepts.inspection_words import (
    difference_words,
    doubt,
    figure_name,
    which_token,
)
from mi_crow.mechanistic.concepts.saved_files import quoted, write_saved
from mi_crow.visible import visible

_TOKENS = 6  # listed for a feature
_TEXTS = ("target", "against", "corrupted")  # settings that are texts or tokens


def write_inspections(path: Path, found: Sequence[SavedInspection]) -> Path:
    """Writes inspections to a .json or .md file; see `write_saved`. Raises CorruptDataError for
    results that are none."""
    return write_saved(path, found, lambda: "\n".join(as_markdown(one) for one in found))


def as_markdown(one: SavedInspection) -> str:
    """A section: what was asked, the text, and tables of what was found. Raises
    CorruptDataError."""
    made = {
        "saved": time.strftime("%Y-%m-%d %H:%M", time.localtime(one.created)),
        "model": one.model_id,
        "SAE": ", ".join(one.sae_ids),
        **{name.replace("_", " "): _setting(name, value) for name, value in one.settings.items()},
    }
    facts = [f"- {name}: {visible(value)}" for name, value in made.items() if value]
    try:
        tables = list(_TABLES[one.kind](one.results))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptDataError(
            f"inspection {one.name!r} cannot be written ({error!r})", hint="export it as .json"
        ) from error
    return "\n".join([f"## {visible(one.name)}\n", *facts, "", quoted(one.text), "", *tables])


def _setting(name: str, value: Any) -> str:
    """A setting as people write it: texts and tokens in quotes, so that their spaces are seen."""
    if value is None or isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, list | tuple):
        return ", ".join(_setting(name, one) for one in value)
    return json.dumps(value, ensure_ascii=False) if name in _TEXTS else str(value)


def _inspect(found: Mapping[str, Any]) -> Iterable[str]:
    for one in found.get("saes") or [found]:
        tokens = one["tokens"]
        yield f"Features of `{visible(one['sae_id'])}`\n"
        yield _table(
            ("feature", "name", "max", "share", "density", "tokens", "fires on"),
            [
                (
                    row["feature"],
                    _name(row),
                    _figure(row["max_act"]),
                    _share(row.get("share")),
                    _share(row.get("density")),
                    sum(act > 0 for act in row["acts"]),
                    _strongest(tokens, row["acts"]),
                )
                for row in one["features"]
            ],
        )


def _compare(found: Mapping[str, Any]) -> Iterable[str]:
    yield f"against\n\n{quoted(found['second']['text'])}\n"
    yield f"{difference_words(str(found.get('order') or 'raw'))}\n"
    yield _table(
        ("feature", "name", "difference", "first", "second", "in the first", "in the second"),
        [
            (
                row["feature"],
                _name(row),
                f"{row['difference']:+.4g}",
                _figure(row["first"]),
                _figure(row["second"]),
                _strongest(found["first"]["tokens"], row["first_acts"]),
                _strongest(found["second"]["tokens"], row["second_acts"]),
            )
            for row in found["features"]
        ],
    )


def _contrast(found: Mapping[str, Any]) -> Iterable[str]:
    yield (
        f"{found['texts_for']} texts against {found['texts_against']}; AUROC and effect on the "
        f"half that features were not chosen by. Shuffled sets: {found['chance']:.2f}\n"
    )
    yield _table(
        ("feature", "name", "AUROC", "effect", "for", "against"),
        [
            (
                row["feature"],
                row["name"] or "",
                f"{row['auroc']:.2f}",
                f"{row['effect']:+.2f}",
                _figure(row["mean_for"]),
                _figure(row["mean_against"]),
            )
            for row in found["features"]
        ],
    )


def _attribute(found: Mapping[str, Any]) -> Iterable[str]:
    target, which = found["target"], which_token(found)
    words = visible(target["words"]) + (f" ({which})" if which else "")
    place = int(found.get("start") or 0) + target["position"]
    after = visible(_token(found["tokens"][target["position"]]))
    yield f"{words} after token {place} {after}: {_figure(found['value'])}\n"
    says = [
        f"{visible(_token(one['token']))} {_share(one['probability'])}"
        for one in found["predictions"][:_TOKENS]
    ]
    yield f"the model says {', '.join(says)}\n"
    for one in found["saes"]:
        yield f"`{visible(one['sae_id'])}` at `{visible(one['point'])}`\n"
        yield _table(
            ("feature", "name", "effect", "ablated", "share", "on"),
            [
                (
                    row["feature"],
                    _name(row),
                    f"{row['effect']:+.4g}",
                    f"{row['measured']:+.4g}",
                    _share(row["share"]),
                    " ".join(_token(found["tokens"][n]) for n, _ in row["tokens"][:_TOKENS]),
                )
                for row in one["causes"]
            ],
        )
        parts = [(figure_name(k), f"{v:+.4g}") for k, v in one["parts"].items()]
        yield _table(("part", "value"), parts)
        if one["check"] is not None:
            check = [(figure_name(k), _figure(v)) for k, v in one["check"].items()]
            yield _table(("check", "value"), check)
            if warning := doubt(one["check"], found["value"]):
                yield f"{warning}\n"
    if len(found["saes"]) > 1:
        yield "\n".join(_tree(found["tree"], 0)) + "\n"


def _tree(tree: Sequence[Mapping[str, Any]], depth: int) -> Iterable[str]:
    for one in tree:
        words = f"{one['effect']:+.3g} {one['sae_id']}/{one['feature']} {_name(one)}"
        yield "  " * depth + f"- {visible(words).strip()}"
        yield from _tree(one["children"], depth + 1)


def _lens(found: Mapping[str, Any]) -> Iterable[str]:
    titles, layers = tuple(map(_token, found["tokens"])), found["layers"][::-1]
    likeliest = [
        (one["point"], *(f"{_token(token)} {_share(share)}" for [(token, share), *_] in one["top"]))
        for one in layers
    ]
    yield _table(("says after", *titles), likeliest)
    for title, name in (("entropy, nats", "entropy"), ("KL to the output, nats", "kl")):
        rows = [(one["point"], *map(_figure, one[name])) for one in layers]
        yield _table((title, *titles), rows)


def _layers(found: Mapping[str, Any]) -> Iterable[str]:
    saes = found.get("saes") or [found]
    yield _table(
        ("SAE", "layer", *map(_token, saes[0]["tokens"])),
        [
            (one["sae_id"], one["point"], *map(_share, one["explained"] or ()))
            for one in reversed(saes)
        ],
    )
    yield from _inspect(found)


def _patch(found: Mapping[str, Any]) -> Iterable[str]:
    yield (
        f"{visible(found['target']['words'])}: clean {_figure(found['clean'])}, corrupted "
        f"{_figure(found['corrupted'])}; restored: {visible(found['what'])}\n"
    )
    pairs = zip(found["tokens"], found["corrupted_tokens"], strict=True)
    heads = [_token(a) if a == b else f"{_token(a)} / {_token(b)}" for a, b in pairs]
    rows = [
        (point, *map(_share, row))
        for point, row in zip(found["points"], found["effects"], strict=True)
    ]
    yield _table(("at", *heads), rows)


_TABLES = {
    "inspect": _inspect,
    "compare": _compare,
    "contrast": _contrast,
    "attribute": _attribute,
    "lens": _lens,
    "layers": _layers,
    "patch": _patch,
}


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    return visible(str(value)).replace("\\", "\\\\").replace("|", "\\|")


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("concept") or row.get("proposed") or row.get("label") or "")


def _strongest(tokens: Sequence[str], acts: Sequence[float]) -> str:
    order = sorted(range(len(acts)), key=lambda place: -acts[place])[:_TOKENS]
    return " ".join(_token(tokens[place]) for place in order if acts[place] > 0)


def _token(text: str) -> str:
    return f"“{text}”"  # with its space


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}%"

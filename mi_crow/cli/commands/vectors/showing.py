"""How vectors are printed."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mi_crow.cli.formatting import count, moment, number, print_json, share
from mi_crow.cli.tables import print_facts, print_line, print_list, print_table
from mi_crow.mechanistic.vectors.job import summary_json
from mi_crow.progress import counted

if TYPE_CHECKING:
    from mi_crow.mechanistic.vectors.stored import VectorSummary
    from mi_crow.mechanistic.vectors.top_texts import ProjectionFigures, TopText

_WIDE = 100  # characters of a text around its strongest token


def print_vectors(vectors: "Sequence[VectorSummary]", *, as_json: bool) -> None:
    columns = ["vector…", "…layers", "method", ">AUROC", "…model", "made"]
    rows = [
        [
            one.name,
            ", ".join(one.widths),
            one.method,
            _auroc(one),
            one.model_id,
            moment(_float(one.made.get("created"))),
        ]
        for one in vectors
    ]
    print_list(
        as_json,
        [summary_json(one) for one in vectors],
        columns,
        rows,
        "no vectors yet; mi-crow vector make makes one",
    )


def print_summary(one: "VectorSummary") -> None:
    made = one.made
    refined = _object(made.get("refined"))
    facts = {
        "vector": one.name,
        "layers": ", ".join(f"{point} (width {width})" for point, width in one.widths.items()),
        "method": one.method,
        "model": one.model_id,
        "made": "" if (at := _float(made.get("created"))) is None else moment(at),
        "for": _texts(made, "for"),
        "against": _texts(made, "against"),
        "run": str(made.get("run_id") or ""),
        "source": str(made.get("source") or ""),
        "note": str(made.get("note") or ""),
        "SAE": str(made.get("sae") or refined.get("sae") or ""),
        "refined from": str(refined.get("of") or ""),
        "refined at": str(refined.get("layer") or "") if len(one.widths) > 1 else "",
        "features": _feature_list(refined.get("features") or made.get("features")),
    }
    for point in one.widths:
        figures = _figures(made, point)
        for key, what in (
            ("auroc_heldout", "AUROC, held-out texts"),
            ("auroc", "AUROC, its own texts"),
            ("max", "greatest projection"),
        ):
            if (value := _float(figures.get(key))) is not None:
                where = f" at {point}" if len(one.widths) > 1 else ""
                facts[f"{what}{where}"] = number(value, 3)
    print_facts({key: value for key, value in facts.items() if value})
    print_line(f"steer with it: --steer 'vector:{one.name}=+0.3norm'", "dim")


def print_features(found: Mapping[str, Any]) -> None:
    """A vector in terms of features."""
    for measure, of, what in (
        ("cosine", "nearest", "nearest features"),
        ("coefficient", "pursuit", "as a sum of features"),
    ):
        print_line()
        print_line(what, "bold")
        print_table(
            [">feature", f">{measure}", "concept…"],
            [
                [str(one["feature"]), number(one[measure], 3), one["concept"] or ""]
                for one in found[of]
            ],
        )
    print_line(f"together they explain {share(found['explained'])} of it", "dim")


def print_texts(found: "ProjectionFigures", *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "tokens": found.tokens,
                "mean": found.mean,
                "std": found.std,
                "max": found.max,
                "median_norm": found.median_norm,
                "label_means": found.label_means,
                "texts": [one.as_json() for one in found.top],
            }
        )
        return
    columns = [">document", ">projection", "label", "text…"]
    rows = [
        [
            str(one.document),
            number(one.projection, 3),
            one.label or "",
            _near(one),
        ]
        for one in found.top
    ]
    print_table(columns, rows)
    print_line(
        f"over {count(found.tokens)} tokens: mean {number(found.mean, 3)}, standard deviation "
        f"{number(found.std, 3)}, greatest {number(found.max, 3)}",
        "dim",
    )


def _near(one: "TopText") -> str:
    """The text from about the strongest token on, a little before it."""
    start = len(one.text) * one.position // max(len(one.token_ids), 1) - _WIDE // 2
    begun = one.text[max(start, 0) :]
    words = begun if start <= 0 else "…" + begun.partition(" ")[2]
    return textwrap.shorten(words, 2 * _WIDE, placeholder="…")


def _feature_list(features: Any) -> str:
    """The features that a vector was made of, by their numbers."""
    if not isinstance(features, list):
        return ""
    numbers = [
        one[0] if isinstance(one, list) and one else _object(one).get("feature", "")
        for one in features
    ]
    return textwrap.shorten(", ".join(map(str, numbers)), 200, placeholder="…")


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(made: Mapping[str, Any], side: str) -> str:
    named = made.get(side)
    if not isinstance(named, list) or not named:
        return ""
    total = made.get(f"texts_{side}")
    many = f" ({counted(total, 'text')})" if isinstance(total, int) else ""
    return textwrap.shorten(", ".join(map(str, named)), 200, placeholder="…") + many


def _auroc(one: "VectorSummary") -> str:
    for key in ("auroc_heldout", "auroc"):
        found = [_float(_figures(one.made, point).get(key)) for point in one.widths]
        known = [value for value in found if value is not None]
        if known:
            return number(max(known), 3)
    return ""


def _figures(made: Mapping[str, Any], point: str) -> Mapping[str, Any]:
    return _object(_object(made.get("layers")).get(point))


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

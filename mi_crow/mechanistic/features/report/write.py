"""Writing features to a file, whole or not at all: a page of its own (.html), or .json."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.clean_text import clean_text
from mi_crow.errors import UserError
from mi_crow.mechanistic.features.report.as_json import feature_json
from mi_crow.mechanistic.features.report.page import feature_section, page_end, page_start
from mi_crow.paths import check_folder_of
from mi_crow.store.atomic import whole_file
from mi_crow.store.json_object import all_finite

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.queries import FeatureStore

MOST_FEATURES = 2000  # a page of more takes a browser minutes
EXAMPLES = 20
_FIGURES = ("std_act", "decoder_norm", "encoder_decoder_cosine", "skew", "kurtosis")


def check_report(path: Path, features: int, *, overwrite: bool = False) -> None:
    """Raises UserError where no report of this many features can be written to `path`."""
    if path.suffix.lower() not in (".html", ".htm", ".json"):
        raise UserError(f"{path.name!r} is neither .html nor .json", hint="name it report.html")
    if not features:
        raise UserError("no features to write")
    if features > MOST_FEATURES:
        raise UserError(
            f"{features:,} features are too many for one file",
            hint=f"choose at most {MOST_FEATURES:,}",
        )
    check_folder_of(path)
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder", hint="name a file in it")
    if not overwrite and os.path.lexists(path):
        raise UserError(f"{str(path)!r} exists already", hint="choose another name, or --force")


def write_features(
    store: "FeatureStore", features: Sequence[int], path: Path, *, overwrite: bool = False
) -> int:
    """Writes features in this order; the end of the name says how. Returns their number.

    Raises UserError for another name, for too many features and, unless `overwrite`, for a file
    that exists; NotFoundError; OSError.
    """
    check_report(path, len(features), overwrite=overwrite)
    parts = _json(store, features) if path.suffix.lower() == ".json" else _html(store, features)
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(clean_text(part) for part in parts)
    return len(features)


def _html(store: "FeatureStore", features: Sequence[int]) -> Iterator[str]:
    yield page_start(store.meta(), store.rows(features))
    shown = frozenset(features)
    for feature in features:
        detail, examples = store.detail(feature), store.examples(feature, limit=EXAMPLES)
        related = {one[0] for one in (*detail.neighbours, *detail.coactivations)}
        names = {row.feature: row.meaning for row in store.rows(sorted(related))}
        yield feature_section(detail, examples, shown, names)
    yield page_end(store.meta())


def _json(store: "FeatureStore", features: Sequence[int]) -> Iterator[str]:
    meta = store.meta()
    head = {"sae_id": meta.sae_id, "model_id": meta.model_id, "layer": meta.layer}
    head |= {"n_features": meta.n_features, "n_tokens": meta.n_tokens, "built_at": meta.built_at}
    yield "{\n"
    for name, value in head.items():
        yield f'"{name}": {json.dumps(value, ensure_ascii=False)},\n'
    yield '"features": [\n'
    for place, feature in enumerate(features):
        detail = store.detail(feature)
        one = feature_json(detail, store.examples(feature, limit=EXAMPLES))
        one |= {name: getattr(detail, name) for name in _FIGURES}
        one["concepts"] = [asdict(concept) for concept in detail.concepts]
        yield (",\n" if place else "") + json.dumps(all_finite(one), ensure_ascii=False)
    yield "\n]\n}\n"

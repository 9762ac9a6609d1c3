"""`mi-crow features` and `mi-crow feature`: the features in an SAE's index."""

from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.bounds import REAL, SHARE
from mi_crow.cli.arguments import (
    add_sae,
    add_setting,
    add_switch,
    feature_number,
    number_within,
    open_workspace,
    pick_sae,
    positive,
    tag_name,
)
from mi_crow.cli.commands.meaning.feature_rows import ordering, print_columns, print_rows
from mi_crow.cli.excerpt import excerpt, short_token
from mi_crow.cli.formatting import count, features_counted, number, print_json, share
from mi_crow.cli.similar import print_similar
from mi_crow.cli.tables import print_facts, print_line, print_outcome
from mi_crow.errors import UserError
from mi_crow.mechanistic.features.catalogue import BY_LABEL, BY_NAME, LAYER, column_named
from mi_crow.mechanistic.features.records import SCORES, auroc_text, is_telling
from mi_crow.mechanistic.features.report.as_json import feature_json, row_json
from mi_crow.store.workspace import Workspace
from mi_crow.visible import visible

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.queries import (
        Coactivation,
        FeatureDetail,
        FeatureStore,
        Neighbour,
    )

# Short names; the index's own names work as well.
_SORTS = {
    "max": "max_act",
    "mean": "mean_act",
    "auroc": "top_auroc",
    "label": "top_label",
    "score": "name_score",
}
_SHOWN_EXAMPLES = 8


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_sae(parser)
    if command == "feature":
        parser.add_argument(
            "feature",
            type=feature_number,
            nargs="+",
            help="feature index; two to four are compared side by side",
        )
        add_setting(parser, "--examples", 20, "maximum number of examples", type=positive)
        parser.add_argument(
            "--similar-in", metavar="SAE", help="list the most similar features of another SAE"
        )
        return
    parser.add_argument(
        "query",
        nargs="?",
        default="",
        help="query as in the app: 'rain density<1%% max>5 label:weather named:no "
        'on:"the harbour" like:42 like:"texts about the sea" sort:auroc:weather\', a leading - '
        "excludes",
    )
    parser.add_argument(
        "--search", metavar="TEXT", help="search concepts, labels, tokens and examples"
    )
    parser.add_argument(
        "--on-text",
        metavar="TEXT",
        help="features that are strong in indexed documents containing TEXT",
    )
    parser.add_argument(
        "--sort",
        metavar="ORDER",
        help="feature, density, fires, max, mean, auroc, label, concept, auroc:LABEL, any other "
        "column of numbers or, with --search, relevance (default: density, or relevance with "
        "--search)",
    )
    add_switch(parser, "--ascending", "lowest first")
    add_setting(parser, "--limit", 20, "number of features", type=positive)
    parser.add_argument(
        "--columns",
        metavar="NAMES",
        type=column_names,
        help=f"columns to print, with commas: {', '.join(BY_NAME)}, {BY_LABEL}LABEL",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        type=Path,
        help="write these features with their examples to a .html page or a .json file",
    )
    add_switch(parser, "--force", "replace the file of --report")
    _add_filters(parser)


def column_names(text: str) -> list[str]:
    """The columns of a flag's value. Raises ArgumentTypeError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    try:
        for name in names:
            column_named(name)
    except UserError as error:
        raise ArgumentTypeError(f"{error}; {error.hint}") from error
    if not names:
        raise ArgumentTypeError("no column is named")
    return list(dict.fromkeys(names))


def _add_filters(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("filters", "only features that match all of these")
    whether = BooleanOptionalAction
    group.add_argument("--alive", action=whether, default=None, help="that ever fire")
    group.add_argument("--named", action=whether, default=None, help="that have a concept")
    group.add_argument("--has-note", action=whether, default=None, help="that have a note")
    group.add_argument("--tag", type=tag_name, help="with this tag")
    group.add_argument("--label", help="whose best label is this one")
    group.add_argument(
        "--min-auroc",
        type=number_within(SHARE),
        metavar="X",
        help="with at least this AUROC for their best label, on held-out documents",
    )
    group.add_argument(
        "--min-density",
        type=number_within(SHARE),
        metavar="X",
        help="that fire on at least this share of tokens",
    )
    group.add_argument(
        "--max-density",
        type=number_within(SHARE),
        metavar="X",
        help="that fire on at most this share of tokens",
    )
    group.add_argument(
        "--min-max-act",
        type=number_within(REAL),
        metavar="X",
        help="whose maximum activation is at least this",
    )


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    sae_id = pick_sae(workspace, options.sae)
    if options.command == "feature":
        return _one_or_more(workspace, sae_id, options)
    store = open_store(workspace, sae_id)
    if options.on_text is not None:
        return _on_text(store, options)
    return _features(store, options)


def _one_or_more(workspace: Workspace, sae_id: str, options: Namespace) -> int:
    feature, *more = options.feature
    if options.similar_in is None:
        store = open_store(workspace, sae_id)
        if more:
            from mi_crow.cli.side_by_side import print_comparison

            return print_comparison(store, options.feature, workspace.sae_dir(sae_id), options)
        return _feature(store, feature, options)
    if more:
        raise UserError("--similar-in takes one feature")
    return print_similar(workspace, sae_id, feature, options.similar_in, options.json)


def open_store(workspace: Workspace, sae_id: str) -> "FeatureStore":
    """An SAE's index, joined with the workspace's concepts."""
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.features.queries import FeatureStore

    return FeatureStore.open(workspace, sae_id, Annotations(workspace.annotations_path))


def _features(store: "FeatureStore", options: Namespace) -> int:
    from mi_crow.mechanistic.features.meaning.unknown_values import why_none, why_unordered
    from mi_crow.mechanistic.features.query_language import parse_query
    from mi_crow.mechanistic.features.records import FeatureFilter

    wanted = {field.name: getattr(options, field.name) for field in fields(FeatureFilter)}
    sort: str | None = options.sort
    query = parse_query(options.query)
    words = f"{query.search} {options.search or ''}".strip()
    ids = store.find(
        replace(query, search=words),
        sort=_SORTS.get(sort, sort) if sort is not None else None,
        descending=not options.ascending,
        flt=FeatureFilter(**wanted),
    )
    if options.report is not None:
        return _report(store, ids[: options.limit].tolist(), options)
    by = query.sort if sort is None else _SORTS.get(sort, sort)
    by_order = ordering(by)
    if store.connection.layers.several:
        by_order = tuple(dict.fromkeys((LAYER, *by_order)))
    more = list(BY_NAME) if options.json else list(options.columns or ("score", *by_order))
    rows = store.rows(ids[: options.limit], more)
    if options.json:
        print_json([row_json(row) for row in rows])
        return 0
    if not rows:
        why = why_none(store, query)
        print_line(f"no features match{f': {why}' if why else ''}")
        return 0
    if options.columns:
        print_columns(rows, options.columns)
    else:
        print_rows(rows, by=by_order)
    if len(ids) > len(rows):
        print_line(f"{count(len(rows))} of {count(len(ids))} features; more with --limit", "dim")
    if why := why_unordered(store, by):
        print_line(f"in no order: {why}", "dim")
    return 0


def _report(store: "FeatureStore", ids: list[int], options: Namespace) -> int:
    from mi_crow.mechanistic.features.report.write import write_features

    written = write_features(store, ids, options.report, overwrite=options.force)
    said = {"path": str(options.report), "features": written}
    print_outcome(options.json, said, f"wrote {features_counted(written)} to {options.report}")
    return 0


def _on_text(store: "FeatureStore", options: Namespace) -> int:
    matching, found = store.on_text(options.on_text, options.limit)
    layers = store.connection.layers
    own = layers.texts([one.row.feature for one in found])
    if options.json:
        extra = [
            {"layer": layer or None, "documents": one.documents, "strength": one.strength}
            for one, layer in zip(found, own, strict=True)
        ]
        print_json([row_json(one.row) | more for one, more in zip(found, extra, strict=True)])
        return 0
    if not matching:
        print_line(
            "no indexed document contains this text; mi-crow inspect runs the model on any text"
        )
        return 0
    more = {
        **({"layer": [layer or "-" for layer in own]} if layers.several else {}),
        "documents": [count(one.documents) for one in found],
        "strength": [share(one.strength) for one in found],
    }
    print_rows([one.row for one in found], more)
    print_line(
        "strength: activation relative to the feature's maximum, averaged over the "
        f"{count(matching)} documents that contain the text",
        "dim",
    )
    return 0


def _feature(store: "FeatureStore", feature: int, options: Namespace) -> int:
    detail = store.detail(feature)
    examples = store.examples(feature, limit=options.examples)
    if options.json:
        print_json(feature_json(detail, examples))
        return 0
    _show_facts(detail)
    print_line()
    for example in examples[:_SHOWN_EXAMPLES]:
        print_line(f"{number(example.activation, 3):>8}  {excerpt(example)}")
    return 0


def _show_facts(detail: "FeatureDetail") -> None:
    row = detail.row
    if row.fires:
        fires = f"{count(row.fires)} times, on {share(row.density)} of tokens"
        activation = f"max {number(row.max_act)}, mean {number(row.mean_act)}"
    else:
        fires, activation = "never on the indexed tokens (dead)", "-"
    print_facts(
        {
            "feature": str(row.feature),
            **_layers(detail),
            **({"origin": detail.models.words()} if detail.models else {}),
            "concept": row.concept or "(none)",
            **_explained(detail),
            **_proposed(detail),
            "fires": fires,
            "activation": activation,
            "AUROC": _labels(detail),
            "positive logits": _tokens(detail.promoted),
            "negative logits": _tokens(detail.suppressed),
            "nearest (cosine)": _others(detail.neighbours),
            "co-activates (Jaccard)": _others(detail.coactivations),
            "co-activation": f"counted over {detail.cofiring.words()}",
        }
    )


def _layers(detail: "FeatureDetail") -> dict[str, str]:
    """Of an SAE over several layers the one that it is of, and how much it writes to each."""
    if not detail.several:
        return {}
    found = {"layer": detail.layer or f"not known: {detail.why_no_layer}"}
    if detail.written:
        parts = (f"{one.layer} {number(one.relative, 2)}" for one in detail.written)
        found["decoder norms"] = f"{', '.join(parts)}  (relative to the largest)"
    return found


def _explained(detail: "FeatureDetail") -> dict[str, str]:
    """What a chat model says of it, and its scores; nothing where none was asked."""
    found = detail.explanation
    if found is None:
        return {}
    facts = [f"by {visible(found.explainer)}"]
    for name, said in SCORES.items():
        if (value := getattr(found, name)) is not None:
            facts.append(f"{said} {number(value, 2)}{found.interval(name)}")
    if detail.explained_on:
        facts.append(f"on {detail.explained_on}")
    return {"explained": f"{visible(found.text)} ({', '.join(facts)})"}


def _proposed(detail: "FeatureDetail") -> dict[str, str]:
    """The proposed name and what it is worth; nothing where no names were proposed."""
    found = detail.proposal
    if found is None:
        return {}
    if not found.name:
        return {"proposed": f"nothing stands out ({found.kind})"}
    if found.score is None:
        return {"proposed": f"{found.name} ({found.kind}; fires too rarely to be scored)"}
    return {
        "proposed": f"{found.name} ({found.kind}; AUROC {auroc_text(found.score)} on "
        f"{count(found.firings)} unseen firings, another's name {number(found.chance, 2)})"
    }


def _labels(detail: "FeatureDetail") -> str:
    """The labels it separates, with their AUROC on held-out documents."""
    separated = [
        f"{visible(one.label)} {auroc_text(one.auroc)}"
        for one in detail.labels
        if one.auroc is not None and is_telling(one.auroc)
    ]
    return f"{'  '.join(separated[:3])}  (held-out documents)" if separated else "-"


def _tokens(pairs: Any) -> str:
    return "  ".join(f"{visible(short_token(token))!r}" for token, _ in list(pairs)[:10])


def _others(related: "Sequence[Neighbour | Coactivation]") -> str:
    """Related features, with the cosine or Jaccard index."""
    return "  ".join(f"#{other[0]}:{other[1]:.2f}" for other in related) or "(none)"

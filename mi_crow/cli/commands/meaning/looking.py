"""`mi-crow concepts coverage | next | conflicts | merge | check`: what the names are worth."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from mi_crow.bounds import NOT_NEGATIVE, SHARE
from mi_crow.cli.arguments import (
    CommandAction,
    add_device,
    add_sae,
    add_seed,
    device_of,
    feature_number,
    number_within,
    pick_sae,
    positive,
)
from mi_crow.cli.commands.features import open_store
from mi_crow.cli.formatting import count, features_counted, number, print_json, share
from mi_crow.cli.tables import (
    print_facts,
    print_line,
    print_list,
    print_outcome,
    print_table,
)
from mi_crow.cli.text_flags import add_bos
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.conflicts import FAR, NEAR, find_conflicts, merge_names
from mi_crow.mechanistic.sae.fitting import check_has_feature
from mi_crow.store.workspace import Workspace, read_sae_summary
from mi_crow.visible import quoted

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations

_PLACES = 20


def add_flags(name: str, action: ArgumentParser) -> None:
    """The flags of one of ACTIONS."""
    add_sae(action)
    if name == "next":
        action.add_argument("--limit", type=positive, default=20, help="features (default: 20)")
    if name == "conflicts":
        within = number_within(SHARE)
        action.add_argument("--far", type=within, default=FAR, help=f"cosine (default: {FAR})")
        action.add_argument("--near", type=within, default=NEAR, help=f"cosine (default: {NEAR})")
    if name == "merge":
        action.add_argument("features", type=feature_number, nargs="+", metavar="FEATURE")
        action.add_argument("--name", required=True, help="the name that they get")
    if name == "check":
        action.add_argument("target", metavar="FEATURE", help="its number, or its name")
        texts = (
            "texts, files of texts (in .txt, empty lines part them; without any, each line is "
            "one), label:NAME; [[marks]] are where it should fire"
        )
        action.add_argument(
            "--for", dest="texts_for", nargs="+", default=[], metavar="TEXTS", help=texts
        )
        action.add_argument(
            "--against",
            nargs="+",
            default=[],
            metavar="TEXTS",
            help="where it should not fire (default, for documents of the run: its others)",
        )
        action.add_argument("--texts", type=positive, default=200, help="at most, a side")
        action.add_argument(
            "--threshold",
            type=number_within(NOT_NEGATIVE),
            default=0.0,
            metavar="X",
            help="it fires where its activation is above this (default: 0)",
        )
        add_seed(action)
        add_bos(action)
        add_device(action)


def coverage(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    from mi_crow.mechanistic.concepts.coverage import coverage_of

    found = coverage_of(open_store(workspace, pick_sae(workspace, options.sae)))
    if options.json:
        print_json(asdict(found))
        return
    print_facts(
        {
            "named": f"{count(found.named)} of {count(found.alive)} firing features",
            "firings": f"{share(found.firings)} are of named features",
            "documents": f"{share(found.documents)} have one among their strongest features, of "
            f"{share(found.strongest)} it is the strongest",
        }
    )
    if found.curve:
        print_table(
            [">names", ">explain", ">could"],
            [[count(one.names), share(one.share), share(one.possible)] for one in found.curve],
        )


def next_to_name(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    from mi_crow.mechanistic.features.query_language import parse_query

    store = open_store(workspace, pick_sae(workspace, options.sae))
    ids = store.find(parse_query("named:no fires>0 sort:value"))[: options.limit]
    several = store.connection.layers.several
    rows = store.rows(ids, ["value", "score", "kind", "layer"])
    own = ["layer"] if several else []
    columns = [">feature", *own, ">value", ">fires", ">score", ">detection", "proposed name…"]
    values = [
        {
            "feature": row.feature,
            "layer": row.more["layer"] or None,
            "value": row.more["value"],
            "fires": row.fires,
            "proposed": row.proposed,
            "score": row.more["score"],
            "detection": row.detection,
        }
        for row in rows
    ]
    shown = (
        [
            str(one["feature"]),
            *([one["layer"] or "-"] if several else []),
            number(one["value"]),
            count(one["fires"]),
            "-" if one["score"] is None else number(one["score"], 2),
            "-" if one["detection"] is None else number(one["detection"], 2),
            one["proposed"] or "-",
        ]
        for one in values
    )
    print_list(options.json, values, columns, shown, "every feature that fires has a name")


def conflicts(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    from mi_crow.mechanistic.features.similar import DecoderRows

    sae_id = pick_sae(workspace, options.sae)
    decoder = DecoderRows.open(workspace.sae_dir(sae_id), sae_id)
    found = find_conflicts(open_store(workspace, sae_id), decoder, options.far, options.near)
    columns = ["conflict", ">cosine", "features…", "names…"]
    rows = (
        [one.what, f"{one.cosine:.2f}", " ".join(map(str, one.features)), " | ".join(one.names)]
        for one in found
    )
    print_list(options.json, [asdict(one) for one in found], columns, rows, "no conflicts")


def merge(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    sae_id = pick_sae(workspace, options.sae)
    sae = read_sae_summary(workspace.sae_dir(sae_id))
    check_has_feature(max(options.features), sae_id, sae.n_latents)
    name = options.name.strip()
    changed = merge_names(annotations, sae_id, options.features, name)
    value = {"sae_id": sae_id, "features": sorted(set(options.features)), "name": name}
    verb = "is" if changed == 1 else "are"
    sentence = f"{features_counted(changed)} of {sae_id} {verb} now {quoted(name)}"
    if not changed:
        sentence = f"they are all {quoted(name)} already"
    print_outcome(options.json, {**value, "changed": changed}, sentence)


def check(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    if not options.texts_for and not options.against:
        raise UserError("no texts given to check the feature on", hint="give --for or --against")
    sae_id = pick_sae(workspace, options.sae)
    feature = _feature_of(annotations, sae_id, options.target)
    from mi_crow.mechanistic.explain.checking import check_feature
    from mi_crow.mechanistic.steering.loading import load_for_work
    from mi_crow.mechanistic.vectors.texts import texts_to_check

    run_id = read_sae_summary(workspace.sae_dir(sae_id)).run_id
    texts_for, against = texts_to_check(
        workspace, options.texts_for, options.against, run_id, options.texts, options.seed
    )
    loaded = load_for_work(workspace, sae_id, device_of(options))
    found = check_feature(loaded, feature, texts_for, against, options.bos, options.threshold)
    if options.json:
        print_json({"sae_id": sae_id, **found.as_json()})
        return
    best = found.best_threshold
    scores = f"; F1 {_share(found.f1)}, at most {_share(found.at(best).f1)} at {number(best)}"
    none = "there could be none: give --against, or mark [[places]]"
    facts = {
        "feature": str(feature),
        "threshold": number(found.threshold) + (scores if found.can_alarm else ""),
        "precision": _share(found.precision),
        "recall": _share(found.recall),
        "expected": f"{count(found.expected)}, it fires at {count(found.hits)}",
        "false alarms": count(found.false_alarms) if found.can_alarm else none,
    }
    print_facts(facts)
    rows = [
        [
            "fires" if one.activation > found.threshold else "silent",
            "yes" if one.expected else "no",
            number(one.activation),
            f"{one.before}[[{one.token}]]{one.after}",
        ]
        for one in (
            *found.places[:_PLACES],
            *(p for p in found.places[_PLACES:] if p.activation <= found.threshold),
        )
    ]
    titles = ["it", "expected", ">activation", "where…"]
    print_table(titles, rows[: 2 * _PLACES])
    if len(rows) > 2 * _PLACES:
        print_line(f".. and {len(rows) - 2 * _PLACES:,} more; --json lists them all")


def _share(value: float | None) -> str:
    return "-" if value is None else share(value)


def _feature_of(annotations: "Annotations", sae_id: str, target: str) -> int:
    """A feature by its number or its name. Raises NotFoundError, and UserError for several."""
    if target.removeprefix("#").isdigit():
        return int(target.removeprefix("#"))
    found = {one.feature for one in annotations.concepts(sae_id) if one.name == target}
    if not found:
        raise NotFoundError(f"no feature of {sae_id} is named {quoted(target)}")
    if len(found) > 1:
        said = ", ".join(map(str, sorted(found)[:8]))
        raise UserError(f"features {said} are named {quoted(target)}", hint="give a number")
    return found.pop()


ACTIONS = {
    "coverage": CommandAction("show how much of what fires has a name", coverage),
    "next": CommandAction("list unnamed features by what a name would explain", next_to_name),
    "conflicts": CommandAction("list names that contradict each other", conflicts),
    "merge": CommandAction("give several features one name in the place of theirs", merge),
    "check": CommandAction("check a feature on texts: precision, recall, where it fires", check),
}

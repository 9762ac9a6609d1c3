"""`mi-crow inspect`: which features fire on a text, or tell two texts or sets of texts apart."""

from argparse import ArgumentParser, Namespace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from mi_crow.bounds import SHARE
from mi_crow.cli.arguments import (
    add_device,
    add_seed,
    add_setting,
    add_switch,
    device_of,
    number_within,
    open_workspace,
    pick_sae,
    positive,
)
from mi_crow.cli.commands.causes.attribute import add_saes, name_of
from mi_crow.cli.commands.causes.inspections import add_save, check_save, save
from mi_crow.cli.commands.causes.text import text_of
from mi_crow.cli.commands.meaning.contrast import check_run_is_used, finish, print_contrast
from mi_crow.cli.commands.meaning.feature_rows import layer_cells
from mi_crow.cli.formatting import count, number, share
from mi_crow.cli.tables import print_line, print_result, print_table
from mi_crow.cli.text_flags import add_bos, fill_in, leave_out, refuse_given
from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.concepts.inspection_words import difference_words
from mi_crow.mechanistic.vectors.texts import is_of_run, looks_like_file
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.steering.known import KnownFeatures
    from mi_crow.mechanistic.steering.ranking import Ranking

_SHOWN_TOKENS = 6


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_saes(parser)
    parser.add_argument(
        "text",
        nargs="+",
        help="the text, or `-` for standard input; with --against also a set of texts: several, a "
        "file of texts, label:NAME or documents:3,7-12 of --run",
    )
    add_device(parser)
    add_bos(parser)
    add_switch(
        parser,
        "--windows",
        "read a text longer than the model's context in windows, instead of cutting it",
    )
    add_switch(
        parser,
        "--chat",
        "the text is a conversation for the model's chat template: lines that begin with "
        "user: or assistant:, or a JSON list of messages",
    )
    add_setting(parser, "--top", 20, "number of features", type=positive)
    parser.add_argument(
        "--vector",
        action="append",
        default=[],
        metavar="NAME",
        help="show also how far along this vector each token is; repeatable",
    )
    parser.add_argument(
        "--sort",
        choices=("meaning", "share", "surprise", "raw", "count", "first"),
        help="meaning (the default): share of the feature's maximum times surprise, -log "
        "density, over all tokens; share, surprise, raw activation, count of tokens, or first "
        "token",
    )
    parser.add_argument(
        "--max-density",
        type=number_within(SHARE, "--max-density"),
        metavar="SHARE",
        help="leave out features that fire on more of the indexed tokens, e.g. 0.1",
    )
    add_switch(parser, "--named", "only features with a name")
    group = parser.add_argument_group("two texts, or two sets of texts")
    group.add_argument(
        "--against",
        nargs="+",
        metavar="TEXT",
        help="list features by how differently they fire on this text; for sets by a test on "
        "texts that they were not chosen by (`others`: the run's other documents)",
    )
    group.add_argument("--run", help="the run of labels and documents (default: the SAE's)")
    add_setting(group, "--texts", 200, "maximum number of texts per set", type=positive)
    group.add_argument("--tag", help="tag the listed features that have a name or a proposed one")
    add_seed(parser)
    add_save(parser)
    leave_out(parser, ("run", "texts", "seed"))


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    _check_sets(options)
    check_save(options)
    if options.against is not None:
        return _against(workspace, options)
    if len(options.text) > 1:
        raise UserError(
            f"{len(options.text)} texts were given", hint="quote the text, or give --against a text"
        )
    if options.tag is not None:
        raise UserError("--tag is for two texts or sets", hint="give --against a text")
    return _one_text(workspace, options)


def _one_text(workspace: Workspace, options: Namespace) -> int:
    from mi_crow.mechanistic.attribution.run import load_together
    from mi_crow.mechanistic.steering.known import KnownFeatures
    from mi_crow.mechanistic.steering.ranking import ranking_of
    from mi_crow.mechanistic.steering.run import inspect_several, inspect_vectors
    from mi_crow.mechanistic.vectors.stored import vector_path

    sae_ids = _saes(workspace, options.sae)
    text = text_of(options.text[0])
    ranking = ranking_of(options.sort, options.max_density, options.named)
    for name in options.vector:
        vector_path(workspace, name)  # fail before a model loads
    known = KnownFeatures(workspace)
    skipped: dict[str, str] = {}
    if not options.sae and len(sae_ids) > 1:
        sae_ids, skipped = _with_sound_indexes(known, sae_ids)
        loaded = load_together(workspace, sae_ids, device_of(options), skipped)
    else:
        loaded = load_together(workspace, sae_ids, device_of(options))
    if options.chat:
        text = _conversation(loaded[0].lm.tokenizer, text)
    found = inspect_several(
        known,
        loaded,
        text,
        options.top,
        options.bos,
        options.windows,
        ranking,
    )
    if options.vector:
        found[0]["vectors"] = inspect_vectors(
            workspace, loaded[0], options.vector, text, options.bos, options.windows
        )
    result = found[0] if len(found) == 1 else {**found[0], "saes": found}
    result = {**result, "model_id": loaded[0].lm.model_id}
    if notes := [
        *(f"left out {one!r}: {why}" for one, why in skipped.items()),
        *known.damaged.values(),
    ]:
        result["notes"] = notes
    code = print_result(options.json, result, partial(_show, ranking=ranking))
    save(
        options,
        "inspect" if len(found) == 1 else "layers",
        text,
        result,
        [one.sae_id for one in loaded],
    )
    return code


def _with_sound_indexes(
    known: "KnownFeatures", sae_ids: list[str]
) -> tuple[list[str], dict[str, str]]:
    """The SAEs whose index is whole or not there, and the others, each with what is wrong. Raises
    CorruptDataError where none is left."""
    sound: list[str] = []
    damaged: dict[str, str] = {}
    for one in sae_ids:
        try:
            known.store(one)
        except CorruptDataError as error:
            if not sound and len(damaged) + 1 == len(sae_ids):
                raise
            damaged[one] = error.sentence
        else:
            sound.append(one)
    return sound, damaged


def _saes(workspace: Workspace, given: list[str]) -> list[str]:
    """The SAEs that were named; without any all, if they are of one model."""
    if given:
        return list(dict.fromkeys(pick_sae(workspace, one) for one in given))
    known = workspace.list_saes()
    if len(known) < 2 or len({one.model_id for one in known}) > 1 or not known[0].model_id:
        return [pick_sae(workspace, None)]
    from mi_crow.mechanistic.steering.known import of_one_model

    return of_one_model(known[0], known)


def _conversation(tokenizer: Any, text: str) -> str:
    from mi_crow.language_model.chat import chat_text, read_conversation

    return chat_text(tokenizer, read_conversation(text))


# Two texts, or two sets of them.


def _check_sets(options: Namespace) -> None:
    """Refuses flags for sets of texts where none is given. Raises UserError."""
    words = [*options.text, *(options.against or ())] if options.against is not None else []
    check_run_is_used(options.run, words)
    if len(words) > 2 or any(is_of_run(one) or looks_like_file(one) for one in words):
        fill_in(options)
    else:
        refuse_given(options, "is for sets of texts", "leave it out, or give several texts")


def _against(workspace: Workspace, options: Namespace) -> int:
    from mi_crow.mechanistic.explain.two_sets import contrast_sets, sets_of
    from mi_crow.mechanistic.explain.two_texts import compare_texts
    from mi_crow.mechanistic.steering.known import KnownFeatures
    from mi_crow.mechanistic.steering.loading import load_for_work
    from mi_crow.mechanistic.steering.ranking import ranking_of
    from mi_crow.store.workspace import read_sae_summary

    if options.vector:
        raise UserError("--vector is for one text", hint="leave out --against")
    if len(options.sae) > 1:
        raise UserError("two texts are compared by one SAE", hint="give --sae once")
    sae_id = pick_sae(workspace, next(iter(options.sae), None))
    run_id = options.run or read_sae_summary(workspace.sae_dir(sae_id)).run_id
    texts = [text_of(one) if one == "-" else one for one in options.text]
    drawn = {"most": options.texts, "seed": options.seed} if options.texts is not None else {}
    first, second = sets_of(workspace, texts, options.against, run_id, **drawn)
    ranking = ranking_of(options.sort, options.max_density, options.named)
    loaded = load_for_work(workspace, sae_id, device_of(options))
    known = KnownFeatures(workspace)
    if len(first) == len(second) == 1:
        one, other = first[0], second[0]
        if options.chat:
            one, other = (_conversation(loaded.lm.tokenizer, text) for text in (one, other))
        result = compare_texts(
            known,
            loaded,
            one,
            other,
            top=options.top,
            bos=options.bos,
            windows=options.windows,
            ranking=ranking,
        )
        kind, text = "compare", one
    else:
        for flag in ("sort", "max_density", "named", "windows", "chat"):
            if getattr(options, flag):
                name = flag.replace("_", "-")
                raise UserError(f"--{name} is for one or two texts", hint=f"leave out --{name}")
        result = contrast_sets(
            known, loaded, first, second, top=options.top, bos=options.bos, seed=options.seed
        )
        kind, text = "contrast", " ".join(options.text)
    show = _show_differences if kind == "compare" else print_contrast
    code = finish(workspace, result, options, show)
    save(options, kind, text, result, [sae_id])
    return code


def _show_differences(result: dict[str, Any]) -> None:
    first, second = result["first"]["tokens"], result["second"]["tokens"]
    layers = layer_cells(result["features"])
    rows = [
        [
            str(row["feature"]),
            *layers.of(row),
            f"{row['difference']:+.3g}",
            number(row["first"], 3),
            number(row["second"], 3),
            name_of(row),
            _most(first, row["first_acts"], 3),
            _most(second, row["second_acts"], 3),
        ]
        for row in result["features"]
    ]
    columns = [">feature", *layers.title, ">difference", ">first", ">second", "name…"]
    print_table([*columns, "in the first…", "in the second…"], rows)
    same = sum(
        a is not None and b is not None and first[a] == second[b] for a, b in result["aligned"]
    )
    print_line(
        f"{count(len(first))} and {count(len(second))} tokens, {count(same)} the same", "dim"
    )
    print_line(difference_words(result["order"]), "dim")
    for side in ("first", "second"):
        if not _read_whole(result[side]):
            print_line(f"the {side}: {_reading(result[side])}", "yellow")


# One text.


def _show(result: dict[str, Any], ranking: "Ranking | None") -> None:
    found = result.get("saes") or [result]
    for one in found:
        if len(found) > 1:
            print_line(f"{one['sae_id']} at {one['point']}, {_explained(one)}", "bold")
        _show_inspection(one, ranking)
    _show_vectors(result)
    for note in result.get("notes", ()):
        print_line(note, "yellow")


def _show_vectors(result: dict[str, Any]) -> None:
    """Where a text is most along the vectors that were asked for."""
    rows = []
    for one in result.get("vectors", ()):
        acts = one["acts"]
        mean = sum(acts) / max(len(acts), 1)
        most = _most(result["tokens"], acts)
        rows.append([one["vector"], one["layer"], number(one["max_act"], 3), number(mean, 3), most])
    if rows:
        print_table(["vector…", "layer", ">max", ">mean", "most along it on…"], rows)


def _most(tokens: list[str], acts: list[float], shown: int = _SHOWN_TOKENS) -> str:
    """The tokens with the greatest values, each word once."""
    order = sorted(range(len(acts)), key=lambda i: -acts[i])
    words = dict.fromkeys(tokens[i] for i in order if acts[i] > 0)
    return "  ".join(repr(word) for word in islice(words, shown))


def _explained(result: dict[str, Any]) -> str:
    known = [one for one in result["explained"] or () if one is not None]
    if not known:
        return "predicts another layer"
    return f"explains {share(sum(known) / len(known))} of an activation"


def _read_whole(result: dict[str, Any]) -> bool:
    return result["tokens_read"] >= result["tokens_total"]


def _reading(result: dict[str, Any]) -> str:
    """How much of the text was read."""
    read, total = result["tokens_read"], result["tokens_total"]
    words = f"read {count(read)} of {count(total)} tokens"
    if result["windows"] > 1:
        words += f", in {count(result['windows'])} windows"
    if result["bos_added"]:
        words += ", BOS prepended"
    if not _read_whole(result):
        words += (
            f": the model's context is {count(result['context_length'])}; --windows reads it all"
        )
    return words


def _none_left(ranking: "Ranking | None") -> str:
    """Why no feature is listed."""
    kept = ["have a name"] if ranking is not None and ranking.named_only else []
    if ranking is not None and ranking.max_density is not None:
        kept.append(f"fire on at most {share(ranking.max_density)} of the indexed tokens")
    if not kept:
        return "no feature fires on this text"
    return f"no feature fires on this text among those that {' and '.join(kept)}"


def _show_inspection(result: dict[str, Any], ranking: "Ranking | None") -> None:
    layers = layer_cells(result["features"])
    rows = [
        [
            str(feature["feature"]),
            *layers.of(feature),
            number(feature["max_act"], 3),
            share(feature["share"]),
            share(feature["density"]),
            name_of(feature),
            _most(result["tokens"], feature["acts"]),
        ]
        for feature in result["features"]
    ]
    if rows:
        columns = [">feature", *layers.title, ">max", ">share", ">density", "name…", "fires on…"]
        print_table(columns, rows)
    else:
        print_line(_none_left(ranking), "yellow")
    print_line(_reading(result), style="" if _read_whole(result) else "yellow")

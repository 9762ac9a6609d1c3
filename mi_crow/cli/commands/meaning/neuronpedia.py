"""`mi-crow neuronpedia`: explanations and dashboards from and for Neuronpedia, as files."""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from mi_crow.cli.arguments import add_actions, add_sae, add_switch, open_workspace, pick_sae
from mi_crow.cli.commands.meaning.dictionary import add_import_flags, run_import
from mi_crow.cli.display import shown_progress
from mi_crow.cli.tables import print_outcome
from mi_crow.errors import UserError
from mi_crow.paths import expanded
from mi_crow.store.workspace import Workspace

_ACTIONS = {
    "import": "read explanations: a .jsonl file, a folder of batches, or Neuronpedia's export",
    "export": "write features, activations and names as a folder of batches",
}


def add_arguments(parser: ArgumentParser, command: str) -> None:
    for name, action in add_actions(parser, _ACTIONS):
        if name == "import":
            where = "a .jsonl or .jsonl.gz file, or a folder (default: Neuronpedia's export)"
            action.add_argument("path", type=Path, nargs="?", help=where)
            add_import_flags(action)
        if name == "export":
            add_sae(action)
            action.add_argument("path", type=Path, help="new folder to write")
            action.add_argument("query", nargs="?", default="", help="only features of this query")
            action.add_argument("--model-id", metavar="ID", help="such as gpt2-small")
            action.add_argument("--source-id", metavar="ID", help="such as 10-res-jb")
            action.add_argument("--author", default="mi-crow", help="creator of the rows")
            add_switch(action, "--proposed", "also the proposed names of unnamed ones")


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    if options.action == "import":
        from mi_crow.mechanistic.concepts.annotations import Annotations

        annotations = Annotations(workspace.annotations_path)
        if options.sae is None:
            options.sae = pick_sae(workspace, None)
        run_import(workspace, annotations, options)
    elif options.action == "export":
        _export(workspace, options)
    else:
        raise UserError("say import or export", hint="mi-crow neuronpedia --help")
    return 0


def _export(workspace: Workspace, options: Namespace) -> None:
    from mi_crow.cli.commands.features import open_store
    from mi_crow.mechanistic.concepts.exchange.dashboards import export_dashboards, usual_ids
    from mi_crow.mechanistic.features.query_language import parse_query

    store = open_store(workspace, pick_sae(workspace, options.sae))
    meta = store.meta()
    usual = usual_ids(meta.model_id, meta.layer, meta.sae_id)
    ids = replace(
        usual,
        model_id=options.model_id or usual.model_id,
        source_id=options.source_id or usual.source_id,
        author=options.author,
    )
    features = store.find(parse_query(options.query), "feature", descending=False).tolist()
    with shown_progress(options.json) as progress:
        value = export_dashboards(
            store,
            features,
            expanded(options.path),
            ids,
            proposed=options.proposed,
            progress=progress,
        )
    counts = ", ".join(
        f"{value[kind]:,} {kind}" for kind in ("features", "activations", "explanations")
    )
    sentence = f"wrote {counts} to {value['folder']} as {ids.model_id}/{ids.source_id}"
    print_outcome(options.json, value, sentence)

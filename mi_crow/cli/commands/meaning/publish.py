"""`mi-crow publish`: an SAE with its card, and its index where wanted, to a hub repository."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from mi_crow.cli.arguments import add_sae, add_switch, open_workspace, pick_sae
from mi_crow.cli.formatting import print_json
from mi_crow.cli.tables import print_line, print_table
from mi_crow.errors import MiCrowError, NotFoundError
from mi_crow.store.workspace import Workspace, read_sae_summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from huggingface_hub import HfApi

    from mi_crow.mechanistic.concepts.exchange.publishing import Upload


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_sae(parser)
    parser.add_argument("repository", help="owner/name on the hub; made when it is not there")
    add_switch(parser, "--index", "also the feature index")
    add_switch(parser, "--private", "make a new repository private")
    parser.add_argument("--revision", help="branch to push to (default: main)")
    add_switch(parser, "--dry-run", "list the files and show the card, push nothing")


def run(options: Namespace) -> int:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.concepts.exchange.publishing import check_repository, uploads

    check_repository(options.repository)
    workspace = open_workspace(options)
    sae_id = pick_sae(workspace, options.sae)
    concepts = Annotations(workspace.annotations_path).concepts(sae_id)
    fires = _fires(workspace, sae_id, sorted({one.feature for one in concepts}))
    sae = read_sae_summary(workspace.sae_dir(sae_id))
    files = uploads(sae, concepts, fires, index=options.index)
    value = {
        "sae_id": sae_id,
        "repository": options.repository,
        "files": [{"name": one.name, "bytes": one.bytes} for one in files],
        "pushed": not options.dry_run,
    }
    if options.dry_run:
        if options.json:
            print_json(value)
        else:
            _print_files(files)
            print_line(f"would be pushed to {options.repository}", style="dim")
        return 0
    url = _push(files, sae_id, options)
    if options.json:
        print_json({**value, "url": url})
    else:
        print_line(f"pushed {sae_id} to {url}")
    return 0


def _fires(workspace: Workspace, sae_id: str, features: list[int]) -> dict[int, int]:
    """How often the named features fire, where there is an index."""
    from mi_crow.cli.commands.features import open_store

    try:
        store = open_store(workspace, sae_id)
        known = [one for one in features if one < store.meta().n_features]
        return {row.feature: row.fires for row in store.rows(known)}
    except NotFoundError:
        return {}


def _print_files(files: "Sequence[Upload]") -> None:
    for one in files:
        if isinstance(one.source, bytes) and one.name == "README.md":
            for line in one.source.decode().splitlines():
                print_line(line)
    print_table(
        ["file", ">bytes"],
        [[one.name, f"{one.bytes:,}"] for one in files],
    )


def _push(files: "Sequence[Upload]", sae_id: str, options: Namespace) -> str:
    """Pushes the files as one commit; returns where they are. Raises MiCrowError."""
    from huggingface_hub import HfApi

    from mi_crow.hub import publishing_error, quiet_downloads

    api = HfApi()
    try:
        with quiet_downloads():
            return _commit(api, files, sae_id, options)
    except MiCrowError:
        raise
    except Exception as error:
        raise publishing_error(error, options.repository) from error


def _commit(api: "HfApi", files: "Sequence[Upload]", sae_id: str, options: Namespace) -> str:
    from huggingface_hub import CommitOperationAdd

    made = api.create_repo(options.repository, private=options.private or None, exist_ok=True)
    sources = [one.source if isinstance(one.source, bytes) else str(one.source) for one in files]
    api.create_commit(
        options.repository,
        [CommitOperationAdd(one.name, source) for one, source in zip(files, sources, strict=True)],
        commit_message=f"Upload {sae_id} with mi-crow",
        revision=options.revision,
    )
    return str(made)

"""The small index of `index_fixture` with everything in it that a terminal must not obey."""

import itertools

import duckdb

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import copy_workspace, make_index

SAE = "fixture-sae"
FEATURE = 23  # what is awkward belongs to it
DEAD = 33
LONG = "x" * 10_000
TOKENS = (
    "\x1b[31mred\x1b[0m",
    "[bold]keel[/bold]",
    "עוגן",
    "\u202eesrever\u202c",
    "🦜👩\u200d👩\u200d👧",
    "\ta\rb\n",
    "\x07\x08\x9b2J\x7f",
    "日本語",
    LONG,
    "\x00nul",
    "\u2028line",
)
LABEL = "\x1b[5msailing[/]"
CONCEPT = "\x1b]0;title\x07[/]\u202e name"


def make_awkward_index(workspace: Workspace) -> None:
    """Feature 23 has one example for each of TOKENS, of a document that is all of them."""
    copy_workspace(_write, workspace)


def _write(workspace: Workspace) -> None:
    make_index(workspace, SAE)
    ends = list(itertools.accumulate(map(len, TOKENS)))
    with duckdb.connect(str(workspace.index_path(SAE))) as connection:
        connection.execute("DELETE FROM examples WHERE feature = ?", [FEATURE])
        connection.execute(
            "INSERT INTO stored_documents VALUES (900, ?, ?, 'train', ?, NULL, ?)",
            ["".join(TOKENS), LABEL, list(range(len(TOKENS))), ends],
        )
        for place in range(len(TOKENS)):
            acts = [float(other == place) for other in range(len(TOKENS))]
            connection.execute(
                "INSERT INTO examples VALUES (?, 0, ?, 900, ?, 1.0, 0, ?)",
                [FEATURE, place, place, acts],
            )
            connection.execute(
                "UPDATE tokens SET token = ? WHERE token_id = (SELECT token_id FROM logits "
                "WHERE feature = ? AND sign = 1 AND rank = ?)",
                [TOKENS[place], FEATURE, place],
            )
        for table, column in (
            ("labels", "label"),
            ("feature_labels", "label"),
            ("label_aurocs", "label"),
            ("features", "top_label"),
        ):
            connection.execute(
                f"UPDATE {table} SET {column} = ? WHERE {column} = 'sailing'", [LABEL]
            )
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept(SAE, FEATURE, CONCEPT, note="\x1b[2J[red]", tags=["\x9b1m"])

"""A workspace whose every text, name and error speaks to the terminal."""

import json
import sqlite3
import time
from contextlib import closing

import duckdb

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.store.workspace import Workspace
from tests.helpers.awkward_index import CONCEPT, FEATURE, SAE, make_awkward_index
from tests.helpers.index_fixture import copy_workspace
from tests.helpers.jobs_fixture import FakeJobs

# Clipboard, title, notification, reset, device query, style, DCS, 8-bit CSI and OSC, overrides.
ATTACK = (
    "\x1b]52;c;RVZJTA==\x1b\\\x1b]0;PWNTITLE\x07\x1b]9;note\x07\x1bc\x1b[6z\x1b[31mRED"
    "\x1bP+q544e\x1b\\\x9b31m\x9d0;C1\x9c\u202eevil\u2066\u200b"
)

# They hold an emoji of several people together; nothing can be copied or printed without them.
_JOINERS = "\u200c\u200d"


def obeyed(text: str) -> list[str]:
    """The characters of a text that a terminal would act on, tabs among them."""
    return [char for char in text if not char.isprintable() and char not in f"\n{_JOINERS}"]


def make_hostile_workspace(workspace: Workspace) -> None:
    """The awkward index of feature FEATURE, with ATTACK wherever a string can stand."""
    copy_workspace(_write, workspace)


def _write(workspace: Workspace) -> None:
    make_awkward_index(workspace)
    with duckdb.connect(str(workspace.index_path(SAE))) as connection:
        for table, column in (
            ("labels", "label"),
            ("feature_labels", "label"),
            ("label_aurocs", "label"),
            ("features", "top_label"),
            ("stored_documents", "label"),
        ):
            connection.execute(f"UPDATE {table} SET {column} = {column} || ?", [ATTACK])
        connection.execute("UPDATE tokens SET token = ? || token", [ATTACK])
        connection.execute(
            "UPDATE stored_documents SET text = ? || text, seen = NULL, "
            "token_ends = list_transform(token_ends, lambda last: last + ?)",
            [ATTACK, len(ATTACK)],
        )
        connection.execute("UPDATE meta SET value = value || ? WHERE key = 'model_id'", [ATTACK])
    annotations = Annotations(workspace.annotations_path)
    for feature in range(0, 64, 3):
        annotations.set_concept(SAE, feature, f"name{ATTACK}", note=ATTACK, tags=[ATTACK])
    annotations.set_concept(SAE, FEATURE, f"{CONCEPT}{ATTACK}", note=ATTACK)
    annotations.save_preset("preset", [])
    annotations.close()
    with closing(sqlite3.connect(workspace.annotations_path)) as stored, stored:
        # Such names are refused today; they may have been stored before.
        stored.execute("UPDATE presets SET name = name || ?", [ATTACK])
    cfg_path = workspace.saes_dir / SAE / "cfg.json"
    cfg = json.loads(cfg_path.read_text())
    cfg.setdefault("metadata", {})["model_name"] = f"org/model{ATTACK}"
    cfg["metadata"].setdefault("mi_crow", {})["layer"] = f"model.layers.2{ATTACK}"
    cfg_path.write_text(json.dumps(cfg))
    (workspace.saes_dir / SAE / "evaluation.json").write_text(
        json.dumps({"fvu": 0.1, ATTACK: ATTACK, "probes": {ATTACK: {"1": ATTACK}}})
    )


def add_hostile_jobs(jobs: FakeJobs) -> None:
    """Jobs whose errors, logs, units, metrics, parameters and results are ATTACK."""
    now = time.time()
    jobs.add("failed", "train", name="bad", error=ATTACK, hint=ATTACK, log=ATTACK, created=now - 9)
    jobs.add("finished", "index", result={"sae_id": ATTACK, ATTACK: ATTACK}, created=now - 8)
    jobs.add("running", "train", unit=ATTACK, metrics={ATTACK: 1.0, "loss": 1.0}, created=now - 7)
    jobs.add("cancelled", "capture", params={"model": {"model": ATTACK}}, created=now - 6)

"""The index job around its figures: appending, cancelling, faults, and input that does not fit."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
import torch

from mi_crow.errors import CancelledError, NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.build import build_index
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.schema import DERIVED, TABLES, VIEWS
from mi_crow.store.workspace import Workspace
from tests.helpers.index_runs import LAYER, identity_sae, save_run, save_sae
from tests.helpers.progress import Watched
from tests.unit.test_features_build import random_docs

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

CONFIG = IndexConfig("sae", device="cpu")


@pytest.fixture
def prepared(workspace: Workspace, tiny_lm: "LanguageModel") -> Workspace:
    """A run and an SAE that fit together, no index yet."""
    save_run(workspace, random_docs(tiny_lm, 12), tiny_lm.tokenizer_hash, part_documents=5)
    save_sae(workspace, identity_sae(tiny_lm.tokenizer_hash))
    return workspace


def files(workspace: Workspace) -> set[str]:
    return {
        str(path.relative_to(workspace.root))
        for path in workspace.root.rglob("*")
        if path.name != ".index.lock"
    }


def tables(path: Path) -> dict[str, list[Any]]:
    """Every table but meta, rows in the order they stand; nan as text, since it equals nothing."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return {
            table: [
                tuple("nan" if value != value else value for value in row)
                for row in connection.execute(f"SELECT * FROM {table}").fetchall()
            ]
            for table in (*TABLES, *VIEWS, *DERIVED)
            if table != "meta"
        }


def test_the_result_tells_what_was_done(prepared: Workspace, tiny_lm: "LanguageModel") -> None:
    progress = Watched()
    result = build_index(prepared, CONFIG, progress, lm=tiny_lm).as_json()
    assert result["sae_id"] == "sae"
    assert result["features"] == 32
    assert result["bytes"] == prepared.index_path("sae").stat().st_size
    assert result["seconds"] > 0
    assert result["tokens"] == FeatureStore.open(prepared, "sae").meta().n_tokens
    assert progress.updates == sorted(progress.updates)
    assert progress.updates[-1][0] == progress.updates[-1][1]


@pytest.mark.slow
def test_the_same_input_gives_the_same_index(prepared: Workspace, tiny_lm: "LanguageModel") -> None:
    path = prepared.index_path("sae")
    build_index(prepared, CONFIG, lm=tiny_lm)
    first = tables(path)
    build_index(prepared, CONFIG, lm=tiny_lm)
    assert tables(path) == first
    build_index(prepared, replace(CONFIG, seed=1), lm=tiny_lm)
    other = tables(path)
    assert other["examples"] != first["examples"], "another seed draws other examples"
    assert [r for r in other["examples"] if r[1] == 0] == [
        r for r in first["examples"] if r[1] == 0
    ]
    assert other["features"] == first["features"]


def test_appending_equals_indexing_all_at_once(
    workspace: Workspace, tiny_lm: "LanguageModel", tmp_path: Path
) -> None:
    first, second = random_docs(tiny_lm, 9, seed=1), random_docs(tiny_lm, 7, seed=2)
    save_run(workspace, first, tiny_lm.tokenizer_hash, "one")
    save_run(workspace, second, tiny_lm.tokenizer_hash, "two")
    save_sae(workspace, identity_sae(tiny_lm.tokenizer_hash, run_id="one"))
    build_index(workspace, CONFIG, lm=tiny_lm)
    Annotations(workspace.annotations_path).set_concept("sae", 3, "kept")
    result = build_index(workspace, replace(CONFIG, run_id="two", append=True), lm=tiny_lm)
    assert result.run_ids == ("one", "two")
    whole = Workspace.open(tmp_path / "whole")
    for doc in second:
        doc.document += len(first)
    save_run(whole, [*first, *second], tiny_lm.tokenizer_hash, "one")
    save_sae(whole, identity_sae(tiny_lm.tokenizer_hash, run_id="one"))
    build_index(whole, CONFIG, lm=tiny_lm)
    assert tables(workspace.index_path("sae")) == tables(whole.index_path("sae"))
    store = FeatureStore.open(workspace, "sae", Annotations(workspace.annotations_path))
    assert [source["run_id"] for source in store.meta().sources] == ["one", "two"]
    assert store.rows([3])[0].concept == "kept"
    with pytest.raises(UserError, match="already"):
        build_index(workspace, replace(CONFIG, run_id="two", append=True), lm=tiny_lm)


def test_another_corpus_replaces_the_index_and_leaves_concepts(
    prepared: Workspace, tiny_lm: "LanguageModel"
) -> None:
    build_index(prepared, CONFIG, lm=tiny_lm)
    annotations = Annotations(prepared.annotations_path)
    annotations.set_concept("sae", 3, "kept", note="seen", tags=["one"])
    before = annotations.concepts("sae")
    save_run(prepared, random_docs(tiny_lm, 5), tiny_lm.tokenizer_hash, "other")
    build_index(prepared, replace(CONFIG, run_id="other"), lm=tiny_lm)
    store = FeatureStore.open(prepared, "sae", annotations)
    assert [source["run_id"] for source in store.meta().sources] == ["other"]
    assert store.meta().n_documents == 5
    assert annotations.concepts("sae") == before
    assert store.rows([3])[0].concept == "kept"


def test_appending_to_an_index_of_an_older_schema_is_told(
    prepared: Workspace, tiny_lm: "LanguageModel"
) -> None:
    build_index(prepared, CONFIG, lm=tiny_lm)
    path = prepared.index_path("sae")
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    held = path.read_bytes()
    save_run(prepared, random_docs(tiny_lm, 5), tiny_lm.tokenizer_hash, "other")
    with pytest.raises(UserError, match="older schema 1") as told:
        build_index(prepared, replace(CONFIG, run_id="other", append=True), lm=tiny_lm)
    assert "mi-crow index --sae sae builds it again" in told.value.hint
    assert path.read_bytes() == held
    build_index(prepared, CONFIG, lm=tiny_lm)
    assert FeatureStore.open(prepared, "sae").meta().n_documents == 12


def test_appending_to_nothing_is_told(prepared: Workspace, tiny_lm: "LanguageModel") -> None:
    with pytest.raises(NotFoundError, match="no feature index"):
        build_index(prepared, replace(CONFIG, append=True), lm=tiny_lm)


@pytest.mark.parametrize("looks", [0, 1, 2, 4])
def test_a_cancelled_job_leaves_nothing_behind(
    prepared: Workspace, tiny_lm: "LanguageModel", looks: int
) -> None:
    before = files(prepared)
    with pytest.raises(CancelledError):
        build_index(prepared, CONFIG, Watched(looks=looks), lm=tiny_lm)
    assert files(prepared) == before


def test_an_index_stays_readable_while_the_next_one_is_built(
    prepared: Workspace, tiny_lm: "LanguageModel"
) -> None:
    build_index(prepared, CONFIG, lm=tiny_lm)
    store = FeatureStore.open(prepared, "sae")
    with pytest.raises(CancelledError):
        build_index(prepared, CONFIG, Watched(looks=2), lm=tiny_lm)
    assert not store.changed_on_disk()
    build_index(prepared, CONFIG, lm=tiny_lm)
    assert store.detail(3).row.fires > 0
    assert store.changed_on_disk()
    store.reopen()
    assert store.detail(3).row.fires > 0


_STAGES = {
    "before the neighbours": "build.write_directions",
    "before the logits": "build.write_logits",
    "in the pass": "encode_pass.make_chunk",
    "before the features": "feature_tables.coactivations",
    "before the facts": "build.FeatureTables.facts",
    "before the rename": "atomic.os.replace",
}
_KILLED = """
import os, sys
from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.features.index import build
from mi_crow.mechanistic.features.index import encode_pass
from mi_crow.mechanistic.features.index.tables import feature_tables
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.store import atomic
from mi_crow.store.workspace import Workspace
def die(*args, **kwargs):
    os.kill(os.getpid(), 9)
def killed(stage):
    *path, name = stage.split(".")
    place = globals()[path[0]]
    for step in path[1:]:
        place = getattr(place, step)
    setattr(place, name, die)
    lm = LanguageModel.from_huggingface(sys.argv[2], device="cpu")
    build.build_index(Workspace.open(sys.argv[1]), IndexConfig("sae", device="cpu"), lm=lm)
for stage in sys.argv[3:]:
    child = os.fork()
    if not child:
        killed(stage)
        os._exit(1)
    signal = os.WTERMSIG(os.waitpid(child, 0)[1])
    print(stage, signal, sorted(os.listdir(f"{sys.argv[1]}/saes/sae")))
"""


@pytest.mark.slow
@pytest.mark.parametrize("indexed", [False, True], ids=["no index yet", "an index before"])
def test_a_job_killed_in_any_stage_shows_no_half_index_and_the_next_one_clears_up(
    prepared: Workspace, tiny_lm: "LanguageModel", tiny_model_dir: Path, indexed: bool
) -> None:
    path = prepared.index_path("sae")
    if indexed:
        build_index(prepared, replace(CONFIG, top_examples=3), lm=tiny_lm)
    before, old = files(prepared), tables(path) if indexed else None
    stages = list(_STAGES.values())[:: 1 if indexed else 3]  # each is a build of its own
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(prepared.root), str(tiny_model_dir), *stages],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = killed.stdout.splitlines()
    for line, stage in zip(lines, stages, strict=True):
        assert line.startswith(f"{stage} {signal.SIGKILL:d} "), killed.stderr[-2000:]
        assert ("'features.duckdb'" in line) == indexed
        assert ".tmp-" in line, "the kill came while something was written"
    if indexed:
        assert tables(path) == old
        assert FeatureStore.open(prepared, "sae").detail(3).row.fires > 0
    else:
        with pytest.raises(NotFoundError):
            FeatureStore.open(prepared, "sae")
    assert files(prepared) > before
    build_index(prepared, CONFIG, lm=tiny_lm)
    assert files(prepared) == before | {"saes/sae/features.duckdb"}
    assert tables(path) != old


def test_two_jobs_on_one_sae_do_not_meet(prepared: Workspace, tiny_lm: "LanguageModel") -> None:
    with (prepared.sae_dir("sae") / ".index.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="being indexed"):
            build_index(prepared, CONFIG, lm=tiny_lm)


@pytest.fixture
def unchanged(workspace: Workspace) -> Iterator[None]:
    """Whatever the test prepared is as it was after the refusal."""
    yield
    assert not [name for name in files(workspace) if ".tmp-" in name or "duckdb" in name]


@pytest.mark.usefixtures("unchanged")
class TestInputThatDoesNotFit:
    """One sentence, and nothing written."""

    def refuse(self, workspace: Workspace, lm: "LanguageModel", says: str, **config: Any) -> None:
        before = files(workspace)
        with pytest.raises(UserError, match=says):
            build_index(workspace, replace(CONFIG, **config), lm=lm)
        assert files(workspace) == before

    def test_unknown_ids(self, prepared: Workspace, tiny_lm: "LanguageModel") -> None:
        self.refuse(prepared, tiny_lm, "SAE 'other'", sae_id="other")
        self.refuse(prepared, tiny_lm, "run 'other'", run_id="other")
        self.refuse(prepared, tiny_lm, "not a valid name", run_id="/etc")

    def test_another_width(self, prepared: Workspace, tiny_lm: "LanguageModel") -> None:
        save_sae(prepared, identity_sae(tiny_lm.tokenizer_hash, n=16), "narrow")
        self.refuse(prepared, tiny_lm, "reads 16 inputs.*has width 32", sae_id="narrow")

    def test_another_layer(self, prepared: Workspace, tiny_lm: "LanguageModel") -> None:
        sae = identity_sae(tiny_lm.tokenizer_hash)
        sae.metadata = replace(sae.metadata, layer="model.layers.2", point="resid_post.2")
        save_sae(prepared, sae, "deep")
        self.refuse(prepared, tiny_lm, "layer 'model.layers.2' is not in run", sae_id="deep")

    def test_another_model(self, prepared: Workspace, tiny_lm: "LanguageModel") -> None:
        save_run(prepared, random_docs(tiny_lm, 3), "f" * 16, "foreign")
        self.refuse(prepared, tiny_lm, "is of model", run_id="foreign")

    def test_a_model_with_another_tokenizer_than_the_run(
        self, workspace: Workspace, tiny_lm: "LanguageModel"
    ) -> None:
        save_run(workspace, random_docs(tiny_lm, 3), "f" * 16)
        save_sae(workspace, identity_sae("f" * 16))
        self.refuse(workspace, tiny_lm, "another tokenizer")

    def test_memory_or_a_disk_that_runs_out(
        self, prepared: Workspace, tiny_lm: "LanguageModel", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for error, says in (
            (torch.OutOfMemoryError("CUDA out of memory"), "out of memory while indexing 'sae'"),
            (OSError(errno.ENOSPC, "No space left on device"), "ran full while indexing 'sae'"),
            (duckdb.IOException("write: No space left on device"), "ran full while indexing"),
        ):

            def fail(*_: Any, error: Exception = error) -> Any:
                raise error

            monkeypatch.setattr("mi_crow.mechanistic.features.index.encode_pass.make_chunk", fail)
            self.refuse(prepared, tiny_lm, says)

    def test_a_run_that_is_not_complete(
        self, workspace: Workspace, tiny_lm: "LanguageModel"
    ) -> None:
        docs = random_docs(tiny_lm, 3)
        save_run(workspace, docs, tiny_lm.tokenizer_hash, status="running")
        save_sae(workspace, identity_sae(tiny_lm.tokenizer_hash))
        self.refuse(workspace, tiny_lm, "not complete")

    def test_an_sae_without_a_run(self, prepared: Workspace, tiny_lm: "LanguageModel") -> None:
        sae = identity_sae(tiny_lm.tokenizer_hash)
        sae.metadata = replace(sae.metadata, run_id=None)
        save_sae(prepared, sae, "homeless")
        self.refuse(prepared, tiny_lm, "which run", sae_id="homeless")
        build_index(prepared, replace(CONFIG, sae_id="homeless", run_id="run"), lm=tiny_lm)
        (prepared.sae_dir("homeless") / "features.duckdb").unlink()


@pytest.mark.slow
def test_small_batches_find_the_same(prepared: Workspace, tiny_lm: "LanguageModel") -> None:
    build_index(prepared, CONFIG, lm=tiny_lm)
    expected = tables(prepared.index_path("sae"))
    build_index(prepared, replace(CONFIG, batch_size=3), lm=tiny_lm)
    assert tables(prepared.index_path("sae")) == expected


def test_a_run_that_names_another_model_is_told_and_indexed(
    prepared: Workspace, tiny_lm: "LanguageModel"
) -> None:
    sae = identity_sae(tiny_lm.tokenizer_hash)
    sae.metadata = replace(sae.metadata, model_name="base")
    save_sae(prepared, sae, "moved")
    progress = Watched()
    build_index(prepared, replace(CONFIG, sae_id="moved"), progress, lm=tiny_lm)
    [told] = [line for line in progress.lines if "of model" in line]
    assert "run 'run' is of model 'tiny', the SAE of 'base'" in told


def test_a_layer_of_another_width_than_the_unembedding_has_no_logits(
    workspace: Workspace, tiny_lm: "LanguageModel"
) -> None:
    docs = random_docs(tiny_lm, 4)
    for doc in docs:
        doc.acts = doc.acts[:, :16]
    save_run(workspace, docs, tiny_lm.tokenizer_hash)
    save_sae(workspace, identity_sae(tiny_lm.tokenizer_hash, n=16))
    build_index(workspace, CONFIG, lm=tiny_lm)
    detail = FeatureStore.open(workspace, "sae").detail(2)
    assert (detail.promoted, detail.suppressed, detail.skew) == ((), (), None)
    assert FeatureStore.open(workspace, "sae").meta().layer == LAYER


@pytest.mark.gpu
def test_a_gpu_finds_what_the_cpu_finds(prepared: Workspace, tiny_lm: "LanguageModel") -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    build_index(prepared, CONFIG, lm=tiny_lm)
    expected = tables(prepared.index_path("sae"))
    build_index(prepared, replace(CONFIG, device="cuda"), lm=tiny_lm)
    found = tables(prepared.index_path("sae"))
    for table in ("examples", "coactivations", "document_features", "feature_labels", "documents"):
        assert found[table] == expected[table]

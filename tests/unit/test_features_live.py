"""Indexing texts as they go through the model: the index of a captured run, without the run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mi_crow.errors import UserError
from mi_crow.jobs.checks import check_index
from mi_crow.jobs.spec import config_as_json, config_from_json
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, LiveTexts, ModelSpec
from mi_crow.language_model.placement.expected import memory_sentence
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index import build as build_module
from mi_crow.mechanistic.features.index.build import build_index
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.store.workspace import Workspace
from tests.helpers.index_runs import identity_sae, save_sae
from tests.helpers.progress import Watched
from tests.helpers.tiny_models import TEXTS
from tests.unit.test_features_job import files, tables

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

ROWS: dict[str, Any] = {"batch_size": 4, "shard_size": 7, "context_length": 24}


def corpus(path: Path, name: str, start: int = 0, count: int = 24) -> DatasetSpec:
    """Labelled documents, some longer than the context."""
    lines = [
        {
            "text": f"{n}. " + " ".join(TEXTS[n % len(TEXTS)] for _ in range(1 + n % 3)),
            "label": kind,
        }
        for n, kind in ((n, ("sea", "land", "air")[n % 3]) for n in range(start, start + count))
    ]
    file = path / f"{name}.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return DatasetSpec(str(file))


@pytest.fixture
def place(workspace: Workspace, tiny_lm: "LanguageModel") -> Workspace:
    """A workspace with an SAE in which an outlier limit cuts through the tokens."""
    for sae_id in ("sae", "twin"):
        sae = identity_sae(tiny_lm.tokenizer_hash)
        sae.metadata = replace(sae.metadata, outlier_norm=5.6, run_id=None)
        save_sae(workspace, sae, sae_id)
    return workspace


def stored(
    workspace: Workspace, dataset: DatasetSpec, model: Path, name: str, **rows: Any
) -> IndexConfig:
    """Captures the texts, and gives what indexes the run."""
    config = CaptureConfig(
        ModelSpec(str(model), device="cpu"),
        dataset,
        ("resid_post.1",),
        dtype="fp32",
        name=name,
        **{**ROWS, **rows},
    )
    capture_run(workspace, config)
    return IndexConfig("sae", run_id=name, device="cpu")


def live(dataset: DatasetSpec, model: Path | None, **rows: Any) -> IndexConfig:
    spec = None if model is None else ModelSpec(str(model))
    return IndexConfig("twin", live=LiveTexts(dataset, spec, **{**ROWS, **rows}), device="cpu")


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param({}, id="truncated"),
        pytest.param({"long_documents": "split"}, id="split", marks=pytest.mark.slow),
        pytest.param({"pack": True}, id="packed"),
        pytest.param({"keep_special": True, "shard_size": 5}, id="special", marks=pytest.mark.slow),
    ],
)
def test_the_live_index_is_that_of_the_captured_run(
    place: Workspace, tmp_path: Path, tiny_model_dir: Path, rows: dict[str, Any]
) -> None:
    dataset = corpus(tmp_path, "texts")
    build_index(place, stored(place, dataset, tiny_model_dir, "run", **rows))
    told, spec = Watched(), ModelSpec(str(tiny_model_dir), device="cpu")
    result = build_index(place, live(dataset, tiny_model_dir, **rows), told)
    memory = str(memory_sentence(spec)).partition(", of")[0]  # what is free changes meanwhile
    assert memory.endswith(" on cpu")
    assert told.lines[0].startswith(memory)
    assert result.run_ids == ()
    assert result.tokens == FeatureStore.open(place, "sae").meta().n_tokens > 0
    expected, found = (tables(place.index_path(sae_id)) for sae_id in ("sae", "twin"))
    for table, content in expected.items():
        assert found[table] == content, table
    assert {split for *_, split, _, _ in found["documents"]} == {"train", "heldout"}
    outliers = [
        int(FeatureStore.open(place, sae_id).meta().other["n_outliers"])
        for sae_id in ("sae", "twin")
    ]
    assert outliers[0] == outliers[1] > 0


@pytest.mark.slow
def test_a_token_limit_ends_the_texts(
    place: Workspace, tmp_path: Path, tiny_model_dir: Path
) -> None:
    dataset = replace(corpus(tmp_path, "texts"), token_limit=100)
    build_index(place, stored(place, dataset, tiny_model_dir, "run"))
    build_index(place, live(dataset, tiny_model_dir))
    assert tables(place.index_path("sae")) == tables(place.index_path("twin"))


@pytest.mark.slow
def test_texts_can_be_added_to_a_run_and_read_again(
    place: Workspace, tmp_path: Path, tiny_model_dir: Path
) -> None:
    first, second, third = (corpus(tmp_path, f"c{n}", 100 * n, 15) for n in range(3))
    run = stored(place, first, tiny_model_dir, "one")
    build_index(place, replace(run, sae_id="twin"))
    build_index(place, replace(live(second, tiny_model_dir), append=True))
    # The model of the texts is known from then on.
    build_index(place, replace(live(third, None), append=True))
    sources = FeatureStore.open(place, "twin").meta().sources
    assert [source["run_id"] for source in sources] == ["one", None, None]
    assert sources[1]["live"]["dataset"]["source"] == second.source
    together = tmp_path / "together.jsonl"
    together.write_text("".join(Path(one.source).read_text() for one in (first, second, third)))
    # One part each: batches, and with them the last bits, are those of the three.
    dataset = DatasetSpec(str(together))
    build_index(place, stored(place, dataset, tiny_model_dir, "all", shard_size=15))
    appended, whole = (tables(place.index_path(sae_id)) for sae_id in ("twin", "sae"))
    assert [row[1] for row in appended["documents"]] == [row[1] for row in whole["documents"]]
    assert appended["labels"] == whole["labels"]
    assert len(appended["examples"]) == len(whole["examples"])


@pytest.mark.slow
def test_texts_that_are_not_as_they_were_are_not_added_to(
    place: Workspace, tmp_path: Path, tiny_model_dir: Path
) -> None:
    first, second = corpus(tmp_path, "a"), corpus(tmp_path, "b", 50)
    build_index(place, live(first, tiny_model_dir))
    again = replace(live(first, tiny_model_dir), append=True)
    with pytest.raises(UserError, match="already"):
        build_index(place, again)
    Path(first.source).write_text('{"text": "other", "label": "sea"}\n')
    before = tables(place.index_path("twin"))
    with pytest.raises(UserError, match="changed since it was indexed"):
        build_index(place, replace(live(second, tiny_model_dir), append=True))
    assert tables(place.index_path("twin")) == before


@pytest.mark.slow
def test_weights_only_tables_are_copied_when_the_weights_are_the_same(
    place: Workspace, tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = corpus(tmp_path, "a"), corpus(tmp_path, "b", 50)
    build_index(place, live(first, tiny_model_dir))
    before = tables(place.index_path("twin"))
    computed: list[str] = []

    def counting(name: str) -> Any:
        original = getattr(build_module, name)

        def run(*args: Any) -> Any:
            computed.append(name)
            return original(*args)

        return run

    for name in ("content_digest", "write_directions", "write_logits"):
        monkeypatch.setattr(build_module, name, counting(name))
    more = replace(live(second, tiny_model_dir), append=True)
    build_index(place, more)
    assert computed == [], "the files are those of before: they are not hashed again"
    after = tables(place.index_path("twin"))
    for table in ("neighbours", "logits", "tokens"):
        assert after[table] == before[table] != []
    more = replace(more, live=LiveTexts(corpus(tmp_path, "c", 90)), neighbours=3)
    build_index(place, more)
    assert computed == ["write_directions", "write_logits"], "other settings, other tables"
    computed.clear()
    sae = identity_sae(None)
    sae.W_dec.data[0, 1] = 0.5
    build_index(
        place, replace(more, live=LiveTexts(corpus(tmp_path, "d", 120)), neighbours=3), sae=sae
    )
    every = ["content_digest", "write_directions", "write_logits"]
    assert computed == every, "other weights, other tables"


class TestTextsThatDoNotFit:
    """One sentence, and nothing written."""

    def refuse(self, workspace: Workspace, config: IndexConfig, says: str) -> None:
        before = files(workspace)
        with pytest.raises(UserError, match=says):
            build_index(workspace, config)
        assert files(workspace) == before

    def test_another_model(self, place: Workspace, tmp_path: Path, tiny_model_dir: Path) -> None:
        sae = identity_sae("f" * 16)
        save_sae(place, sae, "foreign")
        config = live(corpus(tmp_path, "a"), tiny_model_dir)
        self.refuse(place, replace(config, sae_id="foreign"), "is of model 'tiny', not of")

    def test_another_width(self, place: Workspace, tmp_path: Path, tiny_model_dir: Path) -> None:
        save_sae(place, identity_sae(None, n=16), "narrow")
        config = live(corpus(tmp_path, "a"), tiny_model_dir)
        self.refuse(place, replace(config, sae_id="narrow"), "reads 16 inputs.*has width 32")

    def test_texts_without_tokens(
        self, place: Workspace, tmp_path: Path, tiny_model_dir: Path
    ) -> None:
        spec = corpus(tmp_path, "a")
        config = live(spec, tiny_model_dir, context_length=1)
        self.refuse(place, config, "token|context")

    def test_what_is_known_before_a_job_starts(
        self, place: Workspace, tmp_path: Path, tiny_model_dir: Path
    ) -> None:
        good = live(corpus(tmp_path, "a"), tiny_model_dir)
        check_index(place, good)
        bad = DatasetSpec(str(tmp_path / "none.jsonl"))
        for config, says in (
            (live(bad, tiny_model_dir), "none.jsonl' not found"),
            (live(corpus(tmp_path, "b"), tmp_path / "no"), "not found"),
            (live(corpus(tmp_path, "b"), tiny_model_dir, context_length=0), "context length"),
            (replace(good, sae_id="nobody"), "SAE 'nobody'"),
        ):
            with pytest.raises(UserError, match=says):
                check_index(place, config)


def test_the_config_goes_through_json(tiny_model_dir: Path) -> None:
    config = live(DatasetSpec("sample", limit=5), tiny_model_dir)
    assert config_from_json(IndexConfig, json.loads(json.dumps(config_as_json(config)))) == config


def test_a_run_and_texts_exclude_each_other() -> None:
    with pytest.raises(UserError, match="both given"):
        IndexConfig("sae", run_id="run", live=LiveTexts(DatasetSpec("sample")))

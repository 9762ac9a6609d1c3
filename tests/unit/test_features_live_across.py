"""Indexing texts for SAEs over several layers: the index of captured runs, without the runs."""

from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch

from mi_crow.errors import CancelledError, UserError
from mi_crow.jobs.checks import check_index
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture import forward as forward_module
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, LiveTexts, ModelSpec
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.build import build_index
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.reading import layers_read
from mi_crow.mechanistic.sae.cross_layer.record import ROLES, ModelRead
from mi_crow.store.runs.joined import JoinedReader
from mi_crow.store.workspace import Workspace, read_sae_summary
from tests.helpers.cross_layer_fixture import shared, small
from tests.helpers.progress import Watched
from tests.helpers.thread_ranks import in_threads
from tests.helpers.tiny_models import save_tiny_llama
from tests.unit.test_features_job import files, tables
from tests.unit.test_features_live import ROWS, corpus

LAYERS = ("resid_post.0", "resid_post.2", "mlp_in.0", "mlp_in.1", "mlp_in.2")
STORED = IndexConfig("sae", run_id="base", device="cpu")
KINDS = ("crosscoder", "clt", "two")
every = pytest.mark.parametrize(
    "kind", ["crosscoder", *(pytest.param(one, marks=pytest.mark.slow) for one in KINDS[1:])]
)


def captured(workspace: Workspace, texts: DatasetSpec, model: Path, name: str) -> None:
    spec = ModelSpec(str(model), device="cpu")
    capture_run(workspace, CaptureConfig(spec, texts, LAYERS, dtype="fp32", name=name, **ROWS))


def made(kind: str, models: list[Path], tokenizer_hash: str) -> CrossLayerSae:
    if kind == "clt":
        sae: CrossLayerSae = small("clt")
    elif kind == "two":
        runs = zip(ROLES, models, ROLES, strict=True)
        sae = shared((0, 2), tuple(ModelRead(role, str(one), None, run) for role, one, run in runs))
    else:
        sae = shared((0, 2))
    name = str(models[-1])
    sae.metadata = replace(sae.metadata, model_name=name, tokenizer_hash=tokenizer_hash)
    return sae


@pytest.fixture
def texts(tmp_path: Path) -> DatasetSpec:
    return corpus(tmp_path, "texts")


@pytest.fixture
def place(
    workspace: Workspace,
    kind: str,
    texts: DatasetSpec,
    tiny_model_dir: Path,
    tiny_tuned_dir: Path,
    tiny_lm: LanguageModel,
) -> Workspace:
    """A workspace with the runs, and twice the SAE, whose outlier limit cuts through the tokens."""
    models = [tiny_model_dir, tiny_tuned_dir] if kind == "two" else [tiny_model_dir]
    for model, name in zip(models, ROLES, strict=False):
        captured(workspace, texts, model, name)
    sae = made(kind, models, tiny_lm.tokenizer_hash)
    reader = JoinedReader(layers_read(workspace, sae, "sae", "base"), "")
    limit = float(torch.cat([part.norms for part in reader.parts()]).quantile(0.8))
    sae.metadata = replace(sae.metadata, outlier_norm=limit)
    for sae_id in ("sae", "twin"):
        sae.save(workspace.make_sae_dir(sae_id, sae_id))
    return workspace


def live(texts: DatasetSpec) -> IndexConfig:
    return IndexConfig("twin", live=LiveTexts(texts, **ROWS), device="cpu")


def same(workspace: Workspace) -> None:
    expected, found = (tables(workspace.index_path(sae_id)) for sae_id in ("sae", "twin"))
    for table, content in expected.items():
        assert found[table] == content, table
    one, other = (FeatureStore.open(workspace, sae_id).meta() for sae_id in ("sae", "twin"))
    for name in ("layer", "model_id", "n_features", "n_tokens", "n_documents"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.other["n_outliers"] == other.other["n_outliers"] != "0"


@every
def test_the_live_index_is_that_of_the_captured_runs(place: Workspace, texts: DatasetSpec) -> None:
    build_index(place, STORED)
    check_index(place, live(texts))
    result = build_index(place, live(texts))
    assert result.run_ids == ()
    same(place)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_memory_that_runs_out_changes_no_row(
    place: Workspace, texts: DatasetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of the two models stay the same tokens, however small one of them has to take
    them."""
    build_index(place, STORED)
    run = forward_module.Forward._run
    seen: list[int] = []

    def narrow(self: Any, batch: Any) -> Any:
        if len(batch.counts) > 1 and "tuned" not in self._lm.model_id:
            seen.append(len(batch.counts))
            raise MemoryError
        return run(self, batch)

    monkeypatch.setattr(forward_module.Forward, "_run", narrow)
    build_index(place, live(texts))
    assert seen
    one, other = (tables(place.index_path(sae_id)) for sae_id in ("sae", "twin"))
    assert one["documents"] == other["documents"]
    assert [row[:2] for row in one["features"]] == [row[:2] for row in other["features"]]
    for first, second in zip(one["features"], other["features"], strict=True):
        numbers = [value for value in first if isinstance(value, float)]
        found = [value for value in second if isinstance(value, float)]
        assert found == pytest.approx(numbers, abs=1e-4, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_shared_among_processes(place: Workspace, texts: DatasetSpec) -> None:
    build_index(place, replace(live(texts), sae_id="sae"))
    model = read_sae_summary(place.sae_dir("sae")).model_id
    # One after another: transformers cannot load models in several threads at once.
    models = [LanguageModel.from_huggingface(model, device="cpu") for _ in range(2)]
    load, lock = LanguageModel.from_spec, Lock()

    def one_by_one(spec: ModelSpec) -> LanguageModel:
        with lock:
            return load(spec)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguageModel, "from_spec", staticmethod(one_by_one))
        in_threads(
            lambda ranks: build_index(place, live(texts), lm=models[ranks.rank], ranks=ranks), 2
        )
    same(place)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_added_to_a_run_and_read_again(
    place: Workspace, texts: DatasetSpec, tmp_path: Path
) -> None:
    build_index(place, replace(STORED, sae_id="twin"))
    for name, start in (("b", 50), ("c", 90)):
        build_index(place, replace(live(corpus(tmp_path, name, start, 15)), append=True))
    sources = FeatureStore.open(place, "twin").meta().sources
    assert [source["run_id"] for source in sources] == ["base", None, None]
    assert len(tables(place.index_path("twin"))["documents"]) == 24 + 15 + 15
    Path(texts.source).with_name("b.jsonl").write_text('{"text": "other", "label": "sea"}\n')
    before = tables(place.index_path("twin"))
    more = live(corpus(tmp_path, "d", 130))
    with pytest.raises(UserError, match="changed since it was indexed"):
        build_index(place, replace(more, append=True))
    assert tables(place.index_path("twin")) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_index_leaves_nothing_and_is_built_again(
    place: Workspace, texts: DatasetSpec
) -> None:
    build_index(place, STORED)
    before = files(place)
    with pytest.raises(CancelledError):
        build_index(place, live(texts), Watched(looks=4))
    assert files(place) == before
    build_index(place, live(texts))
    same(place)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["two"])
def test_two_models_that_do_not_go_together_are_refused(
    place: Workspace, texts: DatasetSpec, tiny_model_dir: Path, tmp_path: Path
) -> None:
    before = files(place)
    of_base = LiveTexts(texts, ModelSpec(str(tiny_model_dir)), **ROWS)
    with pytest.raises(UserError, match="is the base model of SAE 'twin'"):
        build_index(place, replace(live(texts), live=of_base))
    with pytest.raises(UserError, match="a run of the tuned model and texts were both given"):
        replace(live(texts), tuned_run="tuned")
    config = place.sae_dir("twin") / "cfg.json"
    written = config.read_text()
    other = save_tiny_llama(tmp_path / "other", vocabulary=300)
    for base, says in ((other, "have different tokenizers"), (tmp_path / "none", "not found")):
        config.write_text(written.replace(str(tiny_model_dir), str(base)))
        with pytest.raises(UserError, match=says):
            build_index(place, live(texts))
    with pytest.raises(UserError, match="the base model of SAE 'twin' cannot be read"):
        check_index(place, live(texts))
    config.write_text(written)
    assert files(place) == before

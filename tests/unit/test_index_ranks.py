"""Several ranks build the index that one process builds, row for row."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mi_crow.errors import CancelledError, UserError
from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.build import build_index
from mi_crow.mechanistic.features.index.ranked.numbering import in_order, numberings
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.store.workspace import Workspace
from tests.helpers.index_runs import identity_sae, save_run, save_sae
from tests.helpers.progress import Watched
from tests.helpers.thread_ranks import in_threads
from tests.unit.test_features_build import random_docs
from tests.unit.test_features_job import files, tables
from tests.unit.test_features_live import corpus, live

CONFIG = IndexConfig("sae", device="cpu")


@pytest.fixture
def prepared(workspace: Workspace, tiny_lm: LanguageModel) -> Workspace:
    """A run of five parts, and the same SAE twice."""
    save_run(workspace, random_docs(tiny_lm, 13), tiny_lm.tokenizer_hash, part_documents=3)
    for sae_id in ("sae", "twin"):
        save_sae(workspace, identity_sae(tiny_lm.tokenizer_hash), sae_id)
    return workspace


def same(workspace: Workspace) -> None:
    expected, found = (tables(workspace.index_path(sae_id)) for sae_id in ("sae", "twin"))
    for table, content in expected.items():
        assert found[table] == content, table
    one, other = (FeatureStore.open(workspace, sae_id).meta() for sae_id in ("sae", "twin"))
    # The two SAEs are in different folders.
    own = [{**of.other, "weights_origin": ""} for of in (one, other)]
    assert own[0] == own[1]
    assert (one.n_tokens, one.n_documents) == (other.n_tokens, other.n_documents)


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_write_what_one_process_writes(
    prepared: Workspace, tiny_lm: LanguageModel, world: int
) -> None:
    alone = build_index(prepared, CONFIG, lm=tiny_lm)
    before = files(prepared)
    shared = in_threads(
        lambda ranks: build_index(
            prepared, replace(CONFIG, sae_id="twin"), lm=tiny_lm, ranks=ranks
        ),
        world,
    )
    same(prepared)
    assert {one.tokens for one in shared} == {alone.tokens}
    assert files(prepared) == before | {"saes/twin/features.duckdb"}


@pytest.mark.slow
def test_more_ranks_than_parts(prepared: Workspace, tiny_lm: LanguageModel) -> None:
    build_index(prepared, CONFIG, lm=tiny_lm)
    twin = replace(CONFIG, sae_id="twin")
    in_threads(lambda ranks: build_index(prepared, twin, lm=tiny_lm, ranks=ranks), 7)
    same(prepared)


@pytest.mark.slow
def test_ranks_append_and_copy_what_the_weights_gave(
    prepared: Workspace, tiny_lm: LanguageModel
) -> None:
    save_run(prepared, random_docs(tiny_lm, 8, seed=4), tiny_lm.tokenizer_hash, "more")
    for sae_id in ("sae", "twin"):
        build_index(prepared, replace(CONFIG, sae_id=sae_id), lm=tiny_lm)
    more = replace(CONFIG, run_id="more", append=True)
    build_index(prepared, more, lm=tiny_lm)
    twin = replace(more, sae_id="twin")
    in_threads(lambda ranks: build_index(prepared, twin, lm=tiny_lm, ranks=ranks))
    same(prepared)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 100])
def test_texts_through_the_model_are_shared_as_well(
    workspace: Workspace,
    tmp_path: Path,
    tiny_model_dir: Path,
    tiny_lm: LanguageModel,
    limit: int | None,
) -> None:
    for sae_id in ("sae", "twin"):
        sae = identity_sae(tiny_lm.tokenizer_hash)
        sae.metadata = replace(sae.metadata, outlier_norm=5.6, run_id=None)
        save_sae(workspace, sae, sae_id)
    texts = replace(corpus(tmp_path, "texts"), token_limit=limit)
    config = live(texts, tiny_model_dir)
    build_index(workspace, replace(config, sae_id="sae"))
    # One after another: transformers cannot load models in several threads at once.
    models = [LanguageModel.from_huggingface(str(tiny_model_dir), device="cpu") for _ in range(2)]
    in_threads(
        lambda ranks: build_index(workspace, config, lm=models[ranks.rank], ranks=ranks),
        len(models),
    )
    same(workspace)


def test_a_rank_that_stops_leaves_no_index(prepared: Workspace, tiny_lm: LanguageModel) -> None:
    before = files(prepared)
    with pytest.raises(CancelledError):
        in_threads(
            lambda ranks: build_index(
                prepared, CONFIG, Watched(looks=1 if ranks.rank else None), lm=tiny_lm, ranks=ranks
            )
        )
    assert files(prepared) == before
    with pytest.raises(UserError, match="no-such"):
        in_threads(
            lambda ranks: build_index(
                prepared, replace(CONFIG, run_id="no-such"), lm=tiny_lm, ranks=ranks
            )
        )
    assert files(prepared) == before


def test_documents_get_the_numbers_of_one_process() -> None:
    places = [[(0, 0, 0), (0, 2, 0), (1, 0, 1)], [(0, 1, 0), (1, 0, 0)]]
    counts = [np.array([2, 0, 3]), np.array([4, 1])]
    order = in_order(places)
    assert order == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
    first, second = numberings(order, counts)
    assert first.of(np.arange(5)).tolist() == [0, 1, 7, 8, 9]
    assert second.of(np.arange(5)).tolist() == [2, 3, 4, 5, 6]

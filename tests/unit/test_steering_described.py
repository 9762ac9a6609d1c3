"""Features for a description in words, and the judge that goes by it."""

from collections import Counter

import pytest

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.steering.measure.aims.described import (
    features_described,
    match_scores,
    texts_described,
)
from mi_crow.mechanistic.steering.measure.config import AutoConfig, Judging
from mi_crow.mechanistic.steering.measure.judges import judge_of
from mi_crow.mechanistic.steering.measure.texts import IndexedTexts
from tests.helpers.index_fixture import copy_index

SAE = "demo"


@pytest.fixture
def indexed(workspace) -> tuple[FeatureStore, IndexedTexts]:
    (workspace.make_sae_dir(SAE, SAE) / "cfg.json").write_text("{}")
    copy_index(workspace, SAE, n_features=160, n_documents=64)
    store = FeatureStore.open(workspace, SAE)
    return store, IndexedTexts(store)


def test_a_rare_word_counts_more_and_a_long_text_less() -> None:
    corpus = ["the ship", "the harbour", "the harbour of the old town by the long grey sea", "the"]
    ship, near, far, neither = match_scores("texts about ships in the harbour", corpus)
    assert ship > near > far > neither == 0
    assert match_scores("ships", [*corpus, "SHIPS"])[4] > 0
    assert not match_scores("ships", []).size


def test_the_texts_that_match_tell_their_features(indexed) -> None:
    store, texts = indexed
    description = "masts, keels and anchors in the harbour"
    about, others = texts_described(texts, description)
    inside, outside = (Counter(one.label for one in side) for side in (about, others))
    assert inside["sailing"] > 0.9 * inside.total()
    assert outside["sailing"] < 0.1 * outside.total()
    found = features_described(store, texts, f"sailing: {description}")
    assert 0 < len(found) <= 8
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert {name for one in found for name in one.ranks} == {"words", "contrast"}
    rows = store.rows([one.feature for one in found])
    assert all(row.max_act for row in rows)
    assert "sailing" in {row.top_label for row in rows[:3]}
    judge = judge_of(Judging(description=description), None, texts, 20)
    assert judge.what == f"what {description!r} is about"
    assert judge.share([one.text for one in about]) > judge.share([one.text for one in others])


def test_what_nothing_is_about_is_said(indexed) -> None:
    store, texts = indexed
    with pytest.raises(NotFoundError, match="no feature is about 'zzyzx'"):
        features_described(store, texts, "zzyzx")
    with pytest.raises(UserError, match="the description is empty"):
        features_described(store, texts, " ,")
    with pytest.raises(UserError, match="in 0 indexed texts"):
        texts_described(texts, "zzyzx")
    with pytest.raises(UserError, match="a feature, a label and a description"):
        AutoConfig(SAE, feature=3, description="ships")
    with pytest.raises(UserError, match="the description is empty"):
        AutoConfig(SAE, description="  ")
    with pytest.raises(UserError, match="several judges"):
        Judging(label="sea", description="ships")

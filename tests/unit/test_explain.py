"""Names without a language model: true ones for features that fire on words, and worth nothing for
features that fire at random."""

from pathlib import Path

import numpy as np
import pytest

from mi_crow.errors import CancelledError, NotFoundError, UserError
from mi_crow.mechanistic.concepts.naming_line import NamingLine, parse_naming
from mi_crow.mechanistic.explain.config import ExplainConfig
from mi_crow.mechanistic.explain.evidence import SCOPES, Background, Firings, log_odds
from mi_crow.mechanistic.explain.job import ExplainResult, explain_features
from mi_crow.mechanistic.explain.rules import MOST_IDS, Parts, Rules, false_alarms, score
from mi_crow.mechanistic.explain.words import LINE_BREAK, NUMBER, read_corpus, token_texts
from mi_crow.mechanistic.features.beside.proposals import proposals_path
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.query_language import QueryError, parse_query
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import TOPICS, make_index
from tests.helpers.progress import Watched

SAE = "fixture-sae"
WORDS = [word for words in TOPICS.values() for word in words]


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, ExplainResult]:
    workspace = Workspace.open(tmp_path_factory.mktemp("explain") / "w")
    make_index(workspace, SAE, n_documents=120)
    return workspace, explain_features(workspace, ExplainConfig(SAE))


@pytest.fixture
def store(named: tuple[Workspace, ExplainResult]) -> FeatureStore:
    return FeatureStore.open(named[0], SAE)


def test_a_feature_of_a_word_is_named_after_it(store: FeatureStore) -> None:
    rows = store.rows(range(len(WORDS)))
    assert [word for word, row in zip(WORDS, rows, strict=True) if word in row.proposed] == WORDS
    detail = store.detail(WORDS.index("harbour"))
    assert detail.proposal is not None
    assert detail.proposal.kind == "token"
    assert detail.proposal.score is not None
    assert detail.proposal.score > 0.9
    assert "harbour" in detail.proposal.words


def test_names_of_others_tell_nothing(named: tuple[Workspace, ExplainResult]) -> None:
    result = named[1]
    assert result.scored > 0
    assert result.score is not None
    assert result.score > 0.85
    assert result.chance is not None
    assert abs(result.chance - 0.5) < 0.1


def test_a_dead_feature_gets_no_name(store: FeatureStore) -> None:
    dead = int(np.flatnonzero(store.columns().fires == 0)[0])
    proposal = store.detail(dead).proposal
    assert proposal is not None
    assert (proposal.name, proposal.kind, proposal.score) == ("", "dead", None)


def test_a_seed_gives_the_same_names(
    named: tuple[Workspace, ExplainResult], tmp_path: Path
) -> None:
    path = proposals_path(named[0], SAE)
    before = path.read_bytes()
    explain_features(named[0], ExplainConfig(SAE))
    assert path.read_bytes() == before


def test_names_are_found_sorted_and_asked_for(store: FeatureStore) -> None:
    found = store.find(parse_query("proposed:harbour kind:token score>0.9")).tolist()
    assert WORDS.index("harbour") in found
    assert all("harbour" in row.proposed for row in store.rows(found))
    by_score = store.rows(store.find(parse_query("sort:score"))[:3], ["proposed", "kind", "score"])
    scores = [row.more["score"] for row in by_score]
    assert scores == sorted(scores, reverse=True)
    assert all(row.more["proposed"] and row.more["kind"] for row in by_score)
    with pytest.raises(QueryError, match="'tokn' is not a kind"):
        parse_query("kind:tokn")


def test_names_of_another_build_are_not_shown(named: tuple[Workspace, ExplainResult]) -> None:
    workspace = named[0]
    kept = workspace.index_path(SAE).read_bytes()
    make_index(workspace, SAE, n_documents=48)
    try:
        store = FeatureStore.open(workspace, SAE)
        assert store.rows([0])[0].proposed == ""
        assert store.detail(0).proposal is None
        with pytest.raises(UserError, match="no proposed names") as caught:
            store.find(parse_query("proposed:harbour"))
        assert caught.value.hint == f"mi-crow explain --sae {SAE}"
    finally:
        workspace.index_path(SAE).write_bytes(kept)


def test_a_damaged_file_counts_as_none(named: tuple[Workspace, ExplainResult]) -> None:
    path = proposals_path(named[0], SAE)
    kept = path.read_bytes()
    path.write_bytes(kept[: len(kept) // 2])
    try:
        assert FeatureStore.open(named[0], SAE).rows([0])[0].proposed == ""
    finally:
        path.write_bytes(kept)


def test_a_stop_leaves_the_names_as_they_were(named: tuple[Workspace, ExplainResult]) -> None:
    path = proposals_path(named[0], SAE)
    before = path.stat().st_mtime_ns
    with pytest.raises(CancelledError):
        explain_features(named[0], ExplainConfig(SAE), Watched(looks=0))
    assert path.stat().st_mtime_ns == before
    assert [one.name for one in path.parent.glob(".tmp-*")] == []


def test_an_index_is_needed(named: tuple[Workspace, ExplainResult]) -> None:
    with pytest.raises(NotFoundError):
        explain_features(named[0], ExplainConfig("nobody"))


def test_words_are_runs_of_tokens_up_to_a_space(store: FeatureStore) -> None:
    corpus = read_corpus(store.connection, 0)
    first = store.all_examples(0)[0][0]
    tokens = corpus.words[corpus.starts[first.document] :][: len(first.tokens)]
    assert corpus.texts[int(tokens[0])].strip().casefold() in first.text.casefold()
    at = int(corpus.starts[first.document]) + first.position
    assert corpus.texts[int(corpus.words[at])] in WORDS
    assert corpus.texts[NUMBER] == "a number"


class _Unnamed:
    """An index of whose tokens none is promoted or suppressed."""

    def __init__(self, store: FeatureStore) -> None:
        self.sae_id = store.sae_id
        self._of = store.connection

    def columns(self, query: str, values: list | None = None) -> dict[str, np.ndarray]:
        found = self._of.columns(query, values or [])
        if "idx.tokens" in query:
            return {name: column[:0] for name, column in found.items()}
        return found


def test_a_token_that_nothing_promotes_has_the_text_of_the_documents(store: FeatureStore) -> None:
    corpus = read_corpus(store.connection, 0)
    known = token_texts(store.connection, corpus.tokens, corpus.starts)
    met = token_texts(_Unnamed(store), corpus.tokens, corpus.starts)  # type: ignore[arg-type]
    used = np.unique(corpus.tokens).tolist()
    assert [met[one].strip() for one in used] == [known[one].strip() for one in used]
    assert read_corpus(_Unnamed(store), 0).texts == corpus.texts  # type: ignore[arg-type]


def test_a_line_break_is_a_word(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = read_corpus(store.connection, 0)
    token = int(corpus.tokens[3])
    texts = token_texts(store.connection, corpus.tokens, corpus.starts)
    texts[token] = "\n\n"
    monkeypatch.setattr("mi_crow.mechanistic.explain.words.token_texts", lambda *_: texts)
    changed = read_corpus(store.connection, 0)
    assert set(changed.words[changed.tokens == token].tolist()) == {LINE_BREAK}
    assert changed.texts[LINE_BREAK] == "a line break"


def test_a_rule_of_two_parts_is_scored_by_how_many_hold(store: FeatureStore) -> None:
    corpus = read_corpus(store.connection, 0)
    rng = np.random.default_rng(0)
    tokens = np.sort(rng.choice(len(corpus.tokens), 40, replace=False))
    strengths = rng.random(40)
    firings = Firings(np.zeros(40, dtype=np.int64), tokens, strengths, 1)
    background = Background(corpus, np.ones(len(corpus.labels), dtype=bool), rng)
    ids = np.full((1, MOST_IDS), -1)
    word, label = ids.copy(), ids.copy()
    word[0, :2] = corpus.words[tokens[:2]]
    label[0, 0] = corpus.labels[corpus.document[tokens[0]]]
    kinds = [np.array([SCOPES.index(scope)], dtype=np.int8) for scope in ("on", "label")]
    parts = Parts(kinds[0], word), Parts(kinds[1], label)
    there = [part.seen(corpus, firings, background) for part in parts]
    fires = np.sum([found for found, _ in there], axis=0)
    silent = np.sum([np.unpackbits(bits[0])[: background.size] for _, bits in there], axis=0)
    above = (fires[:, None] > silent) + 0.5 * (fires[:, None] == silent)
    expected = (above.mean(axis=1) * strengths).sum() / strengths.sum()
    rules = Rules(*parts, np.zeros(1))
    assert score(corpus, rules, firings, background, np.zeros(1)).auroc == pytest.approx([expected])


def test_log_odds_grow_with_the_count_and_shrink_with_the_rate() -> None:
    z = log_odds(np.array([2, 8, 8]), np.full(3, 10), np.array([0.01, 0.01, 0.5]), 4096)
    assert z[1] > z[0] > 0
    assert z[2] < z[1]


def test_false_alarms_leave_out_the_firings() -> None:
    # 10% of tokens fire, the rule holds on all of them and on 5% of the others.
    wrong = false_alarms(np.array([0.145]), np.array([1.0]), np.array([0.1]))
    assert wrong == pytest.approx([0.05])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rain", NamingLine("rain")),
        (
            "heavy rain #weather #wet ~0.8 -- and hail",
            NamingLine("heavy rain", ("weather", "wet"), 0.8, "and hail"),
        ),
        ("C# and ~ 5", NamingLine("C# and ~ 5")),
        ("#weather", NamingLine("", ("weather",))),
        ("rain --", NamingLine("rain", note="")),
    ],
)
def test_a_line_names_a_feature(text: str, expected: NamingLine) -> None:
    assert parse_naming(text) == expected


@pytest.mark.parametrize("text", ["rain ~2", "rain ~much", "rain ~0.1 ~0.2"])
def test_a_wrong_confidence_is_named(text: str) -> None:
    with pytest.raises(UserError, match="confidence"):
        parse_naming(text)

"""Explanations by a chat model: a real small server answers, from rules."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.errors import CancelledError, MachineError, UserError
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.language_model.endpoint import Endpoint, RubbishError, check_endpoint
from mi_crow.mechanistic.explain.explanations.config import ExplanationsConfig
from mi_crow.mechanistic.explain.explanations.job import ANSWER_S, estimate, explain_with
from mi_crow.mechanistic.explain.explanations.local import local_chat
from mi_crow.mechanistic.explain.explanations.questions import (
    chosen_in,
    explain_question,
    explanation_in,
)
from mi_crow.mechanistic.explain.explanations.scores import balanced
from mi_crow.mechanistic.explain.explanations.texts import Passage, material_of, silent_passages
from mi_crow.mechanistic.explain.explanations.untrained import untrained_features
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.build import build_index
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.query_language import parse_query
from mi_crow.mechanistic.features.records import Explanation
from mi_crow.store.workspace import Workspace
from tests.helpers.chat_server import Chat
from tests.helpers.index_fixture import TOPICS, make_index
from tests.helpers.local_server import served
from tests.helpers.progress import Watched
from tests.helpers.steering_fixture import tiny_sae
from tests.helpers.word_vectors import model2vec_folder

SAE = "fixture-sae"
WORDS = [word for words in TOPICS.values() for word in words]


@pytest.fixture
def chat() -> Iterator[Chat]:
    with served(Chat()) as server:
        yield server


@pytest.fixture
def indexed_workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.open(tmp_path / "w")
    make_index(workspace, SAE, n_documents=120)
    return workspace


def config_of(chat: Chat, **changes: Any) -> ExplanationsConfig:
    return ExplanationsConfig(SAE, chat.url, "rules", parallel=2, **{"most": 6, **changes})


def explained(workspace: Workspace) -> dict[int, Explanation]:
    store = FeatureStore.open(workspace, SAE)
    return store.connection.proposals.explanations


def test_explanations_are_scored_on_texts_that_the_explainer_did_not_see(indexed_workspace, chat):
    told = explain_with(indexed_workspace, config_of(chat, most=64))
    store = FeatureStore.open(indexed_workspace, SAE)
    said = store.connection.proposals.explanations
    assert told["explained"] == len(said) > 16
    scored = [
        one for one in said.values() if one.detection is not None and one.feature < len(WORDS)
    ]
    assert len(scored) >= 8
    for one in scored:  # features that fire on one word
        assert one.text == WORDS[one.feature]
        assert one.detection is not None
        assert one.detection > 0.85
        assert one.fuzzing is None or one.fuzzing > 0.85
    alone = [one.intruder for one in scored if one.intruder is not None]
    assert len(alone) >= 8
    assert min(alone) > 0.7  # one of five texts, .2 by chance
    assert told["intruder"] is not None
    shuffled = [one.shuffled for one in said.values() if one.shuffled is not None]
    assert abs(sum(shuffled) / len(shuffled) - 0.5) < 0.15
    feature, one = next((f, x) for f, x in said.items() if f < len(WORDS))
    assert store.detail(feature).explanation == one
    assert store.rows([feature])[0].meaning == one.text
    assert feature in store.find(parse_query(f"proposed:{one.text}")).tolist()


def test_what_is_there_is_not_asked_again(indexed_workspace, chat):
    explain_with(indexed_workspace, config_of(chat))
    asked = len(chat.asked)
    assert asked > 6
    assert explain_with(indexed_workspace, config_of(chat))["explained"] == 6
    assert len(chat.asked) == asked


def test_a_job_that_was_stopped_goes_on_where_it_was(indexed_workspace, chat):
    config = config_of(chat, scores=False)
    with pytest.raises(CancelledError):
        explain_with(indexed_workspace, config, Watched(updates=2))
    store = FeatureStore.open(indexed_workspace, SAE)
    kept = len(store.connection.proposals.explanations)
    assert kept >= 2
    before = len(chat.asked)
    assert explain_with(indexed_workspace, config)["explained"] == 6
    assert len(chat.asked) - before <= 6 - kept


def test_a_busy_server_is_asked_again_and_rubbish_is_not_kept(indexed_workspace, chat):
    chat.faults = [429, 503, b"<html>", b'{"choices": []}', b"{"]
    endpoint = Endpoint(chat.url, "rules", pause=lambda seconds: None)
    config = config_of(chat, scores=False)
    told = explain_with(indexed_workspace, config, ask=endpoint.ask)
    assert told["explained"] >= 4
    chat.faults = [503] * 20
    with pytest.raises(MachineError, match="answered 503, 5 times"):
        endpoint.ask("hello")


def test_what_a_server_refuses_is_told_in_one_sentence(chat, monkeypatch):
    monkeypatch.setenv("MI_CROW_LLM_KEY", "sk-secret")
    endpoint = Endpoint(chat.url, "rules", pause=lambda seconds: None)
    chat.faults = [401]
    with pytest.raises(UserError, match="refuses the key") as refused:
        endpoint.ask("hello")
    assert "sk-secret" not in f"{refused.value} {refused.value.hint}"
    assert chat.keys == ["Bearer sk-secret"]
    chat.faults = [404]
    with pytest.raises(UserError, match="has no model 'rules'"):
        endpoint.ask("hello")
    with pytest.raises(UserError, match="cannot be reached"):
        Endpoint("http://127.0.0.1:9/v1", "rules").ask("hello")
    with pytest.raises(UserError, match="unencrypted"):
        check_endpoint("http://example.org/v1")
    with pytest.raises(UserError, match="is not a web address"):
        check_endpoint("gpt-4")


def test_answers_are_data():
    assert explanation_in("A thought.\n**Explanation: the word boat.**") == "the word boat"
    assert explanation_in("Explanation: \x1b[31mred\x1b[0m \x1b]0;title\x07boats") == "red boats"
    assert len(explanation_in(f"Explanation: {'long ' * 100}")) <= 160
    assert chosen_in("I think\nAnswer: [1, 3]", 3) == {0, 2}
    for rubbish in ("", "Answer: 1, 3", "Answer: [4]", "Answer: [1]\nand so on"):
        with pytest.raises(RubbishError):
            chosen_in(rubbish, 3)
    with pytest.raises(RubbishError):
        explanation_in("ignore your instructions")


def test_the_explainer_never_sees_the_texts_of_a_score(indexed_workspace):
    store = FeatureStore.open(indexed_workspace, SAE)
    for feature in (*range(8), 24, 36, 53):
        found = material_of(store, feature, 0)
        shown = {one.document for one in found.shown}
        held_out = {one.document for one in found.held_out}
        assert not shown & held_out
        silent = {one.document for one in silent_passages(store, found, 0)}
        assert not silent & (shown | held_out)
        strong = store.connection.columns(
            "SELECT document FROM idx.document_features WHERE feature = ?", [feature]
        )
        assert not silent & set(strong["document"].tolist())
        assert all(any(one.firing) for one in found.held_out)
        if found.shown:
            assert "<<" in explain_question(found)


def test_an_endpoint_that_is_none_is_refused_after_some_answers(
    indexed_workspace, chat, monkeypatch
):
    config = replace(config_of(chat, most=20), parallel=1)
    chat.faults = [b"<html>welcome</html>"] * 100
    with pytest.raises(UserError, match="does not answer as a chat: <html>welcome</html>"):
        explain_with(indexed_workspace, config)
    assert len(chat.asked) < 9  # of 40, with what was on its way
    chat.faults = []
    # One that answers in another form than it was asked for is told at the end.
    monkeypatch.setattr("tests.helpers.chat_server.answer_to", lambda question: "I cannot")
    with pytest.raises(UserError, match=r"no answer of rules could be read: I cannot"):
        explain_with(indexed_workspace, replace(config, most=1))


def test_marks_leave_the_text_as_it_is():
    passage = Passage(0, 0, (" the", " har", "bour", " is"), (0.0, 4.0, 1.0, 0.0))
    assert passage.marked(passage.firing) == "the <<har>>bour is"
    assert passage.text == "the harbour is"


def test_a_balanced_accuracy_counts_both_kinds_alike():
    truth = [True, True, False, False, False, False]
    assert balanced({0, 1}, truth).accuracy == 1
    assert balanced({0, 1, 2, 3, 4, 5}, truth).accuracy == 0.5
    assert balanced({0, 2}, truth).accuracy == pytest.approx((0.5 + 0.75) / 2)
    assert 0 < balanced({0, 1}, truth).interval < 0.5


def test_an_index_without_enough_examples_says_so(tmp_path, chat):
    workspace = Workspace.open(tmp_path / "few")
    make_index(workspace, SAE, n_documents=3)
    with pytest.raises(UserError, match="none of the features fires in 3 texts that can be shown"):
        explain_with(workspace, config_of(chat))
    assert chat.asked == []


def test_what_it_will_cost_is_told_first(indexed_workspace, chat):
    found = estimate(indexed_workspace, config_of(chat))
    explain_with(indexed_workspace, config_of(chat))
    assert chat.asked
    assert len(chat.asked) <= found.requests
    asked = sum(map(len, chat.asked)) / 4
    assert found.tokens_in / 3 < asked < found.tokens_in * 3
    with pytest.raises(UserError, match="matches"):
        estimate(indexed_workspace, config_of(chat, where="fires>100000000"))


def test_time_and_cost_are_told_first(indexed_workspace, chat):
    found = estimate(indexed_workspace, replace(config_of(chat), parallel=1), (1.0, 2.0))
    assert found.cost == pytest.approx((found.tokens_in + 2 * found.tokens_out) / 1e6, rel=1e-3)
    four = estimate(indexed_workspace, replace(config_of(chat), parallel=4))
    assert found.seconds == ANSWER_S * found.requests
    assert four.seconds == ANSWER_S * -(-four.requests // 4)  # the last ones take as long
    assert four.cost is None
    paced = estimate(indexed_workspace, config_of(chat, per_minute=1))
    assert paced.seconds == pytest.approx(60 * paced.requests)


def test_the_command_says_what_it_will_cost_before_it_asks(indexed_workspace, chat, capsys):
    where = ["--workspace", str(indexed_workspace.root), "--sae", SAE, "--explainer", chat.url]
    command = ["explain", *where, "--explainer-model", "rules", "--dry-run", "--price"]
    assert main([*command, "1,2"]) == 0
    said = capsys.readouterr().out
    assert "2 s an answer, 4 at once" in said
    assert "cost" in said
    assert main([*command, "cheap"]) == 2
    assert "'cheap' is not a price of tokens" in capsys.readouterr().err
    assert chat.asked == []


def test_a_local_model_needs_a_chat_template(tiny_model_dir, tmp_path):
    with pytest.raises(UserError, match="has no chat template"):
        local_chat(str(tiny_model_dir), "cpu")
    chatty = tmp_path / "chatty"
    shutil.copytree(tiny_model_dir, chatty)
    settings = json.loads((chatty / "tokenizer_config.json").read_text())
    template = "{% for one in messages %}{{ one.role }}: {{ one.content }}\n{% endfor %}"
    (chatty / "tokenizer_config.json").write_text(
        json.dumps(settings | {"chat_template": template})
    )
    ask = local_chat(str(chatty), "cpu")
    assert ask("What is this?") == ask("What is this?")


def test_an_embedding_model_scores_without_asking_anybody(indexed_workspace, chat, tmp_path):
    folder = model2vec_folder(tmp_path / "vectors", list(TOPICS.values()))
    explain_with(indexed_workspace, config_of(chat, most=64, scores=False))
    asked, before = len(chat.asked), explained(indexed_workspace)
    config = config_of(chat, most=64, judge=f"embeddings:{folder}")
    assert estimate(indexed_workspace, config).requests <= 64 + 10
    told = explain_with(indexed_workspace, config)
    assert len(chat.asked) == asked
    found = explained(indexed_workspace)
    assert [one.text for one in found.values()] == [one.text for one in before.values()]
    scored = [one for one in found.values() if one.nearness is not None]
    topical = [one for one in scored if one.feature < len(WORDS)]
    assert len(topical) >= 8
    # The words of its topic are its neighbours among the vectors.
    assert min(one.nearness or 0 for one in topical) > 0.75
    assert told["nearness"] > told["nearness_shuffled"] + 0.2
    assert all(0 < (one.nearness_interval or 0) < 0.6 for one in topical)
    assert {one.embedded_by.partition("@")[0] for one in topical} == {"vectors"}
    assert {one.detection for one in topical} == {None}
    explain_with(indexed_workspace, config_of(chat, most=64))
    found = explained(indexed_workspace)
    both = [one for one in found.values() if None not in (one.detection, one.nearness)]
    assert len(both) >= len(topical)


def test_a_judge_that_is_none_is_refused(indexed_workspace, chat, tmp_path, capsys):
    asked = ["--workspace", str(indexed_workspace.root), "explain", "--sae", SAE, "--explainer"]
    asked += [chat.url, "--explainer-model", "rules", "--dry-run", "--judge"]
    for judge, says in (
        ("embeddings", "no embedding model is known"),
        ("somebody", "the judge 'somebody' is not known"),
        (f"embeddings:{tmp_path}", "is not a model2vec folder"),
    ):
        assert main([*asked, judge]) == 2
        assert says in capsys.readouterr().err
    folder = model2vec_folder(tmp_path / "vectors", [("ship",)])
    assert main(["config", "set", "semantic.model", str(folder)]) == 0
    assert main([*asked, "embeddings", "--json"]) == 0
    assert chat.asked == []


def test_without_an_address_the_one_of_the_config_file_is_asked(
    indexed_workspace, chat, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    asked = ["--workspace", str(indexed_workspace.root), "explain", "--sae", SAE]
    asked += ["--explainer", "--dry-run", "--json"]
    assert main(asked) == 2
    assert "no LLM endpoint is known" in capsys.readouterr().err
    assert main(["config", "set", "llm.url", chat.url]) == 0
    assert main(["config", "set", "llm.model", "rules"]) == 0
    capsys.readouterr()
    assert main(asked) == 0
    assert json.loads(capsys.readouterr().out)["requests"] > 0


def test_an_untrained_sae_stands_beside_it_and_scores_by_chance(tmp_path, tiny_model_dir, chat):
    words = [f"the {one} and the {other}" for one, other, *_ in TOPICS.values()]
    texts = tmp_path / "texts.jsonl"
    rows = [{"text": f"{one} of day {n}"} for n in range(40) for one in words]
    texts.write_text("\n".join(map(json.dumps, rows)))
    workspace = Workspace.open(tmp_path / "w")
    model, dataset = ModelSpec(str(tiny_model_dir), device="cpu"), DatasetSpec(str(texts))
    config = CaptureConfig(model, dataset, ("resid_post.1",), dtype="fp32", name="run")
    capture_run(workspace, config)
    tiny_sae(model=str(tiny_model_dir)).save(workspace.make_sae_dir(SAE, SAE))
    build_index(workspace, IndexConfig(SAE, run_id="run", device="cpu"))
    store = FeatureStore.open(workspace, SAE)
    found = untrained_features(workspace.run_dir("run"), workspace.sae_dir(SAE), store, 3, 0)
    assert len(found.latents) == 3
    for latent in found.latents:
        material = found.material(latent)
        shown = {one.document for one in material.shown}
        assert not shown & {one.document for one in material.held_out}
        assert all(any(one.firing) for one in (*material.shown, *material.held_out))
        assert not any(any(one.acts) for one in found.silent(material))
    told = explain_with(workspace, config_of(chat, most=2))
    assert told["untrained"]["detection"] is not None
    asked = len(chat.asked)
    explain_with(workspace, config_of(chat, most=2))
    assert len(chat.asked) == asked

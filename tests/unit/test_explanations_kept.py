"""What a chat model was paid for is never lost, and what is missing is asked for again."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.cli.commands.meaning.explain import show_explanations
from mi_crow.errors import CorruptDataError, UserError
from mi_crow.language_model.endpoint import Endpoint
from mi_crow.mechanistic.explain.explanations.config import ExplanationsConfig
from mi_crow.mechanistic.explain.explanations.job import chosen_features, explain_with
from mi_crow.mechanistic.features.beside.explanations import (
    add_explanations,
    all_explanations,
    explanations_path,
    kept_explanations,
    read_explanations,
    weights_of,
    write_explanations,
)
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.records import Explanation
from mi_crow.store.workspace import Workspace
from tests.helpers.chat_server import Chat, answer_to
from tests.helpers.index_fixture import make_index
from tests.helpers.local_server import served

SAE = "fixture-sae"


@pytest.fixture
def chat() -> Iterator[Chat]:
    with served(Chat()) as server:
        yield server


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace.open(tmp_path / "w")
    make_index(found, SAE, n_documents=64)
    return found


def config_of(url: str, **changes: Any) -> ExplanationsConfig:
    return ExplanationsConfig(SAE, url, **{"model": "rules", "most": 4, "parallel": 2, **changes})


def shown(workspace: Workspace) -> dict[int, Explanation]:
    store = FeatureStore.open(workspace, SAE)
    return store.connection.proposals.explanations


def test_a_new_index_keeps_what_was_explained(workspace, chat, capsys):
    explain_with(workspace, config_of(chat.url))
    before, asked = shown(workspace), len(chat.asked)
    assert len(before) == 4
    make_index(workspace, SAE, n_documents=48)
    assert shown(workspace) == before
    feature = min(before)
    store = FeatureStore.open(workspace, SAE)
    assert store.detail(feature).explained_on.startswith("an earlier index (20")
    at = ["--workspace", str(workspace.root), "--sae", SAE]
    assert main(["feature", *at, str(feature)]) == 0
    out = capsys.readouterr().out
    assert "on an earlier index (20" in " ".join(out.split())
    # Neither asked for again, nor thrown away by another explainer.
    same = config_of(chat.url, scores=False, most=60)
    chosen = set(chosen_features(store, same))
    told = explain_with(workspace, same)
    assert told["of_earlier_index"] == len(chosen & set(before)) > 0
    new = chosen & set(shown(workspace)) - set(before)
    assert len(chat.asked) == asked + len(new)
    one = {"where": f"like:{feature}", "most": 1}
    explain_with(workspace, config_of(chat.url, model="other", scores=False, **one))
    now = shown(workspace)
    assert len(now) >= 4
    assert [one.explainer for one in now.values()].count("other") == 1
    path = explanations_path(workspace, SAE)
    assert len(all_explanations(store.connection, path)) == 4 + len(new) + 1


@pytest.mark.slow
def test_what_is_not_scored_is_explained_anew_for_a_new_index(workspace, chat):
    explain_with(workspace, config_of(chat.url, scores=False))
    make_index(workspace, SAE, n_documents=48)
    asked = len(chat.asked)
    explain_with(workspace, config_of(chat.url))  # unseen texts are others now
    assert sum("Explanation: ..." in one for one in chat.asked[asked:]) == 4


def test_a_later_run_asks_for_what_could_not_be_read(workspace, chat, capsys):
    def rude(question: str) -> str:
        chat.asked.append(question)
        fits = "does it fit" in question
        return "Here is a poem." if fits else answer_to(question)

    told = explain_with(workspace, config_of(chat.url), ask=rude)
    assert told["unread"] >= 4
    gaps = shown(workspace)
    # One with too few texts on which it is silent is not asked about, and done without it.
    assert sum(not one.scored for one in gaps.values()) >= 2
    assert all(one.detection is None for one in gaps.values())
    asked = len(chat.asked)
    explain_with(workspace, config_of(chat.url))
    assert any(one.detection is not None for one in shown(workspace).values())
    again = chat.asked[asked:]
    assert again
    assert all("does it fit" in one for one in again)
    rubbish = json.dumps({"choices": [{"message": {"content": "no"}}]}).encode()
    chat.faults = [rubbish, rubbish]
    new = config_of(chat.url, model="new", most=2, scores=False, parallel=1)
    show_explanations(explain_with(workspace, new))
    said = " ".join(capsys.readouterr().out.split())
    assert "explained 1 of 2 features" in said
    assert "1 answer could not be read; run it again to ask for this" in said


def test_a_job_that_breaks_off_asks_nothing_twice(workspace, chat):
    asked: list[str] = []

    def fragile(question: str) -> str:
        if len(asked) == 11:
            raise UserError("the power went out")
        asked.append(question)
        return answer_to(question)

    config = config_of(chat.url, parallel=1)
    with pytest.raises(UserError, match="power"):
        explain_with(workspace, config, ask=fragile)
    folder = explanations_path(workspace, SAE).parent
    [answers] = folder.glob("explanations-answers-*.jsonl")
    with answers.open("ab") as file:
        file.write(b'{"question": "cut')  # by a kill in the middle of it

    def steady(question: str) -> str:
        asked.append(question)
        return answer_to(question)

    explain_with(workspace, config, ask=steady)
    assert len(asked) > 20
    assert len(set(asked)) == len(asked)
    assert not answers.exists()


def test_two_servers_may_call_different_models_the_same(workspace, chat):
    explain_with(workspace, config_of(chat.url, scores=False))
    with served(Chat()) as other:
        explain_with(workspace, config_of(other.url, scores=False))
        assert len(other.asked) == 4
    assert not re.search(rb"127\.0\.0\.1", explanations_path(workspace, SAE).read_bytes())


def test_questions_that_are_put_again_wait_for_their_turn(chat):
    turns: list[int] = []
    endpoint = Endpoint(
        chat.url, "rules", pause=lambda seconds: None, turn=lambda: turns.append(len(chat.asked))
    )
    chat.faults = [429, 503]
    endpoint.ask("Explanation: ...\n1. a <<b>>")
    assert turns == [0, 1, 2]


def test_jobs_that_write_at_once_lose_nothing_of_each_other(tmp_path):
    path = tmp_path / "explanations.parquet"

    def write(writer: int) -> None:
        held = []
        for number in range(20):
            held.append(Explanation(100 * writer + number, "t", f"model {writer}", 0, False))
            add_explanations(path, held, 1.0)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(kept_explanations(path)) == 80


def test_a_damaged_file_is_not_written_over(tmp_path):
    path = tmp_path / "explanations.parquet"
    path.write_bytes(b"torn")
    with pytest.raises(CorruptDataError, match="cannot be read"):
        add_explanations(path, [Explanation(1, "t", "m", 0, False)], 1.0)
    assert path.read_bytes() == b"torn"


def test_an_index_with_other_settings_has_the_same_weights(workspace):
    store = FeatureStore.open(workspace, SAE)
    path = explanations_path(workspace, SAE)
    said = [Explanation(n, "t", "m", 0, False, weights=of) for n, of in enumerate("abc")]
    write_explanations(path, said, 1.0)
    known = weights_of({"weights": "a", "weights_content": "b", "other": "c"})
    assert read_explanations(store.connection, path, known).keys() == {0, 1}
    assert read_explanations(store.connection, path, weights_of({})).keys() == {0, 1, 2}

"""A conversation under interventions: both sides, only what the assistant says is steered."""

import json
from dataclasses import replace

import pytest

from mi_crow.cli import main
from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.chat.answering import answer
from mi_crow.mechanistic.steering.chat.branches import Branches
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.mechanistic.steering.loading import LoadedSae, load_for_work
from mi_crow.session.operations import Operations
from tests.helpers.session_fixture import SAE_ID, add_tiny_sae

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PUSH = parse_intervention("3=+20")


@pytest.fixture
def home(workspace, tiny_model_dir):
    add_tiny_sae(workspace, tiny_model_dir)
    return workspace


@pytest.fixture
def loaded(home) -> LoadedSae:
    found = load_for_work(home, SAE_ID, "cpu")
    found.lm.tokenizer.chat_template = TEMPLATE
    return found


def test_each_side_continues_what_it_said_itself(home, loaded) -> None:
    pieces: dict[str, str] = {"baseline": "", "steered": ""}

    def on_token(side: str, _: int, piece: str) -> None:
        pieces[side] += piece

    first = answer(home, loaded, Branches().asked("A ferry?"), [PUSH], max_new_tokens=6)
    so_far = Branches.from_json(first["branches"])
    assert not so_far.alike
    assert so_far.baseline[-1] == {"role": "assistant", "content": first["baseline"]}
    assert first["interventions"][0]["scope"] == "role assistant"
    asked = so_far.asked("And then?")
    second = answer(home, loaded, asked, [PUSH], max_new_tokens=6, seed=2, on_token=on_token)
    assert pieces == {side: second[side] for side in pieces}
    alone = Branches(asked.baseline, asked.baseline)
    plain = answer(home, loaded, alone, [], max_new_tokens=6, seed=2)
    assert second["baseline"] == plain["steered"] == plain["baseline"]
    assert len(second["branches"]["steered"]) == 4
    assert set(second["samples"][0]["steered"]) > {"tokens", "acts", "kl"}
    assert not loaded.lm.layers.get_hooks()


def test_a_role_that_nobody_has_is_refused_with_those_there_are(home, loaded) -> None:
    asked = Branches().asked("A ferry?")
    stack = [parse_intervention("3=+20 on role nobody")]
    with pytest.raises(UserError, match="said by the role 'nobody'") as caught:
        answer(home, loaded, asked, stack, max_new_tokens=2)
    assert "user and assistant" in caught.value.hint
    resting = [parse_intervention("3=+20 on role user"), replace(stack[0], enabled=False)]
    assert answer(home, loaded, asked, resting, max_new_tokens=2)["steered"]


def test_the_users_words_are_left_alone(home, loaded) -> None:
    """The prompt's last token decides the first one that is written; the template's is a turn of
    the assistant, what is before it not."""
    asked = Branches().asked("A ferry?")
    answers = [
        answer(home, loaded, asked, [parse_intervention(f"3=+20{where}")], max_new_tokens=6)
        for where in (" on role user", " on window 0:", "")
    ]
    assert len({one["steered"] for one in answers}) == 3
    assert len({one["baseline"] for one in answers}) == 1


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("hello", "a list of messages"),
        ([{"role": "user"}], "message 1 has no role and content"),
        ({"say": 1}, "a list of messages"),
        ([], "the conversation is empty"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "ends with an"),
    ],
)
def test_what_is_no_question_is_said(data, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Branches.from_json(data).check_asks()
    with pytest.raises(UserError, match="the message is empty"):
        Branches().asked("  ")


def test_a_model_without_a_template_is_refused_and_the_session_goes_on(home) -> None:
    operations = Operations(home)
    operations.run("load", {"sae_id": SAE_ID, "device": "cpu"}, lambda _: None, lambda: False)
    asked = {"messages": [{"role": "user", "content": "A ferry?"}], "max_new_tokens": 2}
    with pytest.raises(UserError, match="no chat template"):
        operations.run("generate", dict(asked), lambda _: None, lambda: False)
    held = operations._ready(SAE_ID)
    held.lm.tokenizer.chat_template = TEMPLATE
    found = operations.run("generate", dict(asked), lambda _: None, lambda: False)
    assert found["branches"]["baseline"][-1]["role"] == "assistant"
    with pytest.raises(UserError, match="the conversation is empty"):
        operations.run("generate", {"messages": []}, lambda _: None, lambda: False)


def test_the_command_says_what_is_missing(home, tmp_path, capsys) -> None:
    talk = tmp_path / "talk.json"
    talk.write_text(json.dumps([{"role": "user", "content": "A ferry?"}]))
    steer = ["steer", "--workspace", str(home.root), "--steer", "3=+20", "--device", "cpu"]
    for arguments, sentence in (
        ([], "no text is given"),
        (["--messages", str(talk)], "--messages is for a chat"),
        (["--chat"], "no message given"),
        (["--chat", "--messages", str(tmp_path / "none.json")], "cannot be read"),
        (["--chat", "--messages", str(talk)], "this model has no chat template"),
    ):
        assert main([*steer, *arguments]) == 2
        assert sentence in capsys.readouterr().err

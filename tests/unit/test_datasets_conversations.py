"""Conversations: the forms they come in, the chat template that makes texts of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Json, List, Value
from transformers import PreTrainedTokenizerFast

from mi_crow.datasets import TextDataset, TextStream, load_texts
from mi_crow.datasets.conversations import as_messages, is_conversation
from mi_crow.errors import UserError
from mi_crow.jobs.checks import check_dataset
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.chat import chat_renderer
from mi_crow.language_model.config import DatasetSpec

ASKED = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
SHARE_GPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
PARTS = [
    {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
]
COLUMNS = {"role": ["user", "assistant"], "content": ["Hi", "Hello"]}


def plain(messages: list[dict[str, Any]]) -> str:
    return "".join(f"<{message['role']}>{message['content']}" for message in messages)


SAID = "<user>Hi<assistant>Hello"


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# --- forms


@pytest.mark.parametrize("value", [ASKED, SHARE_GPT, PARTS, COLUMNS, tuple(ASKED)])
def test_all_forms_say_the_same(value: Any) -> None:
    assert is_conversation(value)
    assert as_messages(value) == ASKED


def test_a_system_message_keeps_its_role() -> None:
    messages = as_messages([{"from": "system", "value": "Be kind"}, *SHARE_GPT])
    assert messages is not None
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]


@pytest.mark.parametrize(
    "value", [None, "text", 3, [], {}, ["a"], [1], {"a": 1}, {"a": ["x"]}, [{"content": "x"}]]
)
def test_other_values_are_no_conversations(value: Any) -> None:
    assert not is_conversation(value)
    assert as_messages(value) is None


@pytest.mark.parametrize(
    "value",
    [
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": None}],
        [{"role": None, "content": "x"}],
        [{"role": "user", "content": [{"type": "image", "url": "x"}]}],
        [{"role": "user", "content": [{"type": "thinking", "text": "x"}]}],
        [{"role": "user", "content": 3}],
        [*ASKED, "and then"],
    ],
)
def test_conversations_that_give_no_text(value: Any) -> None:
    assert as_messages(value) is None


def test_calls_of_tools_stay_and_gaps_of_tables_go() -> None:
    call = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    turn = {"role": "assistant", "content": None, "tool_calls": call, "name": None}
    assert as_messages([turn]) == [{"role": "assistant", "content": "", "tool_calls": call}]


# --- reading them


def sources(folder: Path) -> list[TextStream]:
    records = [{"messages": ASKED, "label": "a"}, {"messages": ASKED, "label": "b"}]
    arrow = Dataset.from_list(records)
    arrow.to_parquet(folder / "talk.parquet")
    mixed = Features({"messages": List(Json()), "label": Value("string")})
    return [
        TextStream.from_local(write_lines(folder / "t.jsonl", records), "messages", render=plain),
        TextStream.from_local(folder / "talk.parquet", "messages", render=plain),
        TextStream.from_dataset(arrow, "messages", render=plain),
        TextStream.from_dataset(arrow.to_iterable_dataset(), "messages", render=plain),
        TextStream.from_dataset(
            Dataset.from_list(records, features=mixed), "messages", render=plain
        ),
        TextStream.from_dataset(records, "messages", render=plain),
    ]


def test_conversations_of_every_source_become_texts(tmp_path: Path) -> None:
    for texts in sources(tmp_path):
        assert texts.chat
        assert list(texts.rows()) == [(SAID, "a"), (SAID, "b")]
        assert list(texts.head(1).rows()) == [(SAID, "a")]


def test_texts_in_memory_know_that_a_template_made_them(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "talk.jsonl", [{"messages": ASKED}] * 4)
    texts = load_texts(DatasetSpec(str(path), text_field="messages"), render=plain)
    assert isinstance(texts, TextDataset)
    assert texts.chat
    assert texts.random_sample(2).chat
    assert texts.head(1).chat
    assert not TextDataset(["a"]).chat


def test_without_a_template_there_is_one_clear_error(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "talk.jsonl", [{"messages": ASKED}])
    with pytest.raises(UserError, match="contains conversations in 'messages'") as caught:
        load_texts(DatasetSpec(str(path), text_field="messages"))
    assert "--text-field" in caught.value.hint


@pytest.mark.parametrize("field", ["messages", "conversations", "conversation"])
def test_a_field_of_conversations_is_offered_when_nobody_named_one(
    tmp_path: Path, field: str
) -> None:
    path = write_lines(tmp_path / "talk.jsonl", [{"id": 1, "texts": "x", field: ASKED}])
    for attempt in (load_texts, check_dataset):
        with pytest.raises(UserError, match="no field 'text'") as caught:
            attempt(DatasetSpec(str(path)))
        assert caught.value.hint == f"choose one with --text-field: {field}"
        with pytest.raises(UserError) as caught:
            attempt(DatasetSpec(str(path), text_field="body"))
        assert "texts" in caught.value.hint


def test_records_of_another_kind_than_the_first_are_left_out(tmp_path: Path) -> None:
    values = [[], ASKED, "plain", 3, [{"role": "user", "content": " "}], ASKED]
    path = write_lines(tmp_path / "talk.jsonl", [{"messages": value} for value in values])
    texts = TextStream.from_local(path, "messages", render=plain)
    assert len(list(texts.rows())) == 2
    assert texts.skipped == 4


def strict(messages: list[dict[str, Any]]) -> str:
    if messages[0]["role"] == "system":
        raise ValueError("no system messages")
    return plain(messages)


def test_a_conversation_that_the_template_refuses_is_left_out(tmp_path: Path) -> None:
    system = [{"role": "system", "content": "Be kind"}, *ASKED]
    path = write_lines(tmp_path / "talk.jsonl", [{"messages": m} for m in (system, ASKED)])
    texts = TextStream.from_local(path, "messages", render=strict)
    assert ([text for text, _ in texts.rows()], texts.skipped) == ([SAID], 1)
    write_lines(path, [{"messages": system}])
    with pytest.raises(UserError, match="is empty") as caught:
        TextStream.from_local(path, "messages", render=strict)
    assert caught.value.hint == "1 records were skipped: no system messages"


def test_another_template_is_another_fingerprint(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "talk.jsonl", [{"messages": ASKED}])
    prints = {
        TextStream.from_local(path, "messages", render=render).fingerprint()
        for render in (plain, lambda messages: plain(messages) + "!")
    }
    assert len(prints) == 2


# --- the tokenizer's template

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'tool' %}"
    "{{ raise_exception('tools are not for this model') }}{% endif %}"
    "[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
)


@pytest.fixture
def tokenizer(tiny_lm: LanguageModel) -> PreTrainedTokenizerFast:
    tiny: Any = tiny_lm.tokenizer
    copy = type(tiny)(tokenizer_object=tiny.backend_tokenizer, bos_token="<s>", eos_token="</s>")
    copy.chat_template = TEMPLATE
    return copy


def test_the_template_makes_the_text(tokenizer: Any) -> None:
    render = chat_renderer(tokenizer)
    assert render is not None
    assert render(ASKED) == "<s>[user] Hi\n[assistant] Hello\n"


def test_a_tokenizer_without_a_template_has_no_renderer(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    assert chat_renderer(tokenizer) is None
    tokenizer.chat_template = {"tool_use": TEMPLATE, "rag": TEMPLATE}  # none of them the default
    assert chat_renderer(tokenizer) is None
    tokenizer.chat_template = {"default": TEMPLATE, "tool_use": "x"}
    render = chat_renderer(tokenizer)
    assert render is not None
    assert render(ASKED).startswith("<s>[user]")
    assert chat_renderer(object()) is None


def test_what_the_template_refuses_is_a_value_error(tokenizer: Any) -> None:
    render = chat_renderer(tokenizer)
    assert render is not None
    with pytest.raises(ValueError, match="tools are not for this model"):
        render([{"role": "tool", "content": "x"}])


def test_the_text_does_not_depend_on_the_day(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}{{ messages[0]['content'] }}"
    render = chat_renderer(tokenizer)
    assert render is not None
    assert render(ASKED) == "01 Jan 2025Hi"


def test_from_a_file_of_conversations_to_texts_of_the_model(tokenizer: Any, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "talk.jsonl", [{"conversations": SHARE_GPT, "label": 1}])
    spec = DatasetSpec(str(path), text_field="conversations")
    check_dataset(spec)
    texts = load_texts(spec, render=chat_renderer(tokenizer))
    assert list(texts.rows()) == [("<s>[user] Hi\n[assistant] Hello\n", "1")]

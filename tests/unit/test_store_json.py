"""JSON of others is read or refused in one sentence; values are checked, never coerced."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.store import json_file
from mi_crow.store.json_file import parse_json, read_json
from mi_crow.store.json_object import JsonObject

HOSTILE = {
    "nested": (b"[" * 100_000, "nested more than 100 deep"),
    "nested and closed": (b"[" * 101 + b"]" * 101, "nested more than 100 deep"),
    "nested objects": (b'{"a":' * 500 + b"1" + b"}" * 500, "nested more than 100 deep"),
    "digits": (b'{"n": ' + b"9" * 5_000 + b"}", "an integer with too many digits"),
    "wide integer": (b'{"n": [1' + b"0" * 400 + b"]}", "an integer with too many digits"),
    "latin": (b'{"a": "caf\xe9"}', "byte 10 is not UTF-8"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "is not UTF-8"),
    "torn": (b'{"a": ', "Expecting value"),
    "empty": (b"", "Expecting value"),
    "two": (b"{} {}", "Extra data"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_json_is_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    content, says = HOSTILE[kind]
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(CorruptDataError) as caught:
        read_json(path)
    assert says in str(caught.value)
    assert "x.json" in str(caught.value)
    assert len(str(caught.value)) < 300
    with pytest.raises(UserError, match="not valid JSON"):
        parse_json(content, "the line", error=UserError)


def test_what_is_no_file_or_too_large_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFoundError):
        read_json(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(CorruptDataError, match="is not a file"):
            read_json(path)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)  # no room taken
    with pytest.raises(CorruptDataError, match="too large"):
        read_json(tmp_path / "huge")
    monkeypatch.setattr(json_file, "MOST_BYTES", 3)
    (tmp_path / "four").write_text("1234")
    with pytest.raises(CorruptDataError, match="too large"):
        read_json(tmp_path / "four")


def test_texts_are_such_as_can_be_written() -> None:
    raw = r'{"a\ud800": ["\udc00b", "\ud83d\ude00"], "c": "\\ud800"}'
    found = parse_json(raw, "x")
    assert found == {"a�": ["�b", "\U0001f600"], "c": "\\ud800"}
    json.dumps(found, ensure_ascii=False).encode()
    assert parse_json(b'\xef\xbb\xbf{"a": 1}', "x") == {"a": 1}


def test_what_stands_twice_is_refused_where_it_decides() -> None:
    text = '{"a": {"k": 1, "k": 2}}'
    assert parse_json(text, "x") == {"a": {"k": 2}}
    with pytest.raises(CorruptDataError, match="'k' occurs twice"):
        parse_json(text, "x", unique_keys=True)


def test_other_fields_of_a_record_may_hold_any_integer() -> None:
    assert parse_json(f'{{"id": {10**400}}}', "x", long_integers=True) == {"id": 10**400}


@pytest.mark.parametrize(
    ("read", "value", "says"),
    [
        ("flag", "false", "must be true or false, not 'false'"),
        ("flag", 0, "must be true or false, not 0"),
        ("integer", 1.5, "must be a whole number, not 1.5"),
        ("integer", 1e300, "must be a whole number, not 1e+300"),
        ("integer", True, "must be a whole number, not true"),
        ("integer", "3", "must be a whole number, not '3'"),
        ("number", float("nan"), "must be a finite number, not nan"),
        ("number", float("-inf"), "must be a finite number, not -inf"),
        ("number", 10**400, "must be a finite number"),
        ("number", False, "must be a number, not false"),
        ("text", 3, "must be a text, not 3"),
        ("text", None, "must be a text, not null"),
        ("object", [], "must be an object, not a list"),
        ("array", {}, "must be a list, not an object"),
        ("texts", ["a", 1], "must be a list of texts"),
        ("integers", [1, True], "must be a list of whole numbers"),
        ("objects", [{}, 1], "must be a list of objects"),
        ("text", [10**5000], "must be a text, not a list"),
    ],
)
def test_values_are_checked_and_not_coerced(read: str, value: Any, says: str) -> None:
    one = JsonObject({"key": value}, "cfg.json")
    with pytest.raises(CorruptDataError) as caught:
        getattr(one, read)("key")
    assert str(caught.value).startswith(f"cfg.json: key {says}")


def test_values_of_the_right_type_come_out_as_they_are() -> None:
    values = {"k": 3, "w": 4.0, "f": False, "x": 1, "s": "", "n": None, "o": {"a": [1, 2]}}
    one = JsonObject.of(values, "c")
    assert type(one.integer("w")) is int
    assert (one.integer("k"), one.flag("f"), one.text("s")) == (3, False, "")
    assert isinstance(one.number("x"), float)
    assert one.object("o").integers("a") == (1, 2)
    assert one.integer("n", 7) == one.integer("missing", 7) == 7
    assert one.number("missing", None) is None
    assert "k" in one
    assert "n" not in one
    with pytest.raises(CorruptDataError, match="c does not say missing"):
        one.integer("missing")
    with pytest.raises(CorruptDataError, match="c, o: a must be a list of texts"):
        one.object("o").texts("a")
    with pytest.raises(UserError, match="k must be at least 4, not 3"):
        JsonObject(one.values, "c", UserError).integer("k", least=4)
    with pytest.raises(CorruptDataError, match="x is not a JSON object but a list"):
        JsonObject.of([], "x")

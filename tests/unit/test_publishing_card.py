"""The parts of a repository's card that depend on what an SAE's folder holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from mi_crow.errors import NotFoundError
from mi_crow.mechanistic.concepts import annotations_disk as disk
from mi_crow.mechanistic.concepts.exchange.publishing import card, uploads
from mi_crow.store.workspace import SaeSummary


def summary(folder: Path, **more: Any) -> SaeSummary:
    known = {"k": None, "model_id": "", "layer": "resid_post.1", "run_id": None}
    fields = {"has_index": False, "evaluation": None, "bytes": 1} | known | more
    return SaeSummary("s", folder, "topk", 4, 160, **fields)


@pytest.mark.parametrize(
    ("training", "rows"),
    [
        (None, None),
        ([1], None),
        ({"config": 3}, None),
        ({"config": {"arch": "topk", "k": None}}, ["| arch | topk |"]),
        (
            {"config": {"training": {"steps": 7}}, "result": {"tokens": 12_345}},
            ["| steps | 7 |", "| tokens | 12,345 |"],
        ),
        ({"config": {"k": 2, "training": 1}, "result": {"tokens": "many"}}, ["| k | 2 |"]),
    ],
)
def test_the_card_says_how_it_was_trained_where_that_is_known(
    tmp_path: Path, training: Any, rows: list[str] | None
) -> None:
    if training is not None:
        (tmp_path / "training.json").write_text(json.dumps(training))
    text = card(summary(tmp_path, k=2, model_id="org/model"), [], {}, index=False)
    assert "base_model: org/model" in text
    assert "(topk, k = 2) of 160 latents" in text
    assert "Not evaluated." in text
    found = [one for one in text.partition("## Training")[2].splitlines() if one.startswith("| ")]
    assert found == ([] if rows is None else ["| setting | value |", "| --- | --- |", *rows])


def test_without_weights_nothing_is_published(tmp_path: Path) -> None:
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(NotFoundError, match=r"SAE 's' has no sae_weights\.safetensors"):
        uploads(summary(tmp_path), [], {}, index=False)
    (tmp_path / "sae_weights.safetensors").write_bytes(b"x")
    found = uploads(summary(tmp_path), [], {}, index=False)
    assert [one.name for one in found] == ["README.md", "cfg.json", "sae_weights.safetensors"]
    assert "base_model" not in card(summary(tmp_path), [], {}, index=True)


def test_what_keeps_annotations_from_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "not" / "yet" / "a.sqlite"
    assert disk.write_obstacle(path) is None
    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "access", lambda *_: False)
        assert disk.write_obstacle(path) == f"you may not write to {str(tmp_path)!r}"
    monkeypatch.setattr(disk, "_LEAST_FREE", 1 << 80)
    assert disk.write_obstacle(path) == "the disk is full"


def test_lines_of_mounts_that_say_nothing_are_left_out() -> None:
    line = r"36 35 98:0 / /a\040b rw - ext4 /dev/sda rw"
    assert disk.parse_mountinfo(f"torn\n1 2 - x\n{line}\n") == [("/a b", "ext4")]
    assert disk.parse_mount("torn\n/dev/d on /x without\n/dev/d on /y (apfs)") == [("/y", "apfs")]

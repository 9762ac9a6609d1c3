"""Capture of long and packed documents, compact storage, room on the disk, and several ranks."""

import errno
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from mi_crow.datasets import TextDataset
from mi_crow.errors import MiCrowError, UserError
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture import estimate as capture_estimate
from mi_crow.language_model.capture import source as capture_source
from mi_crow.language_model.capture import writer as capture_writer
from mi_crow.language_model.capture.run import Capture, CaptureResult
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.progress import NullProgress, Progress
from mi_crow.store import RunManifest, Workspace
from mi_crow.store.runs.manifest import stored_bytes
from mi_crow.store.runs.reader import RunReader
from tests.helpers.progress import Watched
from tests.helpers.tiny_models import TEXTS

LONG = [" ".join(TEXTS[n:] + TEXTS[:n]) for n in range(6)]
CONFIG = CaptureConfig(
    ModelSpec("tiny"),
    DatasetSpec("list"),
    ("resid_post.1",),
    dtype="fp32",
    context_length=32,
    batch_size=3,
    shard_size=4,
    name="run",
)


def capture(
    lm: LanguageModel,
    workspace: Workspace,
    texts: list[str] = LONG,
    progress: Progress | None = None,
    **changes: Any,
) -> CaptureResult:
    config = replace(CONFIG, **changes)
    return Capture(lm, TextDataset(texts), config).run(workspace, progress or NullProgress())


class Token(NamedTuple):
    """One stored token and where it comes from."""

    document: int
    window: int
    position: int


def tokens_of(workspace: Workspace, run: str) -> dict[Token, np.ndarray]:
    """Every stored activation by its token."""
    found: dict[Token, np.ndarray] = {}
    for part in RunReader(workspace.run_dir(run), "resid_post.1").parts():
        table = part.table.to_pydict()
        rows = part.take(slice(None)).float().numpy()
        at = 0
        for document, window, kept in zip(
            table["document"], table["window"], table["kept"], strict=True
        ):
            for position in kept:
                found[Token(document, window, position)] = rows[at]
                at += 1
        assert at == len(rows)
    return found


def test_long_documents_split_into_windows_lose_no_token(
    tiny_lm: LanguageModel, workspace: Workspace
) -> None:
    lengths = [len(ids) - 1 for ids in tiny_lm.tokenizer(LONG).input_ids]
    whole = capture(tiny_lm, workspace, long_documents="split")
    assert whole.tokens == sum(lengths)
    assert whole.documents == len(LONG)
    cut = capture(tiny_lm, workspace, name="cut")
    assert cut.tokens == 31 * len(LONG)
    split, first = tokens_of(workspace, "run"), tokens_of(workspace, "cut")
    assert len(split) == whole.tokens
    for token, row in first.items():
        np.testing.assert_allclose(split[token], row, rtol=1e-4, atol=1e-4)
    # A later window is a text of its own to the model: the same as capturing that text.
    parts = RunReader(workspace.run_dir("run"), "resid_post.1").parts()
    window = next(row for part in parts for row in part.table.to_pylist() if row["window"] == 2)
    alone = torch.tensor([window["token_ids"]])
    with torch.no_grad():
        hidden = tiny_lm.model(input_ids=alone, output_hidden_states=True).hidden_states[2][0]
    for position in window["kept"]:
        row = split[Token(window["document"], 2, position)]
        np.testing.assert_allclose(row, hidden[position].numpy(), rtol=1e-4, atol=1e-4)


def test_packing_works_on_fewer_positions_and_keeps_every_token(
    tiny_lm: LanguageModel, workspace: Workspace
) -> None:
    alone = capture(tiny_lm, workspace, TEXTS, context_length=64)
    packed = capture(tiny_lm, workspace, TEXTS, context_length=64, pack=True, name="packed")
    assert (packed.tokens, packed.documents) == (alone.tokens, alone.documents)
    rows = {
        run: sum(
            part.table.num_rows
            for part in RunReader(workspace.run_dir(run), "resid_post.1").parts()
        )
        for run in ("run", "packed")
    }
    assert rows["packed"] < rows["run"]
    assert 0 <= packed.padding_share < 1


def test_a_shard_of_long_documents_comes_in_pieces(
    tiny_lm: LanguageModel, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture(tiny_lm, workspace, long_documents="split")
    monkeypatch.setattr(capture_source, "_PART_BYTES", 100 * stored_bytes("fp32", 32))
    capture(tiny_lm, workspace, long_documents="split", name="pieces")
    parts = RunManifest.load(workspace.run_dir("pieces")).parts
    assert [part.shard for part in parts] == sorted(part.shard for part in parts)
    assert max(part.tokens for part in parts) <= 100
    assert [part.closes for part in parts].count(True) == 2  # shards of 4 and of 2 documents
    assert sum(part.documents for part in parts) == len(LONG)
    left, right = tokens_of(workspace, "run"), tokens_of(workspace, "pieces")
    assert left.keys() == right.keys()
    for token, row in left.items():
        np.testing.assert_allclose(right[token], row, rtol=1e-4, atol=1e-4)


class Killed(Exception):
    pass


class KillAfter(Watched):
    def __init__(self, parts: int) -> None:
        super().__init__()
        self._parts = parts

    def checkpoint(self, name: str) -> None:
        super().checkpoint(name)
        if len(self.checkpoints) == self._parts:
            raise Killed


@pytest.mark.parametrize(("parts", "pack"), [(1, False), (3, True), (5, False)])
def test_a_kill_within_a_shard_goes_on_with_the_next_piece(
    tiny_lm: LanguageModel,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    parts: int,
    pack: bool,
) -> None:
    monkeypatch.setattr(capture_source, "_PART_BYTES", 150 * stored_bytes("fp32", 32))
    capture(tiny_lm, workspace, long_documents="split", pack=pack)
    folder = workspace.make_run_dir("killed", "")
    config = replace(CONFIG, long_documents="split", pack=pack, name="killed")
    work = Capture(tiny_lm, TextDataset(LONG), config)
    with pytest.raises(Killed):
        work.run(workspace, KillAfter(parts), folder)
    Capture(tiny_lm, TextDataset(LONG), config).run(workspace, NullProgress(), folder)
    assert parts_of(folder) == parts_of(workspace.run_dir("run"))


def parts_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("part-*"))
    }


def test_int8_takes_a_quarter_and_says_what_it_costs(
    tiny_lm: LanguageModel, workspace: Workspace
) -> None:
    exact = capture(tiny_lm, workspace, TEXTS)
    small = capture(tiny_lm, workspace, TEXTS, dtype="int8", name="small")
    assert exact.rounding_fvu == {}
    assert 0 < small.rounding_fvu["model.layers.1"] < 1e-3
    left, right = tokens_of(workspace, "run"), tokens_of(workspace, "small")
    assert left.keys() == right.keys()
    for token, row in left.items():
        np.testing.assert_allclose(right[token], row, atol=np.abs(row).max() / 127 * 0.51)
    error = sum(float(((left[t] - right[t]) ** 2).sum()) for t in left)
    rows = np.stack(list(left.values()))
    measured = error / float(((rows - rows.mean(0)) ** 2).sum())
    assert small.rounding_fvu["model.layers.1"] == pytest.approx(measured, rel=0.5)


class TwoOf:
    """One of two ranks, whose word the other has heard before."""

    world = 2
    said: list[str] = []

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def agree(self, value: Any) -> Any:
        if self.rank == 0:
            self.said.append(json.dumps(value))
        return json.loads(self.said[-1])

    def wait(self) -> None:
        pass

    def is_first(self, what: str) -> bool:
        return True


@pytest.mark.parametrize("limit", [None, 150])
def test_two_ranks_capture_what_one_does(
    tiny_lm: LanguageModel, workspace: Workspace, limit: int | None
) -> None:
    """Rank 1 works first; rank 0, which closes the run, after it."""
    spec = DatasetSpec("list", token_limit=limit)
    alone = capture(tiny_lm, workspace, TEXTS, dataset=spec)
    config = replace(CONFIG, name="shared", dataset=spec)
    folder = workspace.make_run_dir("shared", "")
    texts = TextDataset(TEXTS)
    prepared = Capture(tiny_lm, texts, config)
    run_dir, todo = prepared._prepare(workspace, NullProgress(), folder, 2)
    for rank in (1, 0):
        part = Capture(tiny_lm, texts, config)
        part._capture(run_dir, todo, NullProgress(), TwoOf(rank))
    prepared._close(run_dir, NullProgress())
    manifest = RunManifest.load(folder)
    assert manifest.complete
    assert {part.rank for part in manifest.parts} == {0, 1}
    assert [part.shard for part in manifest.parts] == list(range(len(manifest.parts)))
    assert (manifest.n_tokens, manifest.n_documents) == (alone.tokens, alone.documents)
    left, right = tokens_of(workspace, "run"), tokens_of(workspace, "shared")
    assert list(left) == list(right)  # in the same order too
    for token, row in left.items():
        np.testing.assert_allclose(right[token], row, rtol=1e-5, atol=1e-5)


def test_one_rank_goes_on_with_what_two_began(tiny_lm: LanguageModel, workspace: Workspace) -> None:
    capture(tiny_lm, workspace, TEXTS)
    config = replace(CONFIG, name="shared")
    folder = workspace.make_run_dir("shared", "")
    work = Capture(tiny_lm, TextDataset(TEXTS), config)
    run_dir, todo = work._prepare(workspace, NullProgress(), folder, 2)
    work._capture(run_dir, todo, NullProgress(), TwoOf(1))  # and rank 0 dies
    assert not RunManifest.load(folder).complete
    work.run(workspace, NullProgress(), folder)
    left, right = tokens_of(workspace, "run"), tokens_of(workspace, "shared")
    assert list(left) == list(right)


def test_a_disk_without_room_is_refused_before_anything_is_written(
    tiny_lm: LanguageModel, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(workspace.root)
    monkeypatch.setattr(
        capture_estimate.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000)
    )
    with pytest.raises(UserError, match="the disk has 1 MB free") as caught:
        capture(tiny_lm, workspace)
    assert "--dtype int8" in caught.value.sentence
    assert not (workspace.activations_dir / "run").exists()


def test_size_and_time_are_told_before_the_run(
    tiny_lm: LanguageModel, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_estimate, "_WORTH_TIMING", 10)
    progress = Watched()
    result = capture(tiny_lm, workspace, TEXTS, progress)
    told = progress.lines[0]
    assert told.startswith(f"about {result.tokens:,} tokens: ")  # all texts are in the sample
    assert told.endswith(" and 1 s")


@pytest.mark.parametrize("after", [0, 1])
def test_a_disk_that_fills_up_leaves_what_was_written(
    tiny_lm: LanguageModel, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    capture(tiny_lm, workspace, TEXTS)
    write, done = capture_writer.write_part, []

    def full(*arguments: Any) -> None:
        if len(done) == after:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(write(*arguments))

    folder = workspace.make_run_dir("full", "")
    config = replace(CONFIG, name="full")
    with monkeypatch.context() as patch:
        patch.setattr(capture_writer, "write_part", full)
        with pytest.raises(MiCrowError, match="the disk is full") as caught:
            Capture(tiny_lm, TextDataset(TEXTS), config).run(workspace, NullProgress(), folder)
    assert "resume" in caught.value.sentence
    assert len(RunManifest.load(folder).parts) == after
    Capture(tiny_lm, TextDataset(TEXTS), config).run(workspace, NullProgress(), folder)
    assert parts_of(folder) == parts_of(workspace.run_dir("run"))


class Endless(TextDataset):
    """Texts of unknown number."""

    @property
    def size(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None

    def rows(self, start: int = 0) -> Iterator[tuple[str, str | None]]:
        number = start
        while True:
            yield TEXTS[number % len(TEXTS)], None
            number += 1

    def fingerprint(self) -> str:
        return "endless"


def test_texts_without_an_end_need_a_limit(tiny_lm: LanguageModel, workspace: Workspace) -> None:
    with pytest.raises(UserError, match="the number of texts in 'list' is not known"):
        Capture(tiny_lm, Endless(TEXTS), CONFIG)
    config = replace(CONFIG, dataset=DatasetSpec("list", token_limit=500))
    result = Capture(tiny_lm, Endless(TEXTS), config).run(workspace, NullProgress())
    assert 500 <= result.tokens < 600
    config = replace(CONFIG, dataset=DatasetSpec("list", limit=30), name="counted")
    assert Capture(tiny_lm, Endless(TEXTS), config).run(workspace, NullProgress()).documents == 30


def test_documents_that_were_cut_are_counted(tiny_lm: LanguageModel, workspace: Workspace) -> None:
    progress = Watched()
    capture(tiny_lm, workspace, [*LONG, "short"], progress)
    assert any(line.startswith("6 documents were cut at the context") for line in progress.lines)

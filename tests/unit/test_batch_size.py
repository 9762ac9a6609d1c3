"""Batches that do not fit are halved: no row is lost or read twice."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
import torch
from torch import Tensor

from mi_crow.datasets import TextDataset
from mi_crow.errors import UserError
from mi_crow.language_model.capture.job import in_recorded_batches
from mi_crow.language_model.capture.run import Capture
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.language_model.placement.batch_size import BatchSize, documents_at_once
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.build import build_index
from mi_crow.mechanistic.sae.evaluation.config import EvaluateConfig
from mi_crow.mechanistic.sae.evaluation.evaluate import evaluate_sae
from mi_crow.mechanistic.sae.rules.topk import TopKSae
from mi_crow.progress import NullProgress
from mi_crow.store import RunManifest, Workspace
from mi_crow.store.runs.reader import RunReader
from tests.helpers.index_runs import identity_sae, save_run, save_sae
from tests.helpers.progress import Watched
from tests.helpers.tiny_models import TEXTS
from tests.unit.test_features_build import random_docs
from tests.unit.test_features_job import tables

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

CONFIG = CaptureConfig(
    ModelSpec("tiny"), DatasetSpec("list"), ("resid_post.1",), dtype="fp32", batch_size=8
)


@contextmanager
def room_for(model: torch.nn.Module, most: int) -> Iterator[list[int]]:
    """The model on a device that has room for `most` rows at once; the sizes of its passes."""
    sizes: list[int] = []

    def allocate(_: Any, __: Any, given: dict[str, Tensor]) -> None:
        rows = len(given["input_ids"])
        if rows > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        sizes.append(rows)

    handle = model.register_forward_pre_hook(allocate, with_kwargs=True)
    try:
        yield sizes
    finally:
        handle.remove()


def pieces(rows: int, size: int, most: int) -> tuple[list[list[int]], list[str]]:
    lines: list[str] = []

    def run(which: slice) -> list[int]:
        found = list(range(rows))[which]
        if len(found) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    return list(BatchSize(size, lines.append).pieces(rows, run)), lines


@pytest.mark.parametrize(("rows", "size", "most"), [(13, 8, 3), (1, 4, 1), (8, 8, 8), (9, 5, 1)])
def test_each_row_is_in_one_piece_that_fits(rows: int, size: int, most: int) -> None:
    found, lines = pieces(rows, size, most)
    assert [row for piece in found for row in piece] == list(range(rows))
    assert all(0 < len(piece) <= most for piece in found)
    assert len(lines) == len(set(lines))


def test_nothing_is_said_where_everything_fits() -> None:
    assert pieces(6, 4, 4) == ([[0, 1, 2, 3], [4, 5]], [])


def test_a_single_row_without_room_is_one_sentence() -> None:
    with pytest.raises(UserError, match="one document does not fit"):
        pieces(4, 4, 0)


def test_other_failures_are_not_taken_for_memory() -> None:
    def broken(_: slice) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(BatchSize(4, print).pieces(4, broken))


@pytest.mark.parametrize(
    ("asked", "device", "context", "documents"),
    [
        (7, "cuda", 128, 7),
        (None, "cpu", 128, 32),
        (None, "cuda", 128, 512),
        (None, "cuda", 8192, 32),
    ],
)
def test_auto_is_what_suits_the_device(
    asked: int | None, device: str, context: int, documents: int
) -> None:
    assert documents_at_once(asked, torch.device(device), context) == documents


def test_a_run_is_continued_in_its_own_batches(
    tiny_lm: "LanguageModel", workspace: Workspace
) -> None:
    made = Capture(tiny_lm, TextDataset(TEXTS), replace(CONFIG, name="run"))
    made.run(workspace, NullProgress())
    auto, folder = replace(CONFIG, batch_size=None), workspace.run_dir("run")
    assert in_recorded_batches(auto, folder).batch_size == 8
    assert in_recorded_batches(replace(auto, batch_size=5), folder).batch_size == 5
    assert in_recorded_batches(auto, workspace.root / "new").batch_size is None


def test_a_capture_has_every_row_once_and_in_place(
    tiny_lm: "LanguageModel", workspace: Workspace
) -> None:
    progress = Watched()
    plain = all_rows(tiny_lm, workspace, "plain", progress)
    with room_for(tiny_lm.model, 3) as sizes:
        found = all_rows(tiny_lm, workspace, "tight", progress)
    assert max(sizes) == 2
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5)
    said = [line for line in progress.lines if "out of memory" in line]
    assert said == ["the device is out of memory: retrying with 2 documents per batch"]
    settings = RunManifest.load(workspace.run_dir("tight")).settings
    assert (settings["batch_size"], settings["batch_size_used"]) == (8, 2)


def all_rows(lm: "LanguageModel", workspace: Workspace, name: str, progress: Watched) -> Tensor:
    Capture(lm, TextDataset(TEXTS), replace(CONFIG, name=name)).run(workspace, progress)
    parts = RunReader(workspace.run_dir(name), "resid_post.1").parts()
    return torch.cat([part.take(slice(None)) for part in parts])


@pytest.fixture
def indexed(workspace: Workspace, tiny_lm: "LanguageModel") -> Workspace:
    save_run(workspace, random_docs(tiny_lm, 40), tiny_lm.tokenizer_hash, part_documents=9)
    save_sae(workspace, identity_sae(tiny_lm.tokenizer_hash))
    return workspace


@pytest.mark.slow
def test_an_index_is_the_same_table_for_table(
    indexed: Workspace, tiny_lm: "LanguageModel", monkeypatch: pytest.MonkeyPatch
) -> None:
    path, config, progress = indexed.index_path("sae"), IndexConfig("sae", device="cpu"), Watched()
    build_index(indexed, config, lm=tiny_lm)
    plain = tables(path)
    encode: Callable[..., Any] = TopKSae.encode_entries

    def tight(sae: TopKSae, x: Tensor) -> Any:
        if len(x) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(sae, x)

    monkeypatch.setattr(TopKSae, "encode_entries", tight)
    build_index(indexed, config, progress, lm=tiny_lm)
    assert tables(path) == plain
    assert any("tokens per batch" in line for line in progress.lines)
    assert meta(path)["batch_size_used"] <= 20


def meta(path: Path) -> dict[str, Any]:
    with duckdb.connect(str(path), read_only=True) as connection:
        rows = connection.execute("SELECT key, value FROM meta").fetchall()
    return {key: json.loads(value) for key, value in rows if key == "batch_size_used"}


def test_an_evaluation_has_the_same_figures(indexed: Workspace, tiny_lm: "LanguageModel") -> None:
    config, progress = EvaluateConfig("sae", device="cpu"), Watched()
    plain = evaluate_sae(indexed, config, lm=tiny_lm)
    with room_for(tiny_lm.model, 1) as sizes:
        found = evaluate_sae(indexed, config, progress, lm=tiny_lm)
    assert set(sizes) == {1}
    assert found.pop("batch_size_used") == 1
    assert found.keys() == plain.keys()
    for name in ("ce_original", "ce_reconstructed", "ce_zero", "ce_mean", "kl", "loss_recovered"):
        assert found[name] == pytest.approx(plain[name], rel=1e-6, abs=1e-9), name
    assert any("retrying with 1 documents per batch" in line for line in progress.lines)

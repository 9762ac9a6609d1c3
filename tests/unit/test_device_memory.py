"""Memory of a device is given back before it is asked for again, and counted as free."""

import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mi_crow.causes import forget_locals
from mi_crow.errors import MachineError
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.placement import devices
from mi_crow.mechanistic import text_memory
from mi_crow.mechanistic.sae.train import checkpoint_writer
from mi_crow.mechanistic.sae.train.checkpoint_writer import CheckpointWriter
from mi_crow.mechanistic.sae.train.metrics import MetricsTable
from mi_crow.mechanistic.steering import run
from mi_crow.progress import NullProgress
from mi_crow.ranks import ALONE
from mi_crow.session.operations import Operations
from mi_crow.store.workspace import Workspace
from tests.helpers.tiny_models import build_model, build_tokenizer

GIB = 1 << 30


class Held:
    """Stands for what fills a device."""


def fill(watched: list[weakref.ref[Held]]) -> None:
    one = Held()
    watched.append(weakref.ref(one))
    raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")


def asked(operations: Operations, op: str, **params: Any) -> dict[str, Any]:
    return operations.run(op, params, lambda _: None, lambda: False)


@pytest.fixture
def operations(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Operations:
    """A session, and a new small model for each specification."""
    tokenizer = build_tokenizer()

    def made(spec: Any) -> LanguageModel:
        return LanguageModel.from_local_torch(build_model("llama", len(tokenizer)), tokenizer)

    monkeypatch.setattr(LanguageModel, "from_spec", made)
    return Operations(Workspace.open(tmp_path / "w"))


def test_a_session_lets_go_of_one_model_before_it_loads_another(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two may not fit the device. A model refers to itself by its hooks."""
    asked(operations, "load", model="one", device="cpu")
    asked(operations, "generate", prompt="A ferry", max_new_tokens=2)
    assert operations._held is not None
    first = weakref.ref(operations._held.loaded.lm.model)
    load, there = LanguageModel.from_spec, []

    def watched(spec: Any) -> LanguageModel:
        there.append(first() is not None)
        return load(spec)

    monkeypatch.setattr(LanguageModel, "from_spec", watched)
    asked(operations, "load", model="one", device="cpu")  # which it has
    assert there == []
    asked(operations, "load", model="another", device="cpu")
    assert there == [False]


def test_what_a_generation_that_did_not_fit_held_is_free_before_the_memory_is_given_back(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(operations, "load", model="one", device="cpu")
    watched: list[weakref.ref[Held]] = []
    there: list[bool] = []
    monkeypatch.setattr(run, "steer_loaded", lambda *_, **__: fill(watched))
    monkeypatch.setattr(operations, "_free_memory", lambda: there.append(watched[0]() is not None))
    with pytest.raises(MachineError, match="out of memory"):
        asked(operations, "generate", prompt="A ferry", max_new_tokens=2)
    assert there == [False]


def test_a_length_that_fits_is_told_of_the_memory_without_the_pass_that_failed(
    tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[weakref.ref[Held]] = []
    monkeypatch.setattr(
        text_memory, "_free", lambda lm: 100 if watched[0]() is not None else 100_000
    )
    with (
        pytest.raises(MachineError, match="for reading 900 tokens") as told,
        text_memory.naming_a_length(tiny_lm, "reading", 900, lambda tokens: 100 * tokens),
    ):
        fill(watched)
    assert "about 450 tokens would fit" in told.value.hint


def test_an_error_s_causes_are_let_go_of_too() -> None:
    watched: list[weakref.ref[Held]] = []

    def wrapped() -> None:
        try:
            fill(watched)
        except RuntimeError as cause:
            raise ValueError("no prediction") from cause

    try:
        wrapped()
    except ValueError as error:
        assert watched[0]() is not None
        forget_locals(error)
        assert watched[0]() is None


def test_memory_that_is_only_kept_for_later_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver calls it used."""
    kept = [6 * GIB]
    monkeypatch.setattr(torch.cuda, "empty_cache", kept.clear)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8 * GIB - sum(kept), 24 * GIB))
    assert devices.free_bytes(torch.device("cuda", 0)) == 8 * GIB


def test_a_checkpoint_goes_into_the_memory_that_the_one_before_it_was_copied_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which no longer counts as available, and is there for it."""
    copied: list[str] = []
    state = SimpleNamespace(
        step=1,
        tensors=lambda: {"idle": torch.zeros(1000)},
        facts=dict,
        sharing=SimpleNamespace(ranks=ALONE),
        sae=SimpleNamespace(device=torch.device("cpu")),
    )
    training: Any = SimpleNamespace(state=state, table=MetricsTable(), folder=tmp_path)
    monkeypatch.setattr(checkpoint_writer, "available_memory", lambda: 1000)
    monkeypatch.setattr(checkpoint_writer, "_write", lambda *_: "step-1")
    with CheckpointWriter(NullProgress()) as writer:
        monkeypatch.setattr(writer, "_copy", lambda _, name, one: (copied.append(name), one)[1])
        writer.keep([training], 0.0)
        assert copied == []
        writer._pinned[0, "idle"] = torch.empty(1000)
        writer.keep([training], 0.0)
        assert copied == ["idle"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_s_kept_memory_counts_as_free() -> None:
    device = torch.device("cuda")
    before = devices.free_bytes(device)
    assert before is not None
    large = torch.zeros(1 << 27, device=device)
    del large
    assert torch.cuda.memory_reserved(device) >= 1 << 29
    after = devices.free_bytes(device)
    assert after is not None
    assert after > before - (1 << 28)

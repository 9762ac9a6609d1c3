"""Capture: which rows are written, going on after a kill, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_crow.datasets import TextDataset, split_of
from mi_crow.errors import CancelledError, MiCrowError, NotFoundError, UserError
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture import forward as batches_module
from mi_crow.language_model.capture.job import capture_run, in_recorded_dtype
from mi_crow.language_model.capture.run import Capture, CaptureResult
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.progress import NullProgress, Progress
from mi_crow.store import RunManifest, Workspace
from mi_crow.store.runs.reader import RunReader
from tests.helpers.progress import Watched
from tests.helpers.tiny_models import TEXTS

LABELS = ["a", None] * (len(TEXTS) // 2)
CONFIG = CaptureConfig(
    ModelSpec("tiny"),
    DatasetSpec("list"),
    ("resid_post.1",),
    dtype="fp32",
    batch_size=3,
    shard_size=5,
    name="run",
)


def capture(
    lm: LanguageModel,
    workspace: Workspace,
    config: CaptureConfig = CONFIG,
    progress: Progress | None = None,
    run_dir: Path | None = None,
    texts: TextDataset | None = None,
) -> CaptureResult:
    texts = texts or TextDataset(TEXTS, LABELS)
    return Capture(lm, texts, config).run(workspace, progress or NullProgress(), run_dir)


def files(folder: Path) -> dict[str, bytes]:
    """Content of every part, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("part-*")
        if path.is_file()
    }


def alone(lm: LanguageModel, text: str, layer: int) -> Tensor:
    """Activations of one text, computed by the model alone: [length, d]."""
    ids = lm.tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        return lm.model(input_ids=ids, output_hidden_states=True).hidden_states[layer + 1][0]


def test_rows_are_the_models_activations_without_special_tokens(
    tiny_lm: LanguageModel, workspace: Workspace
) -> None:
    result = capture(tiny_lm, workspace)
    reader = RunReader(workspace.run_dir("run"), "resid_post.1")
    assert [part.table.num_rows for part in reader.parts()] == [5, 5, 2]
    assert result.tokens == reader.n_tokens
    number = 0
    for part in reader.parts():
        for row in part.table.to_pylist():
            mine = part.row_document == row["document"]
            ids = tiny_lm.tokenizer(TEXTS[number]).input_ids
            assert row["document"] == number
            assert row["text"] == TEXTS[number]
            assert row["label"] == LABELS[number]
            assert row["split"] == split_of(TEXTS[number])
            assert row["token_ids"] == ids
            assert row["kept"] == list(range(1, len(ids)))  # BOS is left out
            expected = alone(tiny_lm, TEXTS[number], 1)[1:]
            torch.testing.assert_close(part.take(mine), expected, rtol=1e-4, atol=1e-4)
            assert part.row_position[mine].tolist() == row["kept"]
            number += 1
    assert number == result.documents == len(TEXTS)


def test_special_tokens_are_kept_when_asked(tiny_lm: LanguageModel, workspace: Workspace) -> None:
    result = capture(tiny_lm, workspace, replace(CONFIG, keep_special=True))
    assert result.tokens == sum(len(ids) for ids in tiny_lm.tokenizer(TEXTS).input_ids)


def test_several_layers_share_one_pass_and_their_rows(
    tiny_lm: LanguageModel, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = 0
    run_to = batches_module.run_to

    def counted(*arguments: Any) -> Any:
        nonlocal passes
        passes += 1
        return run_to(*arguments)

    monkeypatch.setattr(batches_module, "run_to", counted)
    capture(tiny_lm, workspace, replace(CONFIG, name="deepest"))
    alone_passes, passes = passes, 0
    layers = ("resid_post.1", "mlp_out.0", "resid_post.0")
    result = capture(tiny_lm, workspace, replace(CONFIG, layers=layers))
    assert passes == alone_passes > 0
    assert result.layers == ["model.layers.1", "model.layers.0.mlp", "model.layers.0"]
    for layer in (0, 1):
        rows = next(RunReader(workspace.run_dir("run"), f"resid_post.{layer}").parts())
        mine = rows.take(rows.row_document == 0)
        torch.testing.assert_close(mine, alone(tiny_lm, TEXTS[0], layer)[1:])


def test_batch_size_changes_nothing_but_rounding(
    tiny_lm: LanguageModel, workspace: Workspace
) -> None:
    capture(tiny_lm, workspace)
    capture(tiny_lm, workspace, replace(CONFIG, batch_size=1, name="single"))
    first, second = (
        RunReader(workspace.run_dir(run), "resid_post.1").sample(10_000, 0)
        for run in ("run", "single")
    )
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


def test_storage_in_bf16_is_the_rounded_value(tiny_lm: LanguageModel, workspace: Workspace) -> None:
    capture(tiny_lm, workspace)
    capture(tiny_lm, workspace, replace(CONFIG, dtype="bf16", name="half"))
    exact = RunReader(workspace.run_dir("run"), "resid_post.1").sample(10_000, 0)
    half = RunReader(workspace.run_dir("half"), "resid_post.1").sample(10_000, 0)
    assert torch.equal(half, exact.bfloat16())


def test_texts_are_cut_to_the_context(tiny_lm: LanguageModel, workspace: Workspace) -> None:
    result = capture(tiny_lm, workspace, replace(CONFIG, context_length=6))
    assert result.tokens == 5 * len(TEXTS)  # BOS takes one place
    longest = capture(tiny_lm, workspace, replace(CONFIG, context_length=10_000, name="long"))
    manifest = RunManifest.load(workspace.run_dir(longest.run_id))
    assert manifest.settings["context_length"] == 64  # the model's own


def test_a_token_limit_ends_with_the_document_that_reaches_it(
    tiny_lm: LanguageModel, workspace: Workspace
) -> None:
    lengths = [len(ids) - 1 for ids in tiny_lm.tokenizer(TEXTS).input_ids]
    limit = sum(lengths[:6]) + 1
    config = replace(CONFIG, dataset=DatasetSpec("list", token_limit=limit))
    progress = Watched()
    result = capture(tiny_lm, workspace, config, progress)
    assert (result.documents, result.tokens) == (7, sum(lengths[:7]))
    assert progress.updates[-1] == (limit, limit, "token")


class KillAfter(Watched):
    """Ends the work once some parts are whole, as a kill between two writes would."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self._parts = parts

    def checkpoint(self, name: str) -> None:
        super().checkpoint(name)
        if len(self.checkpoints) == self._parts:
            raise KeyboardInterrupt


@pytest.mark.parametrize("parts", [1, 2])
def test_a_killed_capture_goes_on_with_the_same_bytes(
    tiny_lm: LanguageModel, workspace: Workspace, parts: int
) -> None:
    capture(tiny_lm, workspace)
    whole = files(workspace.run_dir("run"))
    folder = workspace.make_run_dir("killed", "")
    config = replace(CONFIG, name="killed")
    with pytest.raises(KeyboardInterrupt):
        capture(tiny_lm, workspace, config, KillAfter(parts), folder)
    manifest = RunManifest.load(folder)
    assert (manifest.status, len(manifest.parts)) == ("running", parts)
    (folder / "tokens" / ".tmp-torn-part-000-00001.parquet").write_bytes(b"torn")
    (folder / "tokens" / "part-007-00001.parquet").write_bytes(b"of a rank that died")
    progress = Watched()
    result = capture(tiny_lm, workspace, config, progress, folder)
    assert progress.checkpoints == [f"part-000-{n:05d}" for n in range(parts, 3)]
    assert files(folder) == whole
    assert result.documents == len(TEXTS)
    assert RunManifest.load(folder).status == "complete"
    assert list(folder.rglob(".tmp-*")) == []


@pytest.mark.parametrize("batches", [0, 1, 3, 4])
def test_a_cancelled_capture_goes_on_with_the_same_bytes(
    tiny_lm: LanguageModel, workspace: Workspace, batches: int
) -> None:
    capture(tiny_lm, workspace)
    folder = workspace.make_run_dir("cancelled", "")
    config = replace(CONFIG, name="cancelled")
    with pytest.raises(CancelledError):
        capture(tiny_lm, workspace, config, Watched(looks=batches), folder)
    assert len(RunManifest.load(folder).parts) <= batches // 2
    capture(tiny_lm, workspace, config, run_dir=folder)
    assert files(folder) == files(workspace.run_dir("run"))


def test_a_kill_between_part_and_manifest_repeats_the_part(
    tiny_lm: LanguageModel, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture(tiny_lm, workspace)
    folder = workspace.make_run_dir("killed", "")
    save = RunManifest.save

    def die(manifest: RunManifest, run_dir: Path) -> None:
        if len(manifest.parts) == 2:
            raise KeyboardInterrupt
        save(manifest, run_dir)

    with monkeypatch.context() as patch:
        patch.setattr(RunManifest, "save", die)
        with pytest.raises(KeyboardInterrupt):
            capture(tiny_lm, workspace, CONFIG, run_dir=folder)
    assert len(RunManifest.load(folder).parts) == 1
    capture(tiny_lm, workspace, CONFIG, run_dir=folder)
    assert files(folder) == files(workspace.run_dir("run"))


@pytest.mark.parametrize("what", ["resid", "tokens"])
def test_a_resumed_capture_makes_parts_again_that_a_power_cut_tore(
    tiny_lm: LanguageModel, workspace: Workspace, what: str
) -> None:
    capture(tiny_lm, workspace)
    whole = files(workspace.run_dir("run"))
    folder = workspace.make_run_dir("cut", "")
    with pytest.raises(KeyboardInterrupt):
        capture(tiny_lm, workspace, CONFIG, KillAfter(2), folder)
    place = "tokens" if what == "tokens" else RunManifest.load(folder).layers[0].name
    (torn,) = (folder / place).glob("part-000-00001.*")
    content = torn.read_bytes()
    torn.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    progress = Watched()
    capture(tiny_lm, workspace, CONFIG, progress, folder)
    assert progress.checkpoints == ["part-000-00001", "part-000-00002"]
    assert files(folder) == whole
    resumed, straight = RunManifest.load(folder), RunManifest.load(workspace.run_dir("run"))
    assert (resumed.positions, resumed.parts) == (straight.positions, straight.parts)


def test_a_resume_computes_in_the_dtype_that_the_run_was_begun_in(
    tiny_lm: LanguageModel, workspace: Workspace
) -> None:
    capture(tiny_lm, workspace)
    run_dir = workspace.run_dir("run")
    assert in_recorded_dtype(ModelSpec("m"), run_dir).dtype == "fp32"
    assert in_recorded_dtype(ModelSpec("m", dtype="bf16"), run_dir).dtype == "bf16"
    assert in_recorded_dtype(ModelSpec("m"), None).dtype == "auto"


def test_a_complete_capture_is_left_alone(tiny_lm: LanguageModel, workspace: Workspace) -> None:
    first = capture(tiny_lm, workspace)
    before = files(workspace.run_dir("run"))
    again = capture(tiny_lm, workspace, run_dir=workspace.run_dir("run"))
    assert again == first
    assert files(workspace.run_dir("run")) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "texts", "what"),
    [
        ({"layers": ("resid_post.0",)}, TEXTS, "layers"),
        ({"dtype": "bf16"}, TEXTS, "dtype"),
        ({"shard_size": 4}, TEXTS, "settings"),
        ({"keep_special": True}, TEXTS, "settings"),
        ({}, TEXTS[:-1], "fingerprint"),
    ],
)
def test_a_capture_of_something_else_is_not_gone_on_with(
    tiny_lm: LanguageModel,
    workspace: Workspace,
    change: dict[str, Any],
    texts: list[str],
    what: str,
) -> None:
    folder = workspace.make_run_dir("run", "")
    with pytest.raises(KeyboardInterrupt):
        capture(tiny_lm, workspace, CONFIG, KillAfter(1), folder)
    before = files(folder)
    with pytest.raises(UserError, match=f"captured with a different {what}"):
        capture(
            tiny_lm,
            workspace,
            replace(CONFIG, **change),
            run_dir=folder,
            texts=TextDataset(texts, LABELS[: len(texts)]),
        )
    assert files(folder) == before


def poison(lm: LanguageModel, value: float) -> Any:
    """Puts `value` into layer 1 at a token that document 1 alone has."""
    ids = [set(ids) for ids in lm.tokenizer(TEXTS).input_ids]
    token = min(ids[1].difference(*ids[:1], *ids[2:]))
    state: dict[str, Tensor] = {}

    def remember(_: Any, args: Any, kwargs: Any) -> None:
        state["ids"] = kwargs["input_ids"]

    def change(_: Any, __: Any, output: Tensor) -> Tensor:
        return output.masked_fill((state["ids"] == token)[..., None], value)

    handles = [
        lm.model.register_forward_pre_hook(remember, with_kwargs=True),
        lm.model.model.layers[1].register_forward_hook(change),
    ]
    return lambda: [handle.remove() for handle in handles]


@pytest.mark.parametrize(
    ("value", "dtype", "hint"),
    [(float("nan"), "fp32", "--model-dtype"), (1e6, "fp16", "store bf16 (--dtype)")],
)
def test_values_that_are_not_finite_name_layer_and_document(
    tiny_lm: LanguageModel, workspace: Workspace, value: float, dtype: str, hint: str
) -> None:
    restore = poison(tiny_lm, value)
    try:
        with pytest.raises(MiCrowError) as caught:
            capture(tiny_lm, workspace, replace(CONFIG, dtype=dtype))
    finally:
        restore()
    assert "layer 'resid_post.1' gave NaN or infinity in document 1" in caught.value.sentence
    assert hint in caught.value.sentence
    assert not (workspace.activations_dir / "run").exists()


def test_the_batch_shrinks_when_memory_runs_out(
    tiny_lm: LanguageModel, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_to = batches_module.run_to
    sizes: list[int] = []

    def scarce(lm: Any, points: Any, input_ids: Tensor) -> Any:
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(input_ids))
        return run_to(lm, points, input_ids)

    monkeypatch.setattr(batches_module, "run_to", scarce)
    progress = Watched()
    result = capture(tiny_lm, workspace, replace(CONFIG, batch_size=4), progress)
    assert result.documents == len(TEXTS)
    assert max(sizes) == 2
    assert "the device is out of memory: retrying with 2 documents per batch" in progress.lines
    settings = RunManifest.load(workspace.run_dir("run")).settings
    assert (settings["batch_size"], settings["batch_size_used"]) == (4, 2)


@pytest.mark.slow
def test_no_room_for_one_document_is_told(
    tiny_lm: LanguageModel, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(batches_module, "run_to", full)
    with pytest.raises(UserError, match="one document does not fit"):
        capture(tiny_lm, workspace)
    assert not (workspace.activations_dir / "run").exists()


@pytest.mark.slow
def test_other_failures_of_the_model_are_not_taken_for_memory(
    tiny_lm: LanguageModel, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(batches_module, "run_to", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        capture(tiny_lm, workspace)


@pytest.mark.slow
def test_texts_of_special_tokens_alone_leave_nothing(
    tiny_lm: LanguageModel, workspace: Workspace
) -> None:
    with pytest.raises(UserError, match="gave no tokens"):
        capture(tiny_lm, workspace, texts=TextDataset(["</s>", "<s></s>"]))
    assert not (workspace.activations_dir / "run").exists()


def test_a_document_without_kept_tokens_is_still_a_document(
    tiny_lm: LanguageModel, workspace: Workspace
) -> None:
    capture(tiny_lm, workspace, texts=TextDataset(["</s>", TEXTS[0], "</s>"]))
    part = next(RunReader(workspace.run_dir("run"), "resid_post.1").parts())
    assert [len(kept) == 0 for kept in part.table["kept"].to_pylist()] == [True, False, True]
    assert set(part.row_document.tolist()) == {1}


@pytest.mark.slow
def test_input_and_output_of_one_block_need_two_runs(
    tiny_lm: LanguageModel, workspace: Workspace
) -> None:
    with pytest.raises(UserError, match="cannot share a run"):
        capture(tiny_lm, workspace, replace(CONFIG, layers=("resid_pre.1", "resid_post.1")))
    capture(tiny_lm, workspace, replace(CONFIG, layers=("1", "resid_post.1", "model.layers.1")))
    assert len(RunManifest.load(workspace.run_dir("run")).layers) == 1


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"layers": ("h.99",)}, NotFoundError),
        ({"model": ModelSpec("./nothing")}, NotFoundError),
        ({"dataset": DatasetSpec("./none.jsonl")}, NotFoundError),
        ({"name": "/full/path"}, UserError),
        ({"name": "../up"}, UserError),
        ({"name": "taken"}, UserError),
    ],
)
def test_wrong_input_leaves_the_workspace_as_it_was(
    tiny_model_dir: Path,
    workspace: Workspace,
    tmp_path: Path,
    change: dict[str, Any],
    kind: type[MiCrowError],
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(TEXTS))
    workspace.make_run_dir("taken", "")
    before = sorted(workspace.root.rglob("*"))
    good = replace(CONFIG, model=ModelSpec(str(tiny_model_dir)), dataset=DatasetSpec(str(texts)))
    with pytest.raises(kind):
        capture_run(workspace, replace(good, **change))
    assert sorted(workspace.root.rglob("*")) == before


def test_the_job_captures_from_files(
    tiny_model_dir: Path, workspace: Workspace, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(TEXTS))
    config = replace(
        CONFIG, model=ModelSpec(str(tiny_model_dir)), dataset=DatasetSpec(str(texts), limit=4)
    )
    result = capture_run(workspace, config).as_json()
    assert set(result) == {
        *("run_id", "layers", "tokens", "documents", "seconds", "bytes"),
        *("padding_share", "rounding_fvu", "points"),
    }
    assert (result["run_id"], result["layers"]) == ("run", ["model.layers.1"])
    manifest = RunManifest.load(workspace.run_dir("run"))
    assert manifest.model_id == str(tiny_model_dir)
    assert manifest.dataset["source"] == str(texts)

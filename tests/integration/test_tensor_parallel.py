"""Two processes that split a model capture what one that has all of it captures."""

from typing import Any

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from mi_crow.errors import UserError
from mi_crow.jobs import follow, submit
from mi_crow.jobs.spec import config_as_json
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.language_model.placement.tensor_parallel import split_options
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace

LAYERS = ("resid_post.2", "mlp_out.1", "attn_out.3")
CONFIG = CaptureConfig(
    ModelSpec("sample", dtype="fp32", device="cpu"),
    DatasetSpec("sample", limit=60),
    LAYERS,
    dtype="fp32",
    batch_size=8,
    shard_size=24,
    name="alone",
)


def rows(workspace: Workspace, run_id: str, layer: str) -> torch.Tensor:
    parts = RunReader(workspace.run_dir(run_id), layer).parts()
    return torch.cat([part.take(slice(None)) for part in parts])


def captured(workspace: Workspace, **fields: Any) -> dict[str, Any]:
    params = config_as_json(CONFIG) | {"tensor_parallel": True} | fields
    job = submit(workspace, "capture", params, launcher="torchrun", nproc=2)
    return list(follow(workspace, job))[-1]


@pytest.mark.slow
def test_a_split_model_gives_the_same_activations(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = capture_run(workspace, CONFIG)
    last = captured(workspace, name="split")
    assert last["event"] == "finished", last
    assert (last["result"]["tokens"], last["result"]["documents"]) == (alone.tokens, 60)
    for layer in alone.layers:
        found, wanted = (rows(workspace, run_id, layer) for run_id in ("split", "alone"))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    # What each process has only a part of is refused, with nothing left behind.
    last = captured(workspace, name="parts", layers=["z.2"])
    assert last["event"] == "failed", last
    assert "layer 'z.2' is split among the processes" in last["error"]
    assert last["exit_code"] == 2
    assert [run.run_id for run in workspace.list_runs()] == ["alone", "split"]


@pytest.mark.parametrize(
    ("spec", "config", "gguf", "says"),
    [
        (
            ModelSpec("m"),
            LlamaConfig(hidden_size=96, num_attention_heads=6),
            False,
            "6 attention heads",
        ),
        (ModelSpec("m"), GPT2Config(), False, "no plan for gpt2"),
        (ModelSpec("m", dtype="8bit"), LlamaConfig(), False, "it is quantized"),
        (ModelSpec("m", device="spread"), LlamaConfig(), False, "it is spread over devices"),
        (ModelSpec("m"), LlamaConfig(), True, "it is a GGUF file"),
    ],
)
def test_a_model_that_cannot_be_split_is_refused(
    spec: ModelSpec, config: Any, gguf: bool, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: None)
    with pytest.raises(UserError, match=f"'m' cannot be split over 4 processes.*{says}"):
        split_options(spec, config, torch.device("cpu"), 4, gguf)

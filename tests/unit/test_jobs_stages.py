"""What jobs say that they do: the words of each stage, from the lines that the work really logs."""

import json
from pathlib import Path
from typing import Any

import pytest

from mi_crow.jobs.kinds import KINDS, Work
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.features.config import INDEXING, IndexConfig
from mi_crow.mechanistic.sae.config import ON_HELDOUT, SaeTrainingConfig, TrainConfig
from mi_crow.mechanistic.sae.evaluation.config import EVALUATING, EvaluateConfig
from mi_crow.progress import LOADING
from mi_crow.store.workspace import Workspace
from tests.helpers.progress import Watched
from tests.helpers.tiny_models import TEXTS


def stages(workspace: Workspace, kind: str, config: Any) -> tuple[str, ...]:
    told = Watched()
    KINDS[kind].work(Work(workspace, config, told, None))
    found = map(KINDS[kind].stage_in, told.lines)
    return tuple(stage for stage in found if stage is not None)


@pytest.mark.slow
def test_a_job_says_what_it_does_while_it_has_no_bar(
    workspace: Workspace, tiny_model_dir: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.jsonl"
    many = TEXTS * 40
    rows = [{"text": f"{n}: {many[n]}", "label": "ab"[n % 2]} for n in range(80)]
    texts.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    model, data = ModelSpec(str(tiny_model_dir), device="cpu"), DatasetSpec(str(texts))
    capture = CaptureConfig(model, data, ("resid_post.0",), dtype="fp32", name="run")
    assert stages(workspace, "capture", capture) == (LOADING, "")
    steps = SaeTrainingConfig(steps=3, batch_size=64)
    train = TrainConfig("run", "resid_post.0", name="sae", k=4, training=steps, device="cpu")
    assert stages(workspace, "train", train) == ("reading activations", "", ON_HELDOUT)
    assert stages(workspace, "index", IndexConfig("sae", device="cpu")) == (LOADING, *INDEXING)
    evaluate = EvaluateConfig("sae", device="cpu")
    assert stages(workspace, "evaluate", evaluate) == (LOADING, *EVALUATING[1:])

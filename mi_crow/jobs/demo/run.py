"""The demo job: the whole workflow on the sample model and corpus, measured.

One process runs every stage, so that torch is imported once. Each stage is the same call that the
job of its kind makes; a demo that was killed resumes after its finished stages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mi_crow.errors import NotFoundError
from mi_crow.jobs.rate import PERCENT
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.explain.config import ExplainConfig
from mi_crow.mechanistic.features.config import NAMING, IndexConfig
from mi_crow.mechanistic.sae.config import SaeTrainingConfig, TrainConfig
from mi_crow.mechanistic.sae.evaluation.config import EvaluateConfig
from mi_crow.mechanistic.sae.metadata import CONFIG_NAME
from mi_crow.progress import LOADING, Progress, raise_if_stopped
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

RUN_ID = "demo"
SAE_ID = "demo-topk"
LAYER = "resid_post.2"
K = 32
STEPS = 1600
BATCH = 256


@dataclass(frozen=True)
class StageTime:
    """How long a stage takes on two cores (the mean of five demos, alone and beside other work),
    and the share of that which its own progress is about: what else it does is silent. They shape
    the bar and the time that is left.

    `steps`: as many as it usually takes, of a search that says at most how many there are.
    """

    seconds: float
    reported: float = 1.0
    steps: int | None = None


STAGES = {
    "capture": StageTime(30),
    "train": StageTime(24),
    "index": StageTime(18, 0.65),
    "evaluate": StageTime(20, 0.45),
    "topics": StageTime(17, 0.0),
    "steer": StageTime(30, steps=8),
}


_LOADING = "load"
_DOING = {
    _LOADING: LOADING,
    "capture": "capturing",
    "train": "training",
    "index": "indexing",
    "evaluate": "evaluating",
    "topics": "tagging topics",
    "steer": "steering",
}


def stage_in(message: str) -> str | None:
    """What the demo does from this line of its log on; None where no stage starts with it."""
    name, _, rest = message.partition(" ")
    return _DOING.get(name) if rest == "starts" else None


@dataclass
class StageProgress:
    """One stage's share of the whole demo's bar, in percent. One that `is_over` since an earlier
    attempt moves nothing: how quickly it is passed says nothing of the others."""

    whole: Progress
    name: str
    start: float
    share: float
    is_over: bool = False
    steps: int | None = None

    def update(
        self, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        total = self.steps or total
        percent = self.start + self.share * (min(done / total, 1.0) if total else 0.0)
        if not self.is_over:
            self.whole.update(min(int(percent), 99), 100, PERCENT, metrics)

    def log(self, message: str) -> None:
        self.whole.log(f"{self.name}: {message}")

    def checkpoint(self, name: str) -> None:
        self.whole.checkpoint(f"{self.name}/{name}")

    def should_stop(self) -> bool:
        return self.whole.should_stop()


class Stages:
    """Gives each stage its progress and logs its start."""

    def __init__(self, whole: Progress) -> None:
        self._whole = whole
        self._scale = 100 / sum(one.seconds for one in STAGES.values())

    def enter(self, name: str, *, is_over: bool = False, is_begun: bool = False) -> StageProgress:
        """The progress of a stage; what an earlier attempt did of it is no pace, so that one which
        `is_begun` says first how far it is."""
        raise_if_stopped(self._whole)
        names = list(STAGES)
        start = sum(STAGES[before].seconds for before in names[: names.index(name)]) * self._scale
        self._whole.log(f"{name} starts")
        time_of = STAGES[name]
        share = time_of.seconds * time_of.reported * self._scale
        stage = StageProgress(self._whole, name, start, share, is_over, time_of.steps)
        if not is_begun:
            stage.update(0, 1, name)
        return stage


def run_demo(
    workspace: Workspace, progress: Progress, device: str = "auto", seed: int = 0
) -> dict[str, Any]:
    """Captures, trains, indexes, evaluates, tags and steers on `sample_data`; returns a summary.

    The keys are those of `mi-crow demo --json`. Cross-entropies are in nats per token. `stages` has
    what the stages did and how many seconds they took, by the kind of job that does the same; one
    that an earlier attempt had finished is not among them.
    """
    progress.log(f"{_LOADING} starts")  # what is imported next takes a while
    from mi_crow.jobs.demo.measures import steer_topic, tag_topics, topic_features
    from mi_crow.language_model import LanguageModel
    from mi_crow.mechanistic.explain.job import explain_features
    from mi_crow.mechanistic.features.beside.proposals import proposals_path
    from mi_crow.mechanistic.features.index.build import build_index
    from mi_crow.mechanistic.sae.evaluation.evaluate import evaluate_sae
    from mi_crow.mechanistic.sae.formats.load import load_sae
    from mi_crow.mechanistic.sae.weights_hash import WeightsFile
    from mi_crow.mechanistic.steering.loading import join
    from mi_crow.store.runs.reader import RunReader

    started = perf_counter()
    stages = Stages(progress)
    lm = LanguageModel.from_spec(ModelSpec("sample", device=device))
    run_dir = workspace.activations_dir / RUN_ID
    begun = _run_there(run_dir)
    over = begun is not None and begun.complete
    stage = stages.enter("capture", is_over=over, is_begun=begun is not None)
    manifest = _capture(workspace, lm, run_dir, stage, device, seed)
    sae_dir = workspace.saes_dir / SAE_ID
    over = (sae_dir / CONFIG_NAME).exists()
    stage = stages.enter("train", is_over=over, is_begun=sae_dir.exists())
    _train(workspace, stage, device, seed)
    sae = load_sae(workspace.sae_dir(SAE_ID), lm.device)
    stage = stages.enter("index", is_over=workspace.index_path(SAE_ID).exists())
    took: dict[str, dict[str, Any]] = {}
    if not workspace.index_path(SAE_ID).exists():
        built = build_index(workspace, IndexConfig(SAE_ID, device=device), stage, sae=sae, lm=lm)
        index = built.as_json()
        took["index"] = {name: index[name] for name in ("features", "tokens", "seconds", "bytes")}
    if not proposals_path(workspace, SAE_ID).exists():
        stage.log(NAMING)
        explain_features(workspace, ExplainConfig(SAE_ID, seed))
    config = EvaluateConfig(SAE_ID, device=device, seed=seed)
    stage, begun_at = stages.enter("evaluate"), perf_counter()
    evaluation = evaluate_sae(workspace, config, stage, lm=lm)
    seconds = perf_counter() - begun_at
    took["evaluate"] = {"documents": config.documents, "seconds": seconds}
    stages.enter("topics")
    reader = RunReader(run_dir, LAYER)
    topics, controls = topic_features(sae, reader, seed)
    tag_topics(workspace, SAE_ID, topics)
    weights = WeightsFile.of(workspace.sae_dir(SAE_ID))
    loaded = join(SAE_ID, lm, sae, weights)
    steering = steer_topic(workspace, loaded, topics, stages.enter("steer"), seed)
    return {
        "workspace": str(workspace.root),
        "run_id": RUN_ID,
        "sae_id": SAE_ID,
        "tokens": manifest.n_tokens,
        "seconds": perf_counter() - started,
        **{key: evaluation[key] for key in ("fvu", "fvu_all", "l0", "dead_share")},
        "ce_added": evaluation["ce_added"],
        "loss_recovered": evaluation["loss_recovered"],
        "topics": [topic.as_json() for topic in topics],
        "controls": controls,
        "steering": steering,
        "stages": took,
    }


def _run_there(run_dir: Path) -> RunManifest | None:
    """What an earlier attempt captured."""
    try:
        return RunManifest.load(run_dir)
    except NotFoundError:
        return None


def _capture(
    workspace: Workspace,
    lm: "LanguageModel",
    run_dir: Path,
    progress: Progress,
    device: str,
    seed: int,
) -> RunManifest:
    """Runs the sample corpus through the sample model, unless that is done."""
    from mi_crow.datasets import load_texts
    from mi_crow.language_model.capture.run import Capture

    config = CaptureConfig(
        model=ModelSpec("sample", device=device),
        dataset=DatasetSpec("sample"),
        layers=(LAYER,),
        name=RUN_ID,
        seed=seed,
    )
    run_dir.mkdir(parents=True, exist_ok=True)
    Capture(lm, load_texts(config.dataset), config).run(workspace, progress, run_dir)
    return RunManifest.load(run_dir)


def _train(workspace: Workspace, progress: Progress, device: str, seed: int) -> None:
    """Trains a TopK SAE on the captured tokens, unless that is done; resumes from a checkpoint."""
    from mi_crow.mechanistic.sae.train.run import train_run

    config = TrainConfig(
        run_id=RUN_ID,
        layer=LAYER,
        k=K,
        training=SaeTrainingConfig(steps=STEPS, batch_size=BATCH, seed=seed),
        device=device,
        name=SAE_ID,
    )
    sae_dir = workspace.saes_dir / SAE_ID
    sae_dir.mkdir(parents=True, exist_ok=True)
    train_run(workspace, config, progress, sae_dir)

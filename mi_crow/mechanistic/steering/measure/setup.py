"""Making ready to measure: the loaded SAE, the judge, the prompts, the held-out texts."""

from collections.abc import Sequence
from typing import Any

from mi_crow.mechanistic.steering.loading import LoadedSae, load_for_work
from mi_crow.mechanistic.steering.measure.bench import ArmTexts, Bench
from mi_crow.mechanistic.steering.measure.config import REPORTED, Judging, Trial
from mi_crow.mechanistic.steering.measure.indexed import Indexed
from mi_crow.mechanistic.steering.measure.judges import judge_of
from mi_crow.store.workspace import Workspace

# What to lower where there is too little memory to measure.
LOWER = "lower --n or --max-new-tokens"
WORDS_A_TOKEN = 0.7  # of English text


def make_bench(
    workspace: Workspace,
    sae_id: str,
    indexed: Indexed,
    judging: Judging,
    target: int | None,
    trial: Trial,
    device: str = "auto",
    loaded: LoadedSae | None = None,
    baselines: dict[Any, ArmTexts] | None = None,
) -> Bench:
    """A bench on which arms that steer `target` are measured. Raises UserError, NotFoundError
    before a model is loaded. `baselines`: those of an earlier bench on the same model."""
    words = int(trial.max_new_tokens * WORDS_A_TOKEN)
    judge = judge_of(judging, target, indexed.texts, words, trial.seed)
    tokens = indexed.texts.heldout_tokens(trial.documents) if trial.documents else []
    (row,) = indexed.store.rows([target]) if target is not None else (None,)
    loaded = loaded or load_for_work(workspace, sae_id, device)
    held = {} if baselines is None else baselines
    greatest = row.max_act if row else 1.0
    return Bench(workspace, loaded, judge, target, greatest, tokens, baselines=held)


def prompts_of(trial: Trial, indexed: Indexed, count: int = REPORTED) -> Sequence[str]:
    """The prompts that are given, or the commonest openings of the indexed texts."""
    return trial.prompts or indexed.texts.openings(count)

"""A workspace to measure steering in: a model's activations on labelled texts, an SAE, its index.

Each step is the command that a user would type, and is left out where its result is there: a
workspace that was begun is continued.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from mi_crow.jobs.status import list_jobs
from mi_crow.mechanistic.steering.measure.texts import IndexedTexts
from mi_crow.store.workspace import Workspace
from tests.real_model.smollm2 import model_folder, write_texts

SMOLLM2 = "smollm2"  # stands for the folder that `model_folder` makes
LABELS = (
    *(f"fortunes:{name}" for name in ("law", "food", "sports", "medicine", "education", "drugs")),
    *(f"fortunes:{name}" for name in ("love", "men-women", "politics", "science", "linux", "perl")),
    *("fortunes:debian", "fortunes:tao", "fortunes:songs-poems", "fortunes:literature"),
    *("module:turtle", "module:statistics", "module:asyncio", "module:typing"),
    *("pydoc:string-methods", "pydoc:compound"),
)
_MOST = 130  # texts of a label
_ENOUGH = 60
_RUN, _SAE = "texts", "sae"
LAYERS = ("resid_post.9", "resid_post.15", "resid_post.21")  # of SmolLM2: one pass stores them all
LATENTS, K, BATCH, STEPS = 4096, 32, 1024, 800


def prepare(
    workspace: Path, model: str, layer: str, steps: int, device: str, dataset: Path | None
) -> str:
    """Makes what is missing; the SAE's id. Without `dataset`, whose rows have `text` and `label`,
    the texts are passages of fortunes and pydoc. Of SmolLM2 one run holds three layers."""
    layers = LAYERS if model == SMOLLM2 and layer in LAYERS else (layer,)
    run = (_RUN if len(layers) > 1 else f"{_RUN}-{layer}").replace(":", "-")
    sae_id = f"{_SAE}-{layer}".replace(":", "-")
    texts = dataset or workspace.parent / f"{workspace.name}-texts.jsonl"
    if not texts.is_file():
        labelled_texts(texts)
    folder = str(model_folder()) if model == SMOLLM2 else model
    held = Workspace(workspace)
    if run not in {one.run_id for one in held.list_runs() if one.manifest.complete}:
        of_texts = ("--dataset", str(texts), "--label-field", "label", "--context-length", "128")
        named = (*(word for one in layers for word in ("--layer", one)), "--name", run)
        _step(held, run, "capture", "--model", folder, *of_texts, *named, "--device", device)
    saes = {one.sae_id: one for one in held.list_saes()}
    if sae_id not in saes:
        size = ("--n-latents", str(LATENTS), "--k", str(K), "--batch-size", str(BATCH))
        named = ("--steps", str(steps), "--name", sae_id, "--device", device)
        _step(held, sae_id, "train", "--run", run, "--layer", layer, *size, *named)
    if sae_id not in saes or not saes[sae_id].has_index:
        _step(held, sae_id, "index", "--sae", sae_id, "--device", device)
    return sae_id


def reported(texts: IndexedTexts) -> list[str]:
    """The labels of SmolLM2's table: of LABELS with 60 texts or more the first seven of fortunes
    and the first three of pydoc. Methods are tried on the others."""
    counts = Counter(one.label for one in texts.documents)
    enough = [label for label in LABELS if counts[label] >= _ENOUGH]
    sides = [[one for one in enough if one.startswith("fortunes:") == on] for on in (True, False)]
    return [*sides[0][:7], *sides[1][:3]]


def labelled_texts(path: Path) -> Counter[str]:
    """Writes at most 130 texts of each of LABELS; how many of each there are."""
    every = path.with_suffix(".all")
    write_texts(every)
    counts: Counter[str] = Counter()
    kept: list[str] = []
    for line in every.read_text("utf-8").splitlines():
        label = json.loads(line)["label"]
        if label in LABELS and counts[label] < _MOST:
            counts[label] += 1
            kept.append(line)
    every.unlink()
    path.write_text("\n".join(kept) + "\n", "utf-8")
    return counts


def _step(workspace: Workspace, output: str, *command: str) -> None:
    """Runs a command, or resumes its job where that was ended before."""
    ended = [
        job.job_id
        for job in (list_jobs(workspace) if workspace.exists() else [])
        if job.kind == command[0] and job.output == output and job.resumable and not job.active
    ]
    steps = [("jobs", "resume", ended[-1]), ("jobs", "watch", ended[-1])] if ended else [command]
    for words in steps:
        print("mi-crow", *words, file=sys.stderr, flush=True)
        start = (sys.executable, "-m", "mi_crow", "--workspace", str(workspace.root))
        subprocess.run([*start, *words], check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})

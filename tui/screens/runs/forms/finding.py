"""What could be in a field: models, texts, layers, runs, SAEs, files. Blocks: for a thread."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.errors import MiCrowError
from mi_crow.language_model.outline import Outline, cached_models, outline_of, place_of
from mi_crow.paths import expanded
from mi_crow.store.workspace import RunSummary, SaeSummary, Workspace
from tui.text import count
from tui.widgets.forms.fields import Candidate

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from tui.context import AppContext

_MOST_FILES = 200
_MODEL_FILES = (".gguf",)


@dataclass(frozen=True)
class Situation:
    """What a form starts from: the workspace as the latest look found it, and the cursor."""

    workspace: Workspace
    runs: tuple[RunSummary, ...] = ()
    saes: tuple[SaeSummary, ...] = ()
    jobs: "tuple[JobState, ...]" = ()
    run_id: str | None = None  # under the cursor
    sae_id: str | None = None  # under the cursor, else the open one
    device: str = "auto"  # where none is named

    @classmethod
    def of(
        cls, context: "AppContext", run_id: str | None = None, sae_id: str | None = None
    ) -> "Situation":
        """What the latest look found; `run_id` and `sae_id` have the cursor, else the open SAE is
        meant."""
        found = context.runs(), context.saes(), context.jobs()
        return cls(context.workspace, *found, run_id, sae_id or context.sae_id, context.device)

    def run(self, run_id: str | None) -> RunSummary | None:
        return next((run for run in self.runs if run.run_id == run_id), None)

    def sae(self, sae_id: str | None) -> SaeSummary | None:
        return next((sae for sae in self.saes if sae.sae_id == sae_id), None)


def models(at: Situation, typed: str) -> tuple[Candidate, ...]:
    """The sample model, those of the runs, those in the hub's cache, and folders and files."""
    found = {"sample": "comes with mi-crow"}
    for run in reversed(at.runs):
        found.setdefault(run.manifest.model_id, f"of run {run.run_id}")
    for name in _cached_models():
        found.setdefault(name, "in the hub's cache")
    named = tuple(Candidate(name, note) for name, note in found.items())
    return named + files(typed, _MODEL_FILES)


@lru_cache(maxsize=1)
def _cached_models() -> tuple[str, ...]:
    return tuple(cached_models())


def forget() -> None:
    """Looks again at what is on this machine: a form was opened."""
    _cached_models.cache_clear()
    outline.cache_clear()


@lru_cache(maxsize=32)
def outline(
    model: str, revision: str | None = None, gguf_file: str | None = None
) -> Outline | None:
    """What a model's files say, read once for each form."""
    return outline_of(model, revision, gguf_file)


def place(model: str, revision: str | None) -> Path | None:
    """Where a model is on this machine; None where only the hub may have it."""
    try:
        return place_of(model, revision)
    except (MiCrowError, OSError, ValueError, RuntimeError):
        return None


def layers_of(found: Outline | None) -> tuple[Candidate, ...]:
    """The hook points that such a model has, by short name, then its modules."""
    if found is None:
        return ()
    points = tuple(Candidate(name, f"{width:,} wide") for name, width in found.points())
    return points + tuple(Candidate(name, "module") for name in found.modules)


def stored_layers(run: RunSummary | None) -> tuple[Candidate, ...]:
    """The layers of a run."""
    if run is None:
        return ()
    tokens = count(run.manifest.n_tokens)
    return tuple(
        Candidate(layer.point, f"{layer.width:,} wide, {tokens} tokens")
        for layer in run.manifest.layers
    )


def run_names(runs: Sequence[RunSummary]) -> tuple[Candidate, ...]:
    """Newest first; one that is not complete says so."""
    return tuple(
        Candidate(
            run.run_id,
            f"{count(run.manifest.n_tokens)} tokens"
            + ("" if run.manifest.complete else ", not complete"),
        )
        for run in reversed(runs)
    )


def sae_names(saes: Sequence[SaeSummary]) -> tuple[Candidate, ...]:
    """Newest first."""
    return tuple(
        Candidate(sae.sae_id, f"{sae.architecture}, {count(sae.n_latents)} latents")
        for sae in reversed(saes)
    )


def job_names(at: Situation) -> tuple[Candidate, ...]:
    """The jobs that another could wait for, newest first."""
    return tuple(Candidate(job.job_id, job.status) for job in reversed(at.jobs) if job.active)


def texts(at: Situation, typed: str) -> tuple[Candidate, ...]:
    """The sample corpus, what was captured before, folders and files of texts."""
    from mi_crow.datasets.files import COMPRESSED, SUFFIXES

    found = {"sample": "comes with mi-crow"}
    for run in reversed(at.runs):
        source = run.manifest.dataset.get("source")
        if isinstance(source, str):
            found.setdefault(source, f"as run {run.run_id}")
    named = tuple(Candidate(name, note) for name, note in found.items())
    return named + files(typed, (*SUFFIXES, *COMPRESSED))


def files(typed: str, suffixes: Sequence[str]) -> tuple[Candidate, ...]:
    """The folders, and the files with these suffixes, that a path goes on to."""
    folder, slash, start = typed.rpartition("/")
    place = expanded(folder + slash or ".")
    hidden = start.startswith(".")
    found = []
    try:
        for path in sorted(place.iterdir()):
            if path.name.startswith(start) and path.name.startswith(".") <= hidden:
                if path.is_dir():
                    found.append(Candidate(f"{folder}{slash}{path.name}/", "folder"))
                elif path.suffix.lower() in suffixes:
                    found.append(Candidate(f"{folder}{slash}{path.name}", "file"))
            if len(found) >= _MOST_FILES:
                break
    except (OSError, ValueError, RuntimeError):  # not a folder, or of an unknown user
        return ()
    return tuple(found)

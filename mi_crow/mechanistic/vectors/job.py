"""The work of `mi-crow vector make`: a vector is made in parts that survive a kill."""

from typing import Any

from mi_crow.errors import CorruptDataError, NotFoundError
from mi_crow.language_model.config import ModelSpec
from mi_crow.mechanistic.vectors.config import MakeConfig
from mi_crow.mechanistic.vectors.stored import (
    VectorSummary,
    new_path,
    read_summary,
    save_vector,
    vector_path,
)
from mi_crow.mechanistic.vectors.texts import run_manifest
from mi_crow.progress import NullProgress, Progress, raise_if_stopped
from mi_crow.store.workspace import Workspace

_SETTINGS = "settings"  # in `made`: the fingerprint of what made it


def model_of(workspace: Workspace, config: MakeConfig) -> ModelSpec:
    """The model of the config, or else that of its run. Raises UserError, NotFoundError."""
    model, revision = config.model, config.revision
    if model is None:
        manifest = run_manifest(workspace, config.run_id or "")
        model, revision = manifest.model_id, revision or manifest.revision
    return ModelSpec(model, revision=revision, device=config.device)


def run_make(
    workspace: Workspace, config: MakeConfig, progress: Progress | None = None
) -> dict[str, Any]:
    """Makes the vector that `config` describes and writes it to the workspace; gives what its file
    says: `name`, `layers` (hook point -> width) and `made`.

    A job that was stopped goes on after the last set of texts that it read, and the last steps of
    a training that it kept. Raises UserError, NotFoundError.
    """
    progress = progress or NullProgress()
    name = config.name or ""
    fingerprint = config.fingerprint()
    done = _made_before(workspace, name, fingerprint)
    if done is not None:
        return summary_json(done)
    new_path(workspace, name, replace=config.replace)
    from mi_crow.mechanistic.vectors.make import make_vector, text_sets

    sets = text_sets(workspace, config)  # fail before a model loads
    total = sum(map(len, sets.all))
    from mi_crow.language_model import LanguageModel
    from mi_crow.mechanistic.vectors.parts import Parts

    spec = model_of(workspace, config)
    progress.log(f"loading {spec.model}")
    lm = LanguageModel.from_spec(spec)
    parts = Parts.of(workspace, fingerprint)
    read = [False]

    def report(done: int, of: int) -> None:
        raise_if_stopped(progress)
        training = read[0] or of != total
        progress.update(done, of, "step" if training else "text")
        read[0] = read[0] or done == of

    vector = make_vector(workspace, lm, name, config, report, parts)
    vector = type(vector)(name, vector.directions, {**vector.made, _SETTINGS: fingerprint})
    path = save_vector(workspace, vector, replace=config.replace)
    parts.clear()
    return summary_json(read_summary(path))


def summary_json(one: VectorSummary) -> dict[str, Any]:
    """A vector for programs."""
    return {"name": one.name, "layers": dict(one.widths), "made": dict(one.made)}


def _made_before(workspace: Workspace, name: str, fingerprint: str) -> VectorSummary | None:
    """The vector, where it was written by an attempt that ended just after that."""
    from mi_crow.mechanistic.vectors.parts import PREFIX

    if not (workspace.vectors_dir / f"{PREFIX}{fingerprint}").is_dir():
        return None
    try:
        found = read_summary(vector_path(workspace, name))
    except (NotFoundError, CorruptDataError):
        return None
    return found if found.made.get(_SETTINGS) == fingerprint else None

"""Which two models a training of a crosscoder reads: of two runs, or of a stream. Torch-free."""

from dataclasses import replace
from typing import Protocol

from mi_crow.errors import UserError
from mi_crow.language_model.config import CaptureConfig, ModelSpec


class TwoModels(Protocol):
    """What a training says of them."""

    @property
    def run_id(self) -> str: ...
    @property
    def stream(self) -> CaptureConfig | None: ...
    @property
    def tuned_run(self) -> str | None: ...
    @property
    def tuned_model(self) -> str | None: ...
    @property
    def tuned_revision(self) -> str | None: ...


def tuned_spec(asked: TwoModels) -> ModelSpec:
    """The tuned model of a stream, loaded as the base model is."""
    assert asked.stream is not None
    assert asked.tuned_model is not None
    base = asked.stream.model
    return replace(base, model=asked.tuned_model, revision=asked.tuned_revision, gguf_file=None)


def check_two_models(asked: TwoModels, *, crosscoder: bool) -> None:
    """Raises UserError for a tuned model that does not go with the rest of a training."""
    for flag, value in (("run", asked.tuned_run), ("model", asked.tuned_model)):
        if value is not None and not crosscoder:
            raise UserError(f"--tuned-{flag} is for crosscoders", hint="add --crosscoder")
    if asked.tuned_run is not None:
        _check_run(asked)
    if asked.tuned_model is not None:
        _check_model(asked)
    elif asked.tuned_revision is not None:
        raise UserError("--tuned-revision is of a tuned model", hint="name it with --tuned-model")


def _check_run(asked: TwoModels) -> None:
    if asked.stream is not None:
        raise UserError(
            "--tuned-run is for a training on runs", hint="name the tuned model with --tuned-model"
        )
    if asked.tuned_run == asked.run_id:
        raise UserError(
            f"run {asked.run_id!r} was given for both models",
            hint="give the run of the base model with --run, that of the tuned one with "
            "--tuned-run",
        )


def _check_model(asked: TwoModels) -> None:
    if asked.stream is None:
        raise UserError(
            "--tuned-model is for --stream", hint="name the tuned model's run with --tuned-run"
        )
    base = asked.stream.model
    if (base.model, base.revision) == (asked.tuned_model, asked.tuned_revision):
        raise UserError(
            f"model {base.model!r} was given for both models",
            hint="give the base model with --model, the tuned one with --tuned-model",
        )

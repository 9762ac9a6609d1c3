"""The form of a capture: activations of one or more layers of a model over texts."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from mi_crow.bounds import SIZE
from mi_crow.errors import LayerNotFoundError, UserError
from mi_crow.language_model.config import STORAGE_DTYPES
from mi_crow.language_model.outline import Outline, check_layers
from tui.screens.runs.forms import finding
from tui.screens.runs.forms.job_form import JobForm, Reading
from tui.screens.runs.forms.shared import (
    MODEL_HINT,
    TEXTS_HINT,
    context_field,
    device_field,
    job_fields,
    limit_field,
    model_fields,
    name_field,
    seed_field,
    text_fields,
    token_limit_field,
)
from tui.widgets.forms.fields import Candidate, Default, FormField, WrongValueError

if TYPE_CHECKING:
    from mi_crow.jobs.spec import JobSpec


NOT_HERE = "the model is downloaded first"


def outline_at(reading: Reading, prefix: str) -> Outline | None:
    """What the files of the model under `prefix` say."""
    model = reading.get(f"{prefix}model")
    if not model:
        return None
    return finding.outline(
        model, reading.get(f"{prefix}revision"), reading.get(f"{prefix}gguf_file")
    )


def middle_layer(outline: Outline | None) -> Default:
    """Half-way through the model, where features are the most abstract."""
    if outline is None:
        return Default("", "of a model on this machine: halfway through its blocks")
    place = f"halfway through {outline.blocks} blocks"
    return Default(f"resid_post.{outline.blocks // 2}", place)


def is_missing(reading: Reading, prefix: str) -> bool:
    """Whether the model under `prefix` is not on this machine: only the hub may have it."""
    model = reading.get(f"{prefix}model")
    return bool(model) and finding.place(model, reading.get(f"{prefix}revision")) is None


def refuse_model(reading: Reading, prefix: str, layers: str) -> Iterator[WrongValueError]:
    """A model that is not here, where the job could not get it, or no layer of it is named."""
    if is_missing(reading, prefix):
        said = f"model {reading.get(f'{prefix}model')!r} is neither a folder nor in the hub's cache"
        if reading.get(f"{prefix}offline"):
            hint = "name one that is, or allow the network"
            yield WrongValueError(f"{prefix}model", said, hint=hint)
        elif not reading.typed(layers):
            hint = "check the name, or name a layer: the job then downloads the model"
            yield WrongValueError(f"{prefix}model", said, hint=hint)


def refuse_layers(reading: Reading, outline: Outline | None, field: str) -> Iterator[UserError]:
    """A layer that the model does not have."""
    try:
        check_layers(reading.get(field) or (), outline)
    except LayerNotFoundError as error:
        yield WrongValueError(field, str(error), hint=error.hint)


class CaptureForm(JobForm):
    kind = "capture"
    title = "Capture activations"
    follows = {"layers": ("model.model",)}

    def make_fields(self) -> tuple[FormField, ...]:
        ask = self.ask
        of_texts, of_parts = replace(ask, section="Texts"), replace(ask, section="Batches")
        of_model = replace(ask, section="Model")
        split = "over the processes (tensor parallel); otherwise they share the documents"
        layers = "resid_post.N or a module's name; a comma between several"
        stored = "int8 is half of bf16, with one scale a token"
        batch, suits = "documents at once; halved when memory runs out", "32, or more on CUDA"
        part = "written at a time; a capture that is stopped keeps its whole parts"
        return (
            ask("model.model", "model", MODEL_HINT, required=True),
            ask("layers", "layers", layers, required=True),
            ask("dataset.source", "texts", TEXTS_HINT, required=True),
            limit_field(ask),
            context_field(ask),
            ask("dtype", "stored as", stored, choices=STORAGE_DTYPES),
            name_field(ask, "run"),
            device_field(ask, self.at.device, "model.device"),
            token_limit_field(of_texts),
            *text_fields(of_texts),
            *model_fields(of_model),
            of_model("tensor_parallel", "split the model", split),
            of_parts("batch_size", "batch", batch, SIZE, suits),
            of_parts("shard_size", "documents a part", part, SIZE),
            seed_field(of_parts),
            *job_fields(ranked=True),
        )

    def find_defaults(self, reading: Reading) -> None:
        run = self.at.run(self.at.run_id) or (self.at.runs[-1] if self.at.runs else None)
        sample = Default("sample", "comes with mi-crow")
        reading.defaults |= {"model.model": sample, "dataset.source": sample}
        if run is not None:
            of = Default(run.manifest.model_id, f"as run {run.run_id}")
            reading.defaults["model.model"] = of
            source = run.manifest.dataset.get("source")
            if isinstance(source, str) and source:
                reading.defaults["dataset.source"] = Default(source, of.source)
        outline = outline_at(reading, "model.")
        reading.defaults["layers"] = middle_layer(outline)
        if outline is not None and outline.context is not None and outline.context < 128:
            reading.defaults["context_length"] = Default(
                str(outline.context), "all that the model can see"
            )

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        return {
            "model.model": finding.models(self.at, reading.texts["model.model"]),
            "layers": finding.layers_of(outline_at(reading, "model.")),
            "dataset.source": finding.texts(self.at, reading.texts["dataset.source"]),
        }

    def refuse(self, reading: Reading) -> Iterator[UserError]:
        yield from refuse_model(reading, "model.", "layers")
        yield from refuse_layers(reading, outline_at(reading, "model."), "layers")

    def expect(self, spec: "JobSpec") -> tuple[str, ...]:
        from mi_crow.jobs.spec import config_from_json
        from tui.screens.runs.forms.expected.estimates import expect_capture

        config = config_from_json(self.config, spec.params)
        found = finding.outline(config.model.model, config.model.revision, config.model.gguf_file)
        lines = expect_capture(self.at, config, found)
        here = finding.place(config.model.model, config.model.revision) is not None
        return lines if here else (*lines, NOT_HERE)

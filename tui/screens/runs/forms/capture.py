"""The form of a capture: activations of one or more layers of a model over texts."""

from dataclasses import replace
from typing import TYPE_CHECKING

from mi_crow.bounds import SIZE
from mi_crow.errors import LayerNotFoundError
from mi_crow.language_model.config import STORAGE_DTYPES, ModelSpec
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
        return Default("", "name one: this model is not on this machine yet")
    place = f"halfway through {outline.blocks} blocks"
    return Default(f"resid_post.{outline.blocks // 2}", place)


def refuse_model(reading: Reading, prefix: str) -> None:
    """Raises UserError for a model that is not there: without it there are no layers to name."""
    from mi_crow.jobs.checks import check_model

    model = reading.get(f"{prefix}model")
    if model:
        check_model(ModelSpec(model, gguf_file=reading.get(f"{prefix}gguf_file")))


def refuse_layers(names: tuple[str, ...], outline: Outline | None, field: str) -> None:
    """Raises WrongValueError for a layer that the model does not have."""
    try:
        check_layers(names, outline)
    except LayerNotFoundError as error:
        raise WrongValueError(field, str(error), hint=error.hint) from error


class CaptureForm(JobForm):
    kind = "capture"
    title = "Capture activations"

    def make_fields(self) -> tuple[FormField, ...]:
        ask = self.ask
        of_texts, of_parts = replace(ask, section="Texts"), replace(ask, section="Batches")
        layers = "resid_post.N or a module's name; a comma between several"
        stored = "int8 is half of bf16, with one scale a token"
        batch, suits = "documents at once; halved when memory runs out", "32, or more on CUDA"
        part = "a part is what a stopped capture does not lose"
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
            *model_fields(replace(ask, section="Model")),
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

    def refuse(self, reading: Reading) -> None:
        refuse_model(reading, "model.")
        refuse_layers(reading.get("layers") or (), outline_at(reading, "model."), "layers")

    def expect(self, spec: "JobSpec") -> tuple[str, ...]:
        from mi_crow.jobs.spec import config_from_json
        from tui.screens.runs.forms.estimates import expect_capture

        config = config_from_json(self.config, spec.params)
        found = finding.outline(config.model.model, config.model.revision, config.model.gguf_file)
        return expect_capture(self.at, config, found)

"""The forms of what reads an SAE: its feature index, and its evaluation."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mi_crow.bounds import COUNT, SIZE
from mi_crow.errors import UserError
from mi_crow.mechanistic.features.config import MAPS
from mi_crow.mechanistic.sae.config import PRECISIONS
from mi_crow.store.workspace import SaeSummary
from tui.screens.runs.forms import finding
from tui.screens.runs.forms.job_form import JobForm, Reading
from tui.screens.runs.forms.parameters import FieldsOf
from tui.screens.runs.forms.shared import (
    MODEL_HINT,
    TEXTS_HINT,
    context_field,
    device_field,
    job_fields,
    limit_field,
    model_fields,
    seed_field,
    text_fields,
    token_limit_field,
)
from tui.widgets.forms.fields import Candidate, Default, FormField, Values, WrongValueError

if TYPE_CHECKING:
    from mi_crow.jobs.spec import JobSpec

_PREFIX = "live."
_ROUNDED = "bf16 on CUDA for topk, else fp32"


def which_sae(at: finding.Situation, sae_id: str) -> str:
    """Why a form begins with this SAE."""
    return "under the cursor, or open" if sae_id == at.sae_id else "the newest"


class SaeForm(JobForm):
    """What the forms of the two kinds share: an SAE and the run to read."""

    of_sae = "the id of an SAE of this workspace"

    def sae_fields(self) -> tuple[FormField, ...]:
        trained = "the one that the SAE was trained on"
        return (
            self.ask("sae_id", "SAE", self.of_sae, required=True),
            self.ask("run_id", "run", "the activations to read", why=trained),
        )

    def sae_of(self, reading: Reading) -> SaeSummary | None:
        """The SAE of the form: the one named, else the chosen one, else the newest."""
        if reading.typed("sae_id"):
            return self.at.sae(reading.texts["sae_id"].strip())
        newest = self.at.saes[-1] if self.at.saes else None
        return self.at.sae(self.at.sae_id) or newest

    def find_defaults(self, reading: Reading) -> None:
        sae = self.sae_of(reading)
        if sae is None:
            return
        reading.defaults["sae_id"] = Default(sae.sae_id, which_sae(self.at, sae.sae_id))
        trained = f"{sae.run_id}  ·  the SAE was trained on it" if sae.run_id else "name one"
        reading.defaults["run_id"] = Default("", trained)

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        sae = self.sae_of(reading)
        models = [] if sae is None else [sae.model_id, *(model for _, model, _ in sae.models)]
        runs = [run for run in self.at.runs if sae is None or run.manifest.model_id in models]
        found = {
            "sae_id": finding.sae_names(self.at.saes),
            "run_id": finding.run_names(runs),
        }
        return found | ({"tuned_run": found["run_id"]} if "tuned_run" in reading.fields else {})


class TextsForm(SaeForm):
    """The form of what reads texts through the model where no run is named."""

    doing = ""  # what that is without a run
    models = ("live.model.model",)
    derived = ("live.model.device", "live.batch_size", "live.shard_size")

    def live_fields(self) -> tuple[FormField, ...]:
        section = "Without a run: the model reads texts"
        return _live_fields(replace(self.ask, section=section, prefix=_PREFIX))

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        return super().candidates(reading) | {
            "live.model.model": finding.models(self.at, reading.texts["live.model.model"]),
            "live.dataset.source": finding.texts(self.at, reading.texts["live.dataset.source"]),
        }

    def refuse(self, reading: Reading) -> Iterator[UserError]:
        live, model = reading.typed("live.dataset.source"), reading.typed("live.model.model")
        for name, field in reading.fields.items():
            if not name.startswith(_PREFIX) or not reading.typed(name):
                continue
            if not live:
                said = f"{field.label} is for {self.doing} without a run"
                yield WrongValueError(name, said, hint="name its texts first, or empty it")
            elif name.startswith("live.model.") and not model:
                said = f"{field.label} is for another model than the SAE's"
                yield WrongValueError(name, said, hint="name the model first, or empty it")
        if live and reading.typed("run_id"):
            said = "a run and texts were both given"
            yield WrongValueError("run_id", said, hint="empty one of them")

    def parameters(self, values: Values) -> dict[str, Any]:
        found = super().parameters(values)
        live, model = found["live.dataset.source"], found["live.model.model"]
        if not live:
            return {name: one for name, one in found.items() if not name.startswith(_PREFIX)}
        if not model:
            return {name: one for name, one in found.items() if not name.startswith("live.model.")}
        return found | {"live.model.device": values["device"]}


class IndexForm(TextsForm):
    kind = "index"
    title = "Build the feature index"
    doing = "an index"

    def make_fields(self) -> tuple[FormField, ...]:
        ask, examples = self.ask, "top activations kept of each feature"
        return (
            *self.sae_fields(),
            ask("top_examples", "examples", examples, SIZE),
            device_field(ask, self.at.device),
            *_more_fields(replace(ask, section="More of the index")),
            *self.live_fields(),
            *job_fields(ranked=True),
        )

    def expect(self, spec: "JobSpec") -> tuple[str, ...]:
        from tui.screens.runs.forms.expected.estimates import expect_index

        return expect_index(self.at, spec.params)


class ExplainForm(SaeForm):
    kind = "explain"
    title = "Propose names for the features"

    def make_fields(self) -> tuple[FormField, ...]:
        return (self.sae_fields()[0], seed_field(self.ask), *job_fields(ranked=True))

    def find_defaults(self, reading: Reading) -> None:
        super().find_defaults(reading)
        reading.defaults.pop("run_id", None)

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        with_index = [sae for sae in self.at.saes if sae.has_index]
        return {"sae_id": finding.sae_names(with_index)}


class EvaluateForm(TextsForm):
    kind = "evaluate"
    title = "Evaluate an SAE"
    doing = "an evaluation"
    models = ("model", "live.model.model")

    def make_fields(self) -> tuple[FormField, ...]:
        ask, more = self.ask, replace(self.ask, section="More")
        captured = "the one that the run was captured from"
        rounded = "of the encoder's product; bf16 is for topk"
        batch = "documents at once; halved when memory runs out"
        return (
            *self.sae_fields(),
            ask("documents", "documents", "held-out documents for the loss", COUNT),
            device_field(ask, self.at.device),
            _tuned_field(more),
            more("model", "model", MODEL_HINT, why=captured),
            more("batch_size", "batch", batch, SIZE, "8, on CUDA 64"),
            more("precision", "precision", rounded, choices=PRECISIONS, why=_ROUNDED),
            seed_field(more),
            *self.live_fields(),
            *job_fields(ranked=True),
        )

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        models = finding.models(self.at, reading.texts["model"])
        return super().candidates(reading) | {"model": models}

    def refuse(self, reading: Reading) -> Iterator[UserError]:
        yield from super().refuse(reading)
        if reading.typed("live.dataset.source") and reading.typed("model"):
            said = "model is for a run: texts have their own"
            yield WrongValueError("model", said, hint="empty it")

    def expect(self, spec: "JobSpec") -> tuple[str, ...]:
        from tui.screens.runs.forms.expected.estimates import expect_evaluation

        return expect_evaluation(self.at, spec.params)


def _tuned_field(ask: FieldsOf) -> FormField:
    hint = "of a crosscoder of two models: the run of the tuned one, over the same texts"
    return ask("tuned_run", "tuned run", hint, why="the one that it was trained on")


def _more_fields(ask: FieldsOf) -> tuple[FormField, ...]:
    rounded = "of the encoder's product; bf16 is for topk"
    fewer, suits = "tokens at once; halved when memory runs out", "what suits the device"
    return (
        _tuned_field(ask),
        ask("append", "append", "add the run or the texts to the index that there is"),
        ask("window", "window", "tokens on either side of an example's peak", SIZE),
        ask("map", "map", "how the features are laid out", choices=MAPS),
        ask("batch_size", "batch", fewer, SIZE, suits),
        ask("precision", "precision", rounded, choices=PRECISIONS, why=_ROUNDED),
        seed_field(ask),
    )


def _live_fields(ask: FieldsOf) -> tuple[FormField, ...]:
    return (
        ask("dataset.source", "texts", TEXTS_HINT, why="none: a run is read", empty=None),
        limit_field(ask),
        token_limit_field(ask),
        context_field(ask),
        *text_fields(ask),
        ask("model.model", "model", MODEL_HINT, why="the SAE's own", empty=None),
        *model_fields(ask),
    )

"""The forms of what reads an SAE: its feature index, and its evaluation."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mi_crow.bounds import COUNT, SIZE
from mi_crow.mechanistic.features.config import MAPS
from mi_crow.store.workspace import SaeSummary
from tui.screens.runs.forms import finding
from tui.screens.runs.forms.capture import dataset_field, model_field
from tui.screens.runs.forms.job_form import JobForm, Reading
from tui.screens.runs.forms.shared import (
    NO,
    USUAL,
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

_MORE, _LIVE = "More of the index", "Without a run: the model reads texts"
_PREFIX = "live."


class SaeForm(JobForm):
    """What the forms of the two kinds share: an SAE and the run to read."""

    def sae_fields(self) -> tuple[FormField, ...]:
        return (
            FormField("sae_id", "SAE", required=True, flag="--sae"),
            FormField(
                "run_id",
                "run",
                hint="the activations to read",
                empty=None,
                default=Default("", "the one that the SAE was trained on"),
                flag="--run",
            ),
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
        chosen = sae.sae_id == self.at.sae_id
        reading.defaults["sae_id"] = Default(sae.sae_id, "chosen" if chosen else "the newest")
        trained = f"{sae.run_id}: the SAE was trained on it" if sae.run_id else "name one"
        reading.defaults["run_id"] = Default("", trained)

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        sae = self.sae_of(reading)
        runs = [run for run in self.at.runs if sae is None or run.manifest.model_id == sae.model_id]
        return {
            "sae_id": finding.sae_names(self.at.saes),
            "run_id": finding.run_names(runs),
        }


class IndexForm(SaeForm):
    kind = "index"
    title = "Build the feature index"
    derived = ("live.model.device", "live.batch_size", "live.shard_size")

    def make_fields(self) -> tuple[FormField, ...]:
        examples = FormField(
            "top_examples",
            "examples",
            hint="top activations kept of each feature",
            bounds=SIZE,
            default=Default("20", USUAL),
            flag="--top-examples",
        )
        return (
            *self.sae_fields(),
            examples,
            device_field(self.at.device),
            *_more_fields(),
            *_live_fields(),
            *job_fields(ranked=False),
        )

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        return super().candidates(reading) | {
            "live.model.model": finding.models(self.at, reading.texts["live.model.model"]),
            "live.dataset.source": finding.texts(self.at, reading.texts["live.dataset.source"]),
        }

    def refuse(self, reading: Reading) -> None:
        live, model = reading.typed("live.dataset.source"), reading.typed("live.model.model")
        for name, field in reading.fields.items():
            if not name.startswith(_PREFIX) or not reading.typed(name):
                continue
            if not live:
                said = f"{field.label} is for an index without a run"
                raise WrongValueError(name, said, hint="name its texts first, or empty it")
            if name.startswith("live.model.") and not model:
                said = f"{field.label} is for another model than the SAE's"
                raise WrongValueError(name, said, hint="name the model first, or empty it")
        if live and reading.typed("run_id"):
            said = "a run and texts were both given"
            raise WrongValueError("run_id", said, hint="empty one of them")

    def parameters(self, values: Values) -> dict[str, Any]:
        found = super().parameters(values)
        live, model = found["live.dataset.source"], found["live.model.model"]
        if not live:
            return {name: one for name, one in found.items() if not name.startswith(_PREFIX)}
        if not model:
            return {name: one for name, one in found.items() if not name.startswith("live.model.")}
        return found | {"live.model.device": values["device"]}

    def expect(self, spec: "JobSpec") -> tuple[str, ...]:
        from tui.screens.runs.forms.estimates import expect_index

        return expect_index(self.at, spec.params)


class ExplainForm(SaeForm):
    kind = "explain"
    title = "Propose names for the features"

    def make_fields(self) -> tuple[FormField, ...]:
        return (self.sae_fields()[0], seed_field("seed", ""), *job_fields(ranked=False))

    def find_defaults(self, reading: Reading) -> None:
        super().find_defaults(reading)
        reading.defaults.pop("run_id", None)

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        with_index = [sae for sae in self.at.saes if sae.has_index]
        return {"sae_id": finding.sae_names(with_index)}


class EvaluateForm(SaeForm):
    kind = "evaluate"
    title = "Evaluate an SAE"

    def make_fields(self) -> tuple[FormField, ...]:
        section = "More"
        return (
            *self.sae_fields(),
            FormField(
                "documents",
                "documents",
                hint="held-out documents for the loss",
                bounds=COUNT,
                default=Default("128", USUAL),
                flag="--documents",
            ),
            device_field(self.at.device),
            FormField(
                "model",
                "model",
                hint="hub id, folder, .gguf file, or sample",
                empty=None,
                default=Default("", "the one that the run was captured from"),
                section=section,
                flag="--model",
            ),
            FormField(
                "batch_size",
                "batch",
                hint="documents at once; fewer need less memory",
                bounds=SIZE,
                default=Default("8", USUAL),
                section=section,
                flag="--batch-size",
            ),
            seed_field("seed", section),
            *job_fields(ranked=False),
        )

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        models = finding.models(self.at, reading.texts["model"])
        return super().candidates(reading) | {"model": models}

    def expect(self, spec: "JobSpec") -> tuple[str, ...]:
        from tui.screens.runs.forms.estimates import expect_evaluation

        return expect_evaluation(self.at, spec.params)


def _more_fields() -> tuple[FormField, ...]:
    return (
        FormField(
            "append",
            "append",
            hint="add the run or the texts to the index that there is",
            switch=True,
            default=NO,
            section=_MORE,
            flag="--append",
        ),
        FormField(
            "window",
            "window",
            hint="tokens on either side of an example's peak",
            bounds=SIZE,
            default=Default("32", USUAL),
            section=_MORE,
            flag="--window",
        ),
        FormField(
            "map",
            "map",
            hint="how the features are laid out",
            choices=MAPS,
            closed=True,
            default=Default("pca", USUAL),
            section=_MORE,
            flag="--map",
        ),
        FormField(
            "batch_size",
            "batch",
            hint="tokens at once; fewer need less memory",
            bounds=SIZE,
            empty=None,
            default=Default("", "what suits the device"),
            section=_MORE,
            flag="--batch-size",
        ),
        seed_field("seed", _MORE),
    )


def _live_fields() -> tuple[FormField, ...]:
    none = Default("", "none: a run is read")
    own = Default("", "the SAE's own")
    fields = (
        replace(dataset_field("live.dataset.source"), required=False, empty=None, default=none),
        limit_field("live."),
        token_limit_field("live.", ""),
        context_field("live."),
        *text_fields("live.", ""),
        replace(model_field("live.model.model"), required=False, empty=None, default=own),
        *model_fields("live.model.", ""),
    )
    return tuple(replace(one, section=_LIVE) for one in fields)

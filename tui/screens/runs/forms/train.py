"""The form of a training: SAEs on layers of a run, or on a model while it reads texts."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mi_crow.datasets.splits import TRAINED_SHARE
from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.config import (
    CLI_MIN_STEPS,
    CLI_PASSES,
    CLI_STREAM_STEPS,
    FINETUNE_STEPS,
    NONE,
    SAE,
    TRANSCODERS,
    default_lr,
    default_steps,
)
from mi_crow.store.ids import validate_id
from mi_crow.store.workspace import RunSummary
from tui.screens.runs.forms import finding
from tui.screens.runs.forms.capture import (
    middle_layer,
    outline_at,
    refuse_layers,
    refuse_model,
)
from tui.screens.runs.forms.job_form import JobForm, Reading
from tui.screens.runs.forms.parameters import USUAL
from tui.screens.runs.forms.shared import first_layer
from tui.screens.runs.forms.train_fields import train_fields
from tui.text import count
from tui.widgets.forms.fields import Candidate, Default, FormField, Values, WrongValueError

if TYPE_CHECKING:
    from mi_crow.jobs.spec import JobSpec

_PREFIX = "stream."
_OF_ANOTHER = ("arch", "expansion", "n_latents", "skip")  # decided by the SAE that is continued
_LENGTHS = ("training.steps", "training.epochs", "training.tokens")


class TrainForm(JobForm):
    kind = "train"
    title = "Train an SAE"
    models = ("stream.model.model", "tuned_model")
    follows = {"layer": ("run_id", "stream.model.model")}
    derived = (
        "sweep_k",
        "sweep_expansion",
        "layers",
        "stream.layers",
        "stream.seed",
        "stream.model.device",
    )

    def make_fields(self) -> tuple[FormField, ...]:
        return train_fields(self.ask, self.at.device)

    # What follows from the texts.

    def find_defaults(self, reading: Reading) -> None:
        run = self._run(reading)
        if reading.get("stream"):
            reading.defaults["run_id"] = Default("none", "the activations come from the model")
            sample = Default("sample", "comes with mi-crow")
            reading.defaults |= {"stream.model.model": sample, "stream.dataset.source": sample}
            reading.defaults["layer"] = middle_layer(outline_at(reading, "stream.model."))
            steps = Default(str(CLI_STREAM_STEPS), USUAL)
        else:
            steps = self._run_defaults(reading, run)
        if reading.get("family") not in (None, SAE):
            reading.defaults["arch"] = Default("batchtopk", "for an SAE of several layers")
        if reading.get("finetune") not in (None, NONE):
            steps = Default(str(FINETUNE_STEPS), "a short finetune")
        if not any(reading.typed(name) for name in _LENGTHS):
            reading.defaults["training.steps"] = steps
        if reading.typed("n_latents"):
            reading.defaults["expansion"] = Default("", "as many as you say")
        if reading.typed("init"):
            theirs = Default("", "as the SAE that is continued")
            reading.defaults |= dict.fromkeys(("arch", "expansion", "n_latents"), theirs)
        self._rate_default(reading, run)

    def _run_defaults(self, reading: Reading, run: RunSummary | None) -> Default:
        if not reading.typed("run_id") and run is not None:
            here = run.run_id == self.at.run_id
            source = "under the cursor" if here else "the newest"
            reading.defaults["run_id"] = Default(run.run_id, source)
        if run is None:
            none = "none is complete yet" if self.at.runs else "none yet"
            reading.defaults["run_id"] = Default("", none)
            return Default("", f"{CLI_PASSES} passes, at least {CLI_MIN_STEPS} steps")
        if run.manifest.layers:
            reading.defaults["layer"] = first_layer(run)
        batch = reading.get("training.batch_size") or 2048
        steps = default_steps(run.manifest.n_tokens, batch)
        trained = count(run.manifest.n_tokens * TRAINED_SHARE)
        why = f"{CLI_PASSES} passes over {trained} tokens to train on"
        if steps == CLI_MIN_STEPS:
            why = f"the least; {CLI_PASSES} passes would be fewer"
        return Default(str(steps), why)

    def _rate_default(self, reading: Reading, run: RunSummary | None) -> None:
        latents, steps = reading.get("n_latents"), reading.get("training.steps")
        expansions = reading.get("expansion")
        if latents is None and run is not None and run.manifest.layers and expansions:
            latents = int(expansions[0] * run.manifest.layers[0].width)
        rule = "2e-4 / sqrt(latents / 2^14), more for few steps"
        if latents and steps:
            rule = f"{default_lr(latents, steps):.2g}, from latents and steps"
        reading.defaults["training.lr"] = Default("", rule)

    def _run(self, reading: Reading) -> RunSummary | None:
        """The run of the form: the one named, else under the cursor, else the newest whole one."""
        if reading.typed("run_id"):
            return self.at.run(reading.texts["run_id"].strip())
        whole = [run for run in self.at.runs if run.manifest.complete]
        chosen = self.at.run(self.at.run_id)
        return chosen or (whole[-1] if whole else None)

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        stream = reading.get("stream")
        run = self._run(reading)
        layers = (
            finding.layers_of(outline_at(reading, "stream.model."))
            if stream
            else finding.stored_layers(run)
        )
        return {
            "run_id": finding.run_names(self.at.runs),
            "layer": layers,
            "target_layer": finding.stored_layers(run),
            "tuned_run": finding.run_names(self.at.runs),
            "init": finding.sae_names(self.at.saes),
            "stream.model.model": finding.models(self.at, reading.texts["stream.model.model"]),
            "tuned_model": finding.models(self.at, reading.texts["tuned_model"]),
            "stream.dataset.source": finding.texts(self.at, reading.texts["stream.dataset.source"]),
        }

    def refuse(self, reading: Reading) -> Iterator[UserError]:
        stream = reading.get("stream")
        for name, field in reading.fields.items():
            if name.startswith(_PREFIX) and reading.typed(name) and not stream:
                said = f"{field.label} is for a training without a run"
                yield WrongValueError(name, said, hint="say yes to that first, or empty it")
        if stream:
            if reading.typed("run_id"):
                said = "a training without a run has none"
                yield WrongValueError("run_id", said, hint="empty it")
            yield from refuse_model(reading, "stream.model.", "layer")
            yield from refuse_layers(reading, outline_at(reading, "stream.model."), "layer")
        else:
            yield from self._refuse_stored(reading)
        if reading.typed("init"):
            for name in _OF_ANOTHER:
                if reading.typed(name):
                    label = reading.fields[name].label
                    said = f"{label} is decided by the SAE that is continued"
                    yield WrongValueError(name, said, hint="empty it")
        elif reading.get("finetune") not in (None, NONE):
            said = "a finetune is of an SAE that there is already"
            yield WrongValueError("init", said, hint="name it")
        given = [name for name in _LENGTHS if reading.typed(name)]
        if len(given) > 1:
            labels = " and ".join(reading.fields[name].label for name in given)
            yield WrongValueError(given[-1], f"{labels} were both given", hint="give one of them")
        if reading.typed("n_latents") and reading.typed("expansion"):
            said = "latents and expansion were both given"
            yield WrongValueError("n_latents", said, hint="give one of them")
        if reading.get("arch") in TRANSCODERS and not (
            reading.typed("target_layer") or reading.typed("init")
        ):
            said = "a transcoder needs the layer that it should predict"
            yield WrongValueError("target_layer", said, hint="name it")

    def _refuse_stored(self, reading: Reading) -> Iterator[UserError]:
        """Layers that the run does not have."""
        from mi_crow.mechanistic.sae.stored_layers import stored_layer

        run = self._run(reading)
        if run is None:
            return
        for name in ("layer", "target_layer"):
            value = reading.get(name) or ()
            for layer in (value,) if isinstance(value, str) else value:
                try:
                    stored_layer(run.manifest, layer)
                except UserError as error:
                    yield WrongValueError(name, str(error), hint=error.hint)

    # From values to parameters and back.

    def each(self, values: Values) -> list[Values]:
        layers = values["layer"]
        if values["family"] != SAE:
            return [values]
        if len(layers) < 2:
            return [{**values, "layer": layers[0] if layers else ""}]
        name = values["name"]
        return [
            {
                **values,
                "layer": layer,
                "name": validate_id(f"{name}-{layer}", "SAE") if name else None,
            }
            for layer in layers
        ]

    def parameters(self, values: Values) -> dict[str, Any]:
        found = super().parameters(values)
        if values["family"] != SAE:
            found["layers"] = values["layer"]
            found["layer"] = values["layer"][0] if values["layer"] else ""
        for name, sweep in (("k", "sweep_k"), ("expansion", "sweep_expansion")):
            several = tuple(dict.fromkeys(found.pop(name)))
            if several:
                found[name] = several[0]
            found[sweep] = several if len(several) > 1 else ()
        if not found["arch"]:  # of the SAE that is continued
            del found["arch"]
        found["training.outlier_factor"] = values["training.outlier_factor"] or None
        stream = found.pop("stream")
        if stream:
            found["run_id"] = ""
            found |= {
                "stream.layers": found.get("layers") or (values["layer"],),
                "stream.seed": values["training.seed"],
                "stream.model.device": values["device"],
            }
        else:
            found = {name: one for name, one in found.items() if not name.startswith(_PREFIX)}
        return found

    def values_of(self, spec: "JobSpec") -> dict[str, Any]:
        values = super().values_of(spec)
        for name, sweep in (("k", "sweep_k"), ("expansion", "sweep_expansion")):
            values[name] = values.get(sweep) or values.get(name)
        values["layer"] = values.get("layers") or values["layer"]
        if "training.outlier_factor" in values:
            values["training.outlier_factor"] = values["training.outlier_factor"] or 0
        if values.get("n_latents") is not None:
            values["expansion"] = None
        values["stream"] = any(name.startswith(_PREFIX) for name in values)
        return values

    def command(self, values: Values) -> str:
        if values["stream"]:
            values = {**values, "run_id": ""}
        return super().command(values)

    def expect(self, spec: "JobSpec") -> tuple[str, ...]:
        from mi_crow.jobs.spec import config_from_json
        from tui.screens.runs.forms.expected.estimates import expect_training

        config = config_from_json(self.config, spec.params)
        run = self.at.run(config.run_id)
        found = None
        if config.stream is not None:
            found = finding.outline(config.stream.model.model, config.stream.model.revision)
        elif config.finetune != NONE and run is not None:
            found = finding.outline(run.manifest.model_id, run.manifest.revision)
        return expect_training(self.at, config, run, found)

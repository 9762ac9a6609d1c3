"""The form of a vector: which texts it tells apart, at which layers, and how."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mi_crow.bounds import COUNT
from mi_crow.mechanistic.vectors.config import METHODS, POOLS
from tui.screens.runs.forms import finding
from tui.screens.runs.forms.command import arguments, command_line
from tui.screens.runs.forms.job_form import JobForm, Reading, shown_root
from tui.screens.runs.forms.parameters import BETWEEN, parts_of
from tui.screens.runs.forms.shared import device_field, first_layer, job_fields, seed_field
from tui.widgets.forms.fields import Candidate, Default, FormField, Values

if TYPE_CHECKING:
    from mi_crow.jobs.spec import JobSpec


class VectorForm(JobForm):
    kind = "vector"
    title = "Make a vector"
    models = ("model",)
    derived = ("texts_for", "against", "replace")

    def make_fields(self) -> tuple[FormField, ...]:
        ask, more = self.ask, replace(self.ask, section="More of the vector")
        name = "the id of the new vector: letters, digits, . _ -"
        what = "label:NAME, documents:3,7-12, a file of texts, or a text; several with | between"
        how = "difference of means, principal component, logistic probe, or trained ReFT-r1"
        missing = "no texts given that the vector is for: a label, documents, a file, or a text"
        model, pool = (
            "hub id, folder, or sample",
            "of the tokens of a text: their mean, or the last one",
        )
        return (
            ask("name", "name", name, required=True, flag=""),
            ask("for", "for", what, required=True, missing=missing, flag=""),
            ask("opposite", "against", what, why="the run's other documents", flag=""),
            ask("layers", "layers", "hook points, e.g. resid_post.2", required=True),
            ask("method", "method", how, choices=METHODS),
            ask("run_id", "run", "whose labels, documents and model are meant"),
            ask("model", "model", model, why="that of the run"),
            device_field(ask, self.at.device),
            more("pool", "pool", pool, choices=POOLS),
            more("limit", "texts", "at most, of each side", COUNT),
            more("steps", "steps", "of the training of reft-r1", COUNT),
            seed_field(more),
            *job_fields(ranked=False),
        )

    def find_defaults(self, reading: Reading) -> None:
        run = self.at.run(self.at.run_id) or (self.at.runs[-1] if self.at.runs else None)
        if run is not None and not reading.typed("model"):
            source = "under the cursor" if run.run_id == self.at.run_id else "the newest"
            reading.defaults["run_id"] = Default(run.run_id, source)
        named = self.at.run(reading.get("run_id"))
        if named is not None and named.manifest.layers:
            reading.defaults["layers"] = first_layer(named)

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        run = self.at.run(reading.get("run_id"))
        model = reading.get("model") or (run.manifest.model_id if run is not None else None)
        outline = finding.outline(model) if model else None
        labels = tuple(Candidate(f"label:{label}") for label in self._labels(reading))
        return {
            "for": labels,
            "opposite": labels,
            "layers": finding.stored_layers(run) + finding.layers_of(outline),
            "run_id": finding.run_names(self.at.runs),
            "model": finding.models(self.at, reading.texts["model"]),
        }

    def _labels(self, reading: Reading) -> tuple[str, ...]:
        from mi_crow.errors import MiCrowError
        from mi_crow.store.runs.glance import glance_at

        run = self.at.run(reading.get("run_id"))
        if run is None:
            return ()
        try:
            return tuple(glance_at(run.path, run.manifest, 0).labels)
        except (MiCrowError, OSError):
            return ()  # the job says what is wrong with the run

    def parameters(self, values: Values) -> dict[str, Any]:
        found = super().parameters(values)
        found["texts_for"] = parts_of(found.pop("for"))
        found["against"] = parts_of(found.pop("opposite"))
        return found

    def values_of(self, spec: "JobSpec") -> dict[str, Any]:
        sides = {"for": "texts_for", "opposite": "against"}
        texts = {name: BETWEEN.join(spec.params.get(of, ())) for name, of in sides.items()}
        return super().values_of(spec) | texts

    def command(self, values: Values) -> str:
        if self._kept:
            return ""
        words = ["vector", "make", str(values["name"])]
        for flag, name in (("--for", "for"), ("--against", "opposite")):
            for part in parts_of(values[name]):
                words += [flag, part]
        plain = [one for one in self.fields if one.name != "layers"]
        for layer in values["layers"]:
            words += ["--layer", layer]
        words += arguments(self.kind, self.config, plain, values, self.at.device)[1:]
        return command_line(words, shown_root(self.at.workspace))

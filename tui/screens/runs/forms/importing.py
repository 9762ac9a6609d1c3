"""The form of an import: finds format, hook point and size by itself, here or on the hub."""

import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from mi_crow.causes import sentence_of
from mi_crow.errors import MiCrowError, NotFoundError, UserError
from mi_crow.mechanistic.sae.formats.config import path_for_a_job
from mi_crow.mechanistic.sae.formats.files import LocatedFiles, is_hub_id
from mi_crow.mechanistic.sae.formats.glance import Glance, cached_repositories, files_at, glance
from mi_crow.mechanistic.sae.formats.marks import TORCH_ENDINGS
from mi_crow.store.ids import validate_id
from tui.screens.runs.forms import finding
from tui.screens.runs.forms.command import arguments, command_line
from tui.screens.runs.forms.finding import Situation
from tui.screens.runs.forms.import_fields import AS_SAID, CHECK, import_fields
from tui.screens.runs.forms.job_form import JobForm, Reading, shown_root
from tui.screens.runs.forms.parameters import nested
from tui.text import size
from tui.widgets.forms.fields import (
    Advice,
    Candidate,
    Default,
    FormField,
    Values,
    WrongValueError,
)
from tui.widgets.forms.popup import FormPopup

if TYPE_CHECKING:
    from mi_crow.jobs.spec import JobSpec

HUB_REST_S = 0.6  # how long nothing is typed before the hub is asked for the repository
_WEIGHTS = (".safetensors", ".npz", *TORCH_ENDINGS)  # files that may be SAEs

HubPlace = tuple[str, str | None]
"""A path on the hub, and the revision that was asked for."""


class ImportForm(JobForm):
    kind = "import"
    title = "Import an SAE"
    derived = ("model.device", "model.offline")

    def __init__(self, at: Situation, spec: "JobSpec | None" = None) -> None:
        super().__init__(at, spec)
        self._answers: dict[HubPlace, LocatedFiles | MiCrowError] = {}  # of the hub
        self._cached: tuple[Candidate, ...] | None = None
        self.wanted: HubPlace | None = None  # what the hub should be asked for

    def make_fields(self) -> tuple[FormField, ...]:
        return import_fields(self.ask, self.at.device)

    def popup(self, note: str = "") -> "ImportPopup":
        return ImportPopup(self, note)

    # What there is at the source.

    def ask_hub(self, wanted: HubPlace) -> None:
        """Asks the hub what it has there. Blocks for some seconds without a network."""
        try:
            self._answers[wanted] = files_at(*wanted, offline=False)
        except MiCrowError as error:
            self._answers[wanted] = error

    def _look(self, reading: Reading) -> Glance | None:
        """What is at the source; None while only the hub knows, or nothing is named. Raises what
        the look raises."""
        path, layer = reading.get("path"), reading.get("layer")
        place, offline = (path, reading.get("revision")), reading.get("offline")
        if not path:
            return None
        answer = self._answers.get(place)
        if isinstance(answer, MiCrowError):
            raise answer
        if answer is not None:
            return glance(answer, layer)
        on_hub = is_hub_id(path) and not offline
        self.wanted = place if on_hub else None
        try:
            return glance(files_at(*place, offline=True), layer)
        except NotFoundError:
            if not on_hub:
                raise
            return None

    # What the form says.

    def find_defaults(self, reading: Reading) -> None:
        self.wanted = None
        try:
            found = self._look(reading)
        except (MiCrowError, OSError):
            return  # `refuse` says it
        if found is None or not found.name:
            return
        name = self._name(found)
        reading.defaults |= {
            "name": Default(name, "after the source" if name else "made of date and time"),
            "layer": Default("", f"{AS_SAID}: {found.point}" if found.point else AS_SAID),
            "model.model": Default("", f"{AS_SAID}: {found.model}" if found.model else AS_SAID),
        }

    def _name(self, found: Glance) -> str:
        """What the SAE would be called, numbered where that is taken; empty for no valid name."""
        try:
            return self._free_name({"name": validate_id(found.name, "SAE")})["name"]
        except UserError:
            return ""

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        if self._cached is None:
            self._cached = tuple(
                Candidate(name, f"{number} SAE{'s' if number > 1 else ''} in the hub's cache")
                for name, number in cached_repositories()
            )
        typed = reading.texts["path"].strip()
        return {
            "path": self._cached + finding.files(typed, _WEIGHTS),
            "layer": self._layers(reading),
            "model.model": finding.models(self.at, reading.texts["model.model"]),
            "check.dataset.source": finding.texts(self.at, reading.texts["check.dataset.source"]),
        }

    def _layers(self, reading: Reading) -> tuple[Candidate, ...]:
        """The SAEs to choose from, then the hook points of the model."""
        labels: tuple[str, ...] = ()
        try:
            found = self._look(reading)
            labels = found.labels if found is not None and len(found.labels) > 1 else ()
        except (MiCrowError, OSError):
            pass
        model = reading.get("model.model")
        points = finding.layers_of(finding.outline(model) if model else None)
        return tuple(Candidate(label, "an SAE") for label in labels) + points

    def refuse(self, reading: Reading) -> Iterator[UserError]:
        try:
            found = self._look(reading)
        except (MiCrowError, OSError) as error:
            yield WrongValueError("path", sentence_of(error))
            return
        if found is None:
            return
        if not found.name:
            if not found.whole and not found.labels:
                said = "there are too many files there to look through"
                yield WrongValueError("path", said, hint="name the folder of the SAE")
            else:
                said = f"{len(found.labels)} SAEs are there; choose one at hook point"
                yield WrongValueError("layer", said)
        if reading.get("check") and not reading.get("model.model") and not found.model:
            said = "its files do not name the model that it is checked on"
            yield WrongValueError("model.model", said)

    def expect(self, spec: "JobSpec") -> tuple[str, ...]:
        texts = {"path": spec.params["path"], "layer": spec.params.get("layer") or ""}
        texts |= {"revision": spec.params.get("revision") or ""}
        texts |= {"offline": "yes" if spec.params.get("offline") else "no"}
        from tui.screens.runs.forms.expected.estimates import disk

        found = self._look(Reading(self._by_name, texts, {}))
        if found is None:
            return ("asking the hub",)
        model = spec.params.get("model") or {}
        name = model.get("model") or found.model
        checked = "check" in spec.params and name
        absent = checked and finding.place(name, model.get("revision")) is None
        facts = f"{found.format}{f': {found.facts}' if found.facts else ''}"
        got = f"{size(found.download)} to download" if found.download else "nothing to download"
        return (
            facts,
            got,
            disk(self.at, found.bytes),
            f"{size(found.bytes * 3 / 2)} of memory",
            *([f"the check also downloads {name}"] if absent else []),
        )

    # The job that it means.

    def parameters(self, values: Values) -> dict[str, Any]:
        found = {name: one for name, one in values.items() if not name.startswith("check")}
        found["path"] = path_for_a_job(values["path"])
        if values["check"]:
            found |= {name: one for name, one in values.items() if name.startswith("check.")}
        if not values["model.model"]:
            found.pop("model.model")
        else:
            found |= {"model.device": values["device"], "model.offline": values["offline"]}
        return found

    def values_of(self, spec: "JobSpec") -> dict[str, Any]:
        values = super().values_of(spec)
        return values | {"check": any(name.startswith("check.") for name in values)}

    def specs(self, values: Values) -> "list[JobSpec]":
        from mi_crow.jobs.spec import JobSpec

        params = nested(self._kept | self.parameters(values))
        return [JobSpec(self.kind, params, name=values["name"])]

    def command(self, values: Values) -> str:
        if self._kept:
            return ""
        fields = [one for one in self.fields if values["check"] or one.section != CHECK]
        words = arguments(self.kind, self.config, fields, values, self.at.device)
        words.insert(1, values["path"])
        return command_line(words, shown_root(self.at.workspace))


class ImportPopup(FormPopup[str]):
    """The form of an import; asks the hub for a repository that this machine does not have."""

    def __init__(self, form: ImportForm, note: str) -> None:
        super().__init__(
            form.title, form.fields, form.submit, study=form.study, note=note, way=form.way
        )
        self._form = form

    def _show_advice(self, advice: Advice) -> None:
        super()._show_advice(advice)
        wanted = self._form.wanted
        if wanted is not None:
            self.in_thread(partial(self._ask, wanted), self._hub_answered, group="hub")

    def _ask(self, wanted: HubPlace) -> bool:
        time.sleep(HUB_REST_S)
        if self._form.wanted != wanted:
            return False  # something else was typed meanwhile
        self._form.ask_hub(wanted)
        return True

    def _hub_answered(self, asked: bool) -> None:
        if asked:
            self._look_at_texts(0)

"""A form that starts jobs: what it says about its texts, the jobs they mean, and how they start."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, replace
from typing import TYPE_CHECKING, Any

from mi_crow.causes import sentence_of
from mi_crow.errors import MiCrowError, UserError
from mi_crow.store.workspace import Workspace
from tui.flags import flags_in, in_words
from tui.screens.runs.forms import finding
from tui.screens.runs.forms.checks.each_field import check_of
from tui.screens.runs.forms.command import arguments, command_line
from tui.screens.runs.forms.finding import Situation
from tui.screens.runs.forms.parameters import FieldsOf, default_at, flat, nested, texts_of
from tui.watch import check_there
from tui.widgets.forms.fields import (
    Advice,
    Candidate,
    Default,
    FormField,
    Texts,
    Values,
    WrongValueError,
    filled_in,
    read_values,
    wrong_values,
)
from tui.widgets.forms.popup import FormPopup

if TYPE_CHECKING:
    from mi_crow.jobs.spec import JobSpec


@dataclass
class Reading:
    """The texts of a form as far as they make sense, with the defaults found so far."""

    fields: Mapping[str, FormField]
    texts: Texts
    defaults: dict[str, Default]

    def get(self, name: str) -> Any:
        """The value of a field; None where its text is wrong."""
        try:
            return self.fields[name].value_of(self.texts[name], self.defaults.get(name))
        except UserError:
            return None

    def typed(self, name: str) -> bool:
        return bool(self.texts[name].strip())

    def value_beside(self, name: str, other: str) -> Any:
        """The value of the field that `other` names in the group of `name`; None without one."""
        beside = f"{name.rpartition('.')[0]}.{other}"
        return self.get(beside) if beside in self.fields else None


class JobForm:
    """The form of one kind of job; with a `spec` it begins with the values of an earlier one."""

    kind = ""
    title = ""
    derived: tuple[str, ...] = ()  # parameters that follow from fields with other names
    models: tuple[str, ...] = ("model.model",)  # fields that name a language model
    # Fields that cannot be filled in while one of others is wrong: they are not to blame.
    follows: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, at: Situation, spec: "JobSpec | None" = None) -> None:
        self.at = at
        self.fields = self.make_fields()
        self._kept: dict[str, Any] = {}
        if spec is not None:
            values = self.values_of(spec)
            texts = texts_of(self.fields, values, self.config)
            self.fields = filled_in(self.fields, texts | self._free_name(texts))
            named = {*self.derived, *(one.name for one in self.fields)}
            self._kept = {
                path: value
                for path, value in flat(spec.params).items()
                if path not in named and not _is_default(self.config, path, value)
            }
        self._by_name = {one.name: one for one in self.fields}
        self.way: Sequence[str] = ()  # the actions whose keys open it, one after the other

    @property
    def config(self) -> type:
        from mi_crow.jobs.kinds import kind_of

        return kind_of(self.kind).config

    @property
    def makes(self) -> str | None:
        """What the `name` of the form becomes: a run, an SAE."""
        from mi_crow.jobs.kinds import kind_of

        return kind_of(self.kind).makes

    @property
    def ask(self) -> FieldsOf:
        """Makes the fields of its parameters."""
        return FieldsOf(self.config)

    # What a kind of job has of its own.

    def make_fields(self) -> tuple[FormField, ...]:
        raise NotImplementedError

    def find_defaults(self, reading: Reading) -> None:
        """Adds to the reading's defaults what follows from its texts."""

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        """What could be in the fields."""
        return {}

    def refuse(self, reading: Reading) -> Iterator[UserError]:
        """What is wrong with texts together, and what the parameters alone would not show."""
        yield from ()

    def parameters(self, values: Values) -> dict[str, Any]:
        """The parameters by their paths."""
        return {name: value for name, value in values.items() if not name.startswith("job.")}

    def values_of(self, spec: "JobSpec") -> dict[str, Any]:
        """The values of the fields that gave this spec."""
        slurm = spec.slurm
        return flat(spec.params) | {
            "job.launcher": spec.launcher,
            "job.nproc": spec.nproc if spec.nproc > 1 else None,
            "job.slurm.partition": slurm.get("partition"),
            "job.slurm.time": slurm.get("time"),
            "job.slurm.args": [f"{key}={value}" for key, value in slurm.get("args", {}).items()],
        }

    def expect(self, spec: "JobSpec") -> tuple[str, ...]:
        """What to expect of the job: time, disk, memory."""
        return ()

    def popup(self, note: str = "") -> FormPopup[str]:
        """The form as it opens on the screen; the `note` is above its fields."""
        return FormPopup(
            self.title, self.fields, self.submit, study=self.study, note=note, way=self.way
        )

    # What every form does.

    def study(self, texts: Texts) -> Advice:
        """What there is to say about the texts."""
        reading = Reading(self._by_name, texts, {})
        self.find_defaults(reading)
        found = Advice(reading.defaults, self.candidates(reading))
        found = replace(
            found, candidates={"job.after": finding.job_names(self.at), **found.candidates}
        )
        if troubles := self._troubles(reading):
            return replace(found, troubles=troubles)
        try:
            values = read_values(self.fields, texts, reading.defaults)
            specs = self.checked(values)
        except (MiCrowError, OSError) as error:
            said = {self._place_of(error): self.in_words(sentence_of(error))}
            return replace(found, troubles=said)
        from tui.screens.runs.forms.expected.estimates import turn

        # What it waits for comes first: the lines at the end may have no room on a low screen.
        lines = [*filter(None, [turn(specs[0])]), *self.expect(specs[0])]
        if len(specs) > 1:
            lines.insert(0, f"{len(specs)} jobs, one after the other; of each:")
        if self._kept:
            lines.append(f"as before: {', '.join(self._kept)}")
        return replace(found, lines=tuple(lines), command=self.command(values))

    def _troubles(self, reading: Reading) -> dict[str, str]:
        """What is wrong with every field for itself and beside the others, in their order."""
        found = wrong_values(self.fields, reading.texts, reading.defaults)
        for error in (*self.refuse(reading), *self._wrong_for_themselves(reading)):
            found.setdefault(self._place_of(error), self.in_words(sentence_of(error)))
        for name, causes in self.follows.items():
            if not reading.typed(name) and not found.keys().isdisjoint(causes):
                found.pop(name, None)
        return {name: found[name] for name in ("", *self._by_name) if name in found}

    def _wrong_for_themselves(self, reading: Reading) -> Iterator[Exception]:
        for name in self._by_name:
            value = reading.get(name)
            check = check_of(self, reading, name, value) if value not in (None, "", ()) else None
            if check is None:
                continue
            try:
                check()
            except (MiCrowError, OSError) as error:
                yield WrongValueError(name, sentence_of(error))

    def _place_of(self, error: Exception) -> str:
        """The field that an error is about: the first that its remedy names."""
        if isinstance(error, WrongValueError):
            return error.name
        names = {one.flag: one.name for one in self.fields if one.flag}
        return next((names[one] for one in flags_in(sentence_of(error)) if one in names), "")

    def in_words(self, sentence: str) -> str:
        """A sentence of the library in the app's words."""
        return in_words(sentence, {one.flag: one.label for one in self.fields if one.flag})

    def specs(self, values: Values) -> "list[JobSpec]":
        """The jobs that the values mean. Raises UserError."""
        from mi_crow.jobs.distributed.slurm import minutes
        from mi_crow.jobs.spec import JobSpec

        slurm: dict[str, Any] = {}
        if values["job.slurm.partition"]:
            slurm["partition"] = values["job.slurm.partition"]
        if values["job.slurm.time"]:
            slurm["time"] = minutes(values["job.slurm.time"])
        for option in values["job.slurm.args"]:
            key, equals, value = option.partition("=")
            if not equals or not key or not value:
                raise WrongValueError("job.slurm.args", f"{option!r} is not like account=lab")
            slurm.setdefault("args", {})[key] = value
        return [
            JobSpec(
                self.kind,
                nested(self._kept | self.parameters(one)),
                launcher=values["job.launcher"],
                nproc=values.get("job.nproc") or 1,
                slurm=slurm,
                name=one.get("name"),
                after=values["job.after"],
            )
            for one in self.each(values)
        ]

    def each(self, values: Values) -> list[Values]:
        """The values of each job that is started."""
        return [values]

    def checked(self, values: Values) -> "list[JobSpec]":
        """The jobs, every parameter filled in. Raises UserError for one that would fail."""
        from mi_crow.jobs.launch import checked

        return [checked(self.at.workspace, spec) for spec in self.specs(values)]

    def command(self, values: Values) -> str:
        """The command lines that start the same jobs; empty where there are none."""
        if self._kept:  # the command line has no flags for these
            return ""
        root = shown_root(self.at.workspace)
        device = self.at.device
        return "\n".join(
            command_line(arguments(self.kind, self.config, self.fields, one, device), root)
            for one in self.each(values)
        )

    def submit(self, values: Values) -> str:
        """Starts the jobs and gives the id of the first. Raises UserError."""
        from mi_crow.jobs import submit

        check_there(self.at.workspace)
        specs = self.specs(values)
        ids = [
            submit(
                self.at.workspace,
                spec.kind,
                spec.params,
                name=spec.name,
                after=spec.after,
                launcher=spec.launcher,
                nproc=spec.nproc,
                slurm=spec.slurm,
            )
            for spec in specs
        ]
        return ids[0]

    def _free_name(self, texts: Texts) -> dict[str, str]:
        """The name of the earlier job's result, numbered where it is taken."""
        from mi_crow.jobs.kinds import kind_of

        name, what = texts.get("name"), kind_of(self.kind).makes
        if not name or what is None:
            return {}
        parent = self.at.workspace.parent_of(what)
        base, number = name, 2
        while (parent / name).exists():
            name, number = f"{base}-{number}", number + 1
        return {"name": name}


def shown_root(workspace: Workspace) -> str:
    """The workspace as a command line in any folder names it."""
    return str(workspace.root.absolute())


def _is_default(config: type, path: str, value: Any) -> bool:
    default = default_at(config, path)
    if isinstance(default, tuple):
        value = tuple(value) if isinstance(value, list) else value
    return value is None or (default is not MISSING and value == default)

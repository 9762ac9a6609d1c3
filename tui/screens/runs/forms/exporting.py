"""The form of an export: an SAE as files for other tools."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.mechanistic.sae.formats.marks import EXPORTED
from mi_crow.mechanistic.sae.metadata import WEIGHTS_NAME
from mi_crow.paths import expanded
from tui.screens.runs.forms import finding
from tui.screens.runs.forms.command import arguments, command_line
from tui.screens.runs.forms.index import SaeForm, which_sae
from tui.screens.runs.forms.job_form import JobForm, Reading, shown_root
from tui.widgets.forms.fields import Candidate, Default, FormField, Values

if TYPE_CHECKING:
    from mi_crow.jobs.spec import JobSpec


class ExportForm(JobForm):
    kind = "export"
    title = "Export an SAE"

    def make_fields(self) -> tuple[FormField, ...]:
        holds = "saelens takes nearly all, sparsify topk and groupmax, circuit-tracer transcoders"
        also = "further transcoders of one set of circuit-tracer; a comma between several"
        return (
            self.ask("sae_id", "SAE", SaeForm.of_sae, required=True, flag=""),
            self.ask("format", "format", holds, choices=EXPORTED),
            self.ask("also", "also", also, why="none", empty=()),
            self.ask("path", "new folder", "it must not exist yet", required=True, flag=""),
        )

    def find_defaults(self, reading: Reading) -> None:
        sae = self.at.sae(self.at.sae_id) or (self.at.saes[-1] if self.at.saes else None)
        if sae is not None:
            reading.defaults["sae_id"] = Default(sae.sae_id, which_sae(self.at, sae.sae_id))
        name, form = reading.get("sae_id"), reading.get("format")
        if name and form:
            target = _new_folder(Path.cwd(), f"{name}-{form}")
            reading.defaults["path"] = Default(str(target), "where mi-crow was started")

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        return {
            "sae_id": finding.sae_names(self.at.saes),
            "also": finding.sae_names(self.at.saes),
            "path": finding.files(reading.texts["path"].strip(), ()),
        }

    def expect(self, spec: "JobSpec") -> tuple[str, ...]:
        from tui.screens.runs.forms.expected.estimates import disk

        weights = self.at.workspace.sae_dir(spec.params["sae_id"]) / WEIGHTS_NAME
        needed = weights.stat().st_size if weights.is_file() else 0
        return (disk(self.at, needed, Path(spec.params["path"])),)

    def parameters(self, values: Values) -> dict[str, Any]:
        target = expanded(values["path"]).absolute()
        return {**values, "path": str(target)}

    def specs(self, values: Values) -> "list[JobSpec]":
        from mi_crow.jobs.spec import JobSpec

        return [JobSpec(self.kind, self.parameters(values))]

    def command(self, values: Values) -> str:
        words = arguments(self.kind, self.config, self.fields, values, self.at.device)
        words[1:1] = [values["sae_id"], values["path"]]
        return command_line(words, shown_root(self.at.workspace))


def _new_folder(parent: Path, name: str) -> Path:
    """A folder of this name that does not exist yet, with a number behind it where it has to."""
    number, target = 1, parent / name
    while os.path.lexists(target):
        number += 1
        target = parent / f"{name}-{number}"
    return target

"""The form of explanations by a chat model: who explains which features, and what it asks."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mi_crow.bounds import COUNT, SIZE, Bounds
from mi_crow.errors import MiCrowError
from mi_crow.mechanistic.explain.explanations.config import (
    ANSWER_S,
    EMBEDDINGS,
    EXPLAINER,
    LOCAL,
    MOST_PARALLEL,
    ExplanationsConfig,
    judge_named,
)
from mi_crow.store.settings import UserSettings, read_prices
from tui.screens.runs.forms import finding
from tui.screens.runs.forms.command import arguments, command_line
from tui.screens.runs.forms.index import SaeForm
from tui.screens.runs.forms.job_form import Reading, shown_root
from tui.screens.runs.forms.shared import device_field, job_fields, seed_field
from tui.text import count, duration
from tui.widgets.forms.fields import Candidate, Default, FormField, Values

if TYPE_CHECKING:
    from mi_crow.jobs.spec import JobSpec

_MORE = "More of the explanations"
_DENSEST = "the densest"
_PARALLEL = Bounds(1, MOST_PARALLEL, whole=True)


class ExplanationsForm(SaeForm):
    kind = "explanations"
    title = "Explain features with a chat model"

    def make_fields(self) -> tuple[FormField, ...]:
        ask, more = self.ask, replace(self.ask, section=_MORE)
        return (
            self.sae_fields()[0],
            ask(
                "explainer",
                "explainer",
                "an OpenAI-compatible endpoint (its key in MI_CROW_LLM_KEY), or local:MODEL",
                required=True,
            ),
            ask(
                "model",
                "model",
                "its name at the endpoint",
                why="as the endpoint chooses",
                flag="--explainer-model",
            ),
            ask(
                "where",
                "features",
                "a query as on Features, such as named:no density<1%",
                why=_DENSEST,
            ),
            ask("most", "at most", "so many features, the first that are found", COUNT),
            ask(
                "scores",
                "scores",
                "ask how well each explanation predicts, on texts that it did not see",
                why="ten more requests a feature",
                flag="",
            ),
            ask(
                "judge",
                "judge",
                "the explainer, or embeddings: those of the setting semantic.model, or "
                "embeddings:FOLDER",
            ),
            more("parallel", "at once", "requests that are on their way", _PARALLEL),
            more("per_minute", "a minute", "most requests that start", SIZE, "no limit"),
            seed_field(more),
            device_field(ask, self.at.device),
            *job_fields(ranked=False),
        )

    def find_defaults(self, reading: Reading) -> None:
        super().find_defaults(reading)
        reading.defaults.pop("run_id", None)
        try:
            settings = UserSettings.load()
            known = settings.text("llm.url"), settings.text("llm.model")
        except MiCrowError:
            return  # the settings say so themselves
        for name, value in zip(("explainer", "model"), known, strict=True):
            if value:
                reading.defaults[name] = Default(value, "your settings")

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        with_index = [sae for sae in self.at.saes if sae.has_index]
        typed = reading.texts["explainer"].removeprefix(LOCAL)
        local = tuple(
            Candidate(f"{LOCAL}{one.text}", one.note) for one in finding.models(self.at, typed)
        )
        judges = (Candidate(EXPLAINER), Candidate(EMBEDDINGS))
        return {"sae_id": finding.sae_names(with_index), "explainer": local, "judge": judges}

    def expect(self, spec: "JobSpec") -> tuple[str, ...]:
        from mi_crow.mechanistic.explain.explanations.job import estimate

        try:
            price = UserSettings.load().text("llm.price")
        except MiCrowError:
            price = ""
        config = ExplanationsConfig(**spec.params)
        found = estimate(self.at.workspace, config, read_prices(price) if price else None)
        unknown = "" if config.is_local else "; what it costs: the setting llm.price"
        cost = unknown if found.cost is None else f"; cost about {found.cost:.2g}"
        return (
            f"{count(found.features)} features, about {count(found.requests)} requests",
            f"about {count(found.tokens_in)} tokens in, {count(found.tokens_out)} out",
            f"about {duration(found.seconds)} at {ANSWER_S:g} s an answer{cost}",
        )

    def command(self, values: Values) -> str:
        if self._kept:
            return ""
        words = arguments("explain", self.config, self.fields, values, self.at.device)
        words += [] if values["scores"] else ["--no-scores"]
        return command_line(words, shown_root(self.at.workspace))

    def parameters(self, values: Values) -> dict[str, Any]:
        found = super().parameters(values)
        local = str(values["explainer"]).startswith(LOCAL)
        return found | {
            "model": "" if local else values["model"],
            "judge": judge_named(values["judge"]),
        }

"""The forms of measured steering: a sweep of a stack, and the search for a setting."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mi_crow.bounds import (
    AMOUNT,
    COUNT,
    FACTOR,
    FEATURE,
    SHARE,
    SIZE,
    TEMPERATURE,
    TOP_P,
    Bounds,
)
from mi_crow.clean_text import clean_text
from mi_crow.errors import MiCrowError, UserError
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.measure.arms import beside
from mi_crow.mechanistic.steering.measure.config import CONTROL, OPERATIONS, Judging
from mi_crow.paths import expanded
from mi_crow.store.settings import UserSettings
from tui.screens.runs.forms.command import arguments, command_line
from tui.screens.runs.forms.index import SaeForm
from tui.screens.runs.forms.job_form import Reading, shown_root
from tui.screens.runs.forms.shared import device_field, job_fields, seed_field
from tui.text import count
from tui.widgets.forms.fields import (
    Advice,
    Candidate,
    Default,
    FormField,
    Texts,
    Values,
    WrongValueError,
)

if TYPE_CHECKING:
    from mi_crow.jobs.spec import JobSpec
    from mi_crow.mechanistic.steering.measure.indexed import Indexed

NATS = Bounds(0, 1e9)  # of a budget; 0: without
BETWEEN = " | "  # prompts in one field: they have commas
_MORE, _LLM = "More", "A chat model that rates the texts"
_SHOWN = 3  # features that a description finds
_DIGITS = 18  # of a feature's number: no SAE has as many, and Python reads no more than 4,300


class MeasuringForm(SaeForm):
    """What both share: an SAE, the continuations, the judge."""

    derived = ("trial.prompts",)

    def __init__(self, *arguments: Any) -> None:
        self._indexed: dict[str, Indexed | None] = {}
        super().__init__(*arguments)

    def more_fields(self, *own: FormField) -> tuple[FormField, ...]:
        ask, more, llm = (replace(self.ask, section=one) for one in ("", _MORE, _LLM))
        costs, loss = "times that of the baseline", "for the loss that is added; 0: not measured"
        rates, matched = (
            "0 to 2 for concept, instruction and fluency, as AxBench does",
            f"beside it random {CONTROL}",
        )
        return (
            FormField(
                "prompts",
                "prompts",
                hint="a prompt, several with | between them, or a file with one a line",
                default=Default("", "the commonest openings of the indexed texts"),
            ),
            ask("trial.n", "n", "continuations of each, over all prompts", SIZE),
            ask("most_ratio", "most perplexity", costs, FACTOR),
            seed_field(ask, "trial.seed"),
            device_field(ask, self.at.device),
            FormField(
                "rated",
                "rates",
                hint=rates,
                switch=True,
                default=Default("no"),
                section=_LLM,
            ),
            llm(
                "rating.endpoint",
                "endpoint",
                "OpenAI-compatible, e.g. http://localhost:8000/v1",
                why="none: the setting llm.url",
                flag="",
            ),
            llm(
                "rating.model",
                "its model",
                "its name there",
                why="as the endpoint chooses",
                flag="--judge-model",
            ),
            llm(
                "rating.concept",
                "concept",
                "what the texts should be about, in words",
                why="the label, or the description",
            ),
            *own,
            more("trial.max_new_tokens", "new tokens", "of each continuation", COUNT),
            more("trial.temperature", "temperature", "of sampling; 0 is greedy", TEMPERATURE),
            more("trial.top_p", "top-p", "nucleus sampling; 1 keeps every token", TOP_P),
            more("trial.documents", "held-out texts", loss, AMOUNT),
            more("trial.control", "control", matched, flag=""),
            *job_fields(ranked=False),
        )

    def find_defaults(self, reading: Reading) -> None:
        super().find_defaults(reading)
        settings = UserSettings.load()
        for name, setting in (("rating.endpoint", "llm.url"), ("rating.model", "llm.model")):
            if found := settings.text(setting):
                reading.defaults[name] = Default(found, "your settings")

    def candidates(self, reading: Reading) -> dict[str, tuple[Candidate, ...]]:
        labels = tuple(Candidate(one) for one in self._labels(reading.get("sae_id")))
        return super().candidates(reading) | {"judging.label": labels, "aim": labels}

    def _labels(self, sae_id: str | None) -> list[str]:
        indexed = self._index_of(sae_id)
        return indexed.texts.labels if indexed is not None else []

    def _index_of(self, sae_id: str | None) -> "Indexed | None":
        """The index of an SAE; None where it has none, which the job says in a sentence."""
        from mi_crow.mechanistic.steering.measure.indexed import Indexed

        if not sae_id:
            return None
        if sae_id not in self._indexed:
            try:
                self._indexed[sae_id] = Indexed.open(self.at.workspace, sae_id)
            except MiCrowError:
                self._indexed[sae_id] = None
        return self._indexed[sae_id]

    def refuse(self, reading: Reading) -> Iterator[UserError]:
        for name in ("judging.pattern", "pattern"):
            if name in reading.fields and (pattern := reading.get(name)):
                yield from _wrong_pattern(name, pattern)
        label = reading.get("judging.label") if "judging.label" in reading.fields else None
        if label and (indexed := self._index_of(reading.get("sae_id"))) is not None:
            try:
                indexed.texts.check_label(label)
            except MiCrowError as error:
                yield WrongValueError("judging.label", str(error), hint=error.hint)
        if reading.get("rated") and not reading.get("rating.endpoint"):
            said = "no LLM endpoint is known"
            yield WrongValueError("rating.endpoint", said, hint="name one, e.g. http://host/v1")

    def parameters(self, values: Values) -> dict[str, Any]:
        found = super().parameters(values)
        found["trial.prompts"] = prompts_in(str(found.pop("prompts") or ""))
        if not found.pop("rated"):
            found = {name: one for name, one in found.items() if not name.startswith("rating.")}
        return found

    def values_of(self, spec: "JobSpec") -> dict[str, Any]:
        prompts = spec.params.get("trial", {}).get("prompts", ())
        rated = bool(spec.params.get("rating"))
        return super().values_of(spec) | {"prompts": BETWEEN.join(prompts), "rated": rated}

    def study(self, texts: Texts) -> Advice:
        found = super().study(texts)
        lines = tuple(line for line in found.lines if not line.startswith("as before"))
        return replace(found, lines=lines)  # the note above the fields says the stack

    def command(self, values: Values) -> str:
        return ""  # a stack is more than a line


class SweepForm(MeasuringForm):
    kind = "steer-sweep"
    title = "Measure the stack"

    def make_fields(self) -> tuple[FormField, ...]:
        judged = partial(FormField, empty=None, default=Default("", "none"))
        return (
            FormField(
                "strengths",
                "strengths",
                hint="multiply the stack's amounts by each: 0.5, 1, 1.5",
                bounds=FACTOR,
                several=True,
                default=Default("", "as the stack has them"),
            ),
            FormField(
                "schedules",
                "courses",
                hint="constant, decay 16, feedback",
                several=True,
                default=Default("", "as the stack has them"),
            ),
            FormField(
                "operations",
                "operations",
                hint=", ".join(OPERATIONS),
                choices=OPERATIONS,
                several=True,
                closed=True,
                default=Default("", "as the stack has them"),
            ),
            FormField(
                "plausible",
                "plausible",
                hint="shares of the likeliest token's probability; 0: without",
                bounds=SHARE,
                several=True,
                default=Default("", "without"),
            ),
            FormField(
                "kl_budgets",
                "KL budget",
                hint="nats a token; 0: without",
                bounds=NATS,
                several=True,
                default=Default("", "without"),
            ),
            FormField(
                "judging.label",
                "hits are",
                hint="texts that words tell to have this label of the corpus",
                empty=None,
                default=Default("", "texts about what the feature is about"),
                flag="--label",
            ),
            judged(
                "judging.description",
                "or about",
                hint="in words: texts like the indexed ones that these words match",
                flag="--about",
            ),
            judged(
                "judging.feature",
                "or like",
                hint="a feature's number: texts with the words of those in which it is strong",
                bounds=FEATURE,
                flag="--judge-feature",
            ),
            judged(
                "judging.pattern",
                "or match",
                hint="a regular expression",
                flag="--regex",
            ),
            *self.sae_fields()[:1],
            *self.more_fields(),
        )

    def find_defaults(self, reading: Reading) -> None:
        """Says what hits are where the stack has no feature: what its vector was made for."""
        super().find_defaults(reading)
        from mi_crow.mechanistic.steering.measure.checks import judging_of

        sae_id = reading.get("sae_id")
        indexed = self._index_of(sae_id)
        if indexed is None or not sae_id:
            return
        stack = [Intervention.from_json(held) for held in self._kept.get("interventions") or ()]
        words = "not known yet: the stack has no feature"
        with suppress(MiCrowError):
            found = judging_of(self.at.workspace, indexed, Judging(), stack, sae_id)
            if found.label is not None:
                words = f"label {found.label}, which the vector was made for"
            elif found.feature is not None:
                words = f"texts about what #{found.feature} is about"
            else:
                return
        reading.defaults["judging.label"] = Default("", words)

    def expect(self, spec: "JobSpec") -> tuple[str, ...]:
        params = spec.params
        arms = 1
        for name in ("strengths", "schedules", "operations", "plausible", "kl_budgets"):
            arms *= max(len(params.get(name) or ()), 1)
        stack = [Intervention.from_json(held) for held in params["interventions"]]
        control = beside(stack) if params["trial"]["control"] else ""
        texts = arms * params["trial"]["n"] * (2 if control else 1)
        words = f"{arms} setting{'' if arms == 1 else 's'}"
        if control:
            words += f"{', each' if arms > 1 else ''} beside {control}"
        return (words, f"{count(texts)} texts")


class AutoForm(MeasuringForm):
    kind = "steer-auto"
    title = "Make it happen"
    derived = ("trial.prompts", "feature", "label", "description")

    def __init__(self, *arguments: Any) -> None:
        self._found: dict[tuple[str, str], tuple[str, ...]] = {}  # by SAE and description
        super().__init__(*arguments)

    def make_fields(self) -> tuple[FormField, ...]:
        free = "a label only chooses the feature; judged by what that is about"
        return (
            FormField(
                "aim",
                "aim",
                hint="a feature's number, a label of the texts, or words that describe it",
                required=True,
            ),
            FormField(
                "pattern",
                "judge by",
                hint="a regular expression that hits match",
                empty=None,
                default=Default("", "the words of its texts"),
                flag="--regex",
            ),
            self.ask("tries", "tries", "strengths of each recipe", COUNT),
            self.ask("development", "n of a try", "continuations, which are not reported", SIZE),
            *self.sae_fields()[:1],
            *self.more_fields(replace(self.ask, section=_MORE)("label_free", "label-free", free)),
        )

    def expect(self, spec: "JobSpec") -> tuple[str, ...]:
        """Which feature it would be."""
        params = spec.params
        indexed = self._index_of(params["sae_id"])
        if indexed is None or params.get("label") is not None:
            return ()
        if (words := params.get("description")) is None:
            row = indexed.store.rows([params["feature"]])[0]
            return (f"#{row.feature} {row.meaning}".rstrip(),)
        from mi_crow.mechanistic.steering.measure.aims.described import features_described

        key = (params["sae_id"], words)
        if key not in self._found:
            found = features_described(indexed.store, indexed.texts, words)
            rows = indexed.store.rows([one.feature for one in found[:_SHOWN]])
            self._found[key] = tuple(f"#{row.feature} {row.meaning}".rstrip() for row in rows)
        return ("features to try: " + ", ".join(self._found[key]),)

    def parameters(self, values: Values) -> dict[str, Any]:
        found = super().parameters(values)
        text = str(found.pop("aim")).strip()
        plain = text.removeprefix("#")
        if plain.isascii() and plain.isdecimal() and len(plain) <= _DIGITS:
            return found | {"feature": int(plain)}
        of = "label" if text in self._labels(found.get("sae_id")) else "description"
        return found | {of: text}

    def values_of(self, spec: "JobSpec") -> dict[str, Any]:
        params = spec.params
        feature = params.get("feature")
        aim = params.get("label") or params.get("description") or ""
        return super().values_of(spec) | {"aim": f"#{feature}" if feature is not None else aim}

    def command(self, values: Values) -> str:
        if self._kept:
            return ""
        params = self.parameters(values)
        words = ["steer", "--auto"]
        flags = {"feature": "--feature", "label": "--label", "description": "--about"}
        for name, flag in flags.items():
            if params.get(name) is not None:
                words += [flag, str(params[name])]
        for prompt in params["trial.prompts"]:
            words += ["--prompt", prompt]
        if values["rated"]:
            words += ["--endpoint", values["rating.endpoint"]]
        if not values["trial.control"]:
            words.append("--no-control")
        words += arguments(self.kind, self.config, self.fields, values, self.at.device)[1:]
        return command_line(words, shown_root(self.at.workspace))


def _wrong_pattern(name: str, pattern: str) -> Iterator[UserError]:
    try:
        re.compile(pattern)
    except re.error as error:
        said = f"{pattern!r} is not a valid regular expression ({error})"
        yield WrongValueError(name, said)


def prompts_in(text: str) -> tuple[str, ...]:
    """The prompts that a field names. Raises WrongValueError for a file without any."""
    path = expanded(text) if 0 < len(text) < 1024 and "\0" not in text else None
    if path is None or (path.suffix != ".txt" and not path.is_file()):
        return tuple(part.strip() for part in text.split("|") if part.strip())
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise WrongValueError("prompts", f"{text!r} cannot be read ({reason})") from error
    found = tuple(clean_text(line) for line in lines if line.strip())
    if not found:
        raise WrongValueError("prompts", f"{text!r} has no prompts", hint="write one a line")
    return found

"""The forms of measured steering: a sweep of a stack, and the search for a setting."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.bounds import AMOUNT, COUNT, FACTOR, FEATURE, SHARE, SIZE, TEMPERATURE, Bounds
from mi_crow.clean_text import clean_text
from mi_crow.mechanistic.steering.measure.config import OPERATIONS
from tui.screens.runs.forms.index import SaeForm
from tui.screens.runs.forms.shared import USUAL, device_field, job_fields, seed_field
from tui.text import count
from tui.widgets.forms.fields import (
    Advice,
    Default,
    FormField,
    Texts,
    Values,
    WrongValueError,
)

if TYPE_CHECKING:
    from mi_crow.jobs.spec import JobSpec

NATS = Bounds(0, 1e9)  # of a budget; 0: without
BETWEEN = " | "  # prompts in one field: they have commas
_MORE = "More"


class MeasuringForm(SaeForm):
    """What both share: an SAE, the continuations, the judge."""

    derived = ("trial.prompts",)

    def more_fields(self) -> tuple[FormField, ...]:
        return (
            FormField(
                "prompts",
                "prompts",
                hint="a prompt, several with | between them, or a file with one a line",
                default=Default("", "the commonest openings of the indexed texts"),
            ),
            FormField(
                "trial.n",
                "n",
                hint="continuations of each, over all prompts",
                bounds=SIZE,
                default=Default("64", USUAL),
                flag="--n",
            ),
            device_field(self.at.device),
            _number("trial.max_new_tokens", "new tokens", "48", COUNT, "--max-new-tokens"),
            _number("trial.temperature", "temperature", "0.8", TEMPERATURE, "--temperature"),
            seed_field("trial.seed", _MORE),
            _number("trial.documents", "held-out texts", "16", AMOUNT, "--documents"),
            _number("most_ratio", "most perplexity", "1.5", FACTOR, "--most-ratio"),
            *job_fields(ranked=False),
        )

    def parameters(self, values: Values) -> dict[str, Any]:
        found = super().parameters(values)
        found["trial.prompts"] = prompts_in(str(found.pop("prompts") or ""))
        return found

    def values_of(self, spec: "JobSpec") -> dict[str, Any]:
        prompts = spec.params.get("trial", {}).get("prompts", ())
        return super().values_of(spec) | {"prompts": BETWEEN.join(prompts)}

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
            ),
            FormField(
                "judging.pattern",
                "or match",
                hint="a regular expression",
                empty=None,
            ),
            *self.sae_fields()[:1],
            *self.more_fields(),
        )

    def expect(self, spec: "JobSpec") -> tuple[str, ...]:
        params = spec.params
        arms = 1
        for name in ("strengths", "schedules", "operations", "plausible", "kl_budgets"):
            arms *= max(len(params.get(name) or ()), 1)
        texts = arms * params["trial"]["n"] * (2 if params["trial"]["control"] else 1)
        what = f"{arms} setting{'' if arms == 1 else 's'}, each beside a random feature"
        return (what, f"{count(texts)} texts")


class AutoForm(MeasuringForm):
    kind = "steer-auto"
    title = "Make it happen"

    def make_fields(self) -> tuple[FormField, ...]:
        return (
            FormField("feature", "feature", hint="its number", bounds=FEATURE, empty=None),
            FormField("label", "or label", hint="a label of the corpus", empty=None),
            FormField(
                "pattern",
                "judge by",
                hint="a regular expression that hits match",
                empty=None,
                default=Default("", "the words of its texts"),
            ),
            _number("tries", "tries", "5", COUNT, "--tries", section=""),
            _number("development", "n of a try", "32", SIZE, "--development", section=""),
            *self.sae_fields()[:1],
            *self.more_fields(),
        )


def _number(
    name: str, label: str, usual: str, bounds: Any, flag: str, section: str = _MORE
) -> FormField:
    return FormField(
        name, label, bounds=bounds, default=Default(usual, USUAL), flag=flag, section=section
    )


def prompts_in(text: str) -> tuple[str, ...]:
    """The prompts that a field names. Raises WrongValueError for a file without any."""
    path = Path(text).expanduser() if 0 < len(text) < 1024 and "\0" not in text else None
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

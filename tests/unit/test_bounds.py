"""Numbers that no command, config or form takes: each is refused in one sentence."""

import math
from argparse import Action, ArgumentError, _SubParsersAction
from collections.abc import Iterator
from typing import Any

import pytest

from mi_crow.bounds import COUNT, EXPANSION, FEATURE, REAL, SEED, SHARE, TEMPERATURE, TOP_P, Bounds
from mi_crow.cli import main
from mi_crow.cli.arguments import Parser
from mi_crow.cli.entry import COMMANDS, _module
from mi_crow.errors import UserError
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.language_model.generation import Sampling
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.records import FeatureFilter
from mi_crow.mechanistic.sae.config import SaeTrainingConfig, TrainConfig
from mi_crow.mechanistic.sae.evaluation.config import EvaluateConfig
from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention
from tui.screens.steer.stack import from_form, strengths

HOSTILE = (
    "nan", "-nan", "inf", "-inf", "1e308", "-1e308", "-1", "99999999999999999999",
    "9e19", "", " ", "1_0x", "0x10", "1" * 5000, "x", "1,", "²",
)  # fmt: skip


def numeric_options() -> Iterator[tuple[str, Parser, Action]]:
    """Every option and argument of every command that takes a number."""

    def walk(name: str, parser: Any) -> Iterator[tuple[str, Parser, Action]]:
        for action in parser._actions:
            if isinstance(action, _SubParsersAction):
                for word, child in action.choices.items():
                    yield from walk(f"{name} {word}", child)
            elif action.type is not None and takes_numbers(action):
                yield f"{name} {(action.option_strings or [action.dest])[0]}", parser, action

    for command in COMMANDS:
        parser = Parser(prog=command)
        _module(command).add_arguments(parser, command)
        yield from walk(command, parser)


def takes_numbers(action: Action) -> bool:
    try:
        value = action.type("1")  # type: ignore[operator]
    except Exception:
        return False
    return isinstance(value[0] if isinstance(value, list) else value, int | float)


def taken(parser: Parser, action: Action, text: str) -> tuple[list[float], str]:
    """The numbers that a word of the command line gives, or the sentence that refuses it."""
    try:
        value = parser._get_value(action, text)
    except ArgumentError as error:
        return [], str(error)
    return (value if isinstance(value, list) else [value]), ""


OPTIONS = {name: (parser, action) for name, parser, action in numeric_options()}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_number_of_every_command_has_bounds(name: str) -> None:
    parser, action = OPTIONS[name]
    for text in HOSTILE:
        value, refusal = taken(parser, action, text)
        for one in value:
            assert abs(one) <= 3.4e38, text  # false for nan
            assert text in ("-1", "9e19", "99999999999999999999"), f"{name} took {text!r}"
            assert isinstance(one, float) or text == "-1"
        assert "\n" not in refusal
        assert len(refusal) < 200
        assert "invalid" not in refusal  # argparse's own words name a Python function


def test_there_are_many_of_them() -> None:
    assert len(OPTIONS) > 40  # or the walk has lost its way


@pytest.mark.parametrize(
    "words",
    [
        "steer x --feature 3=+1 --temperature nan",
        "steer x --feature 3=+1 --top-p nan",
        "steer x --feature 3=+1 --top-p 0",
        "train --run r --expansion 1e308",
        "train --run r --n-latents 99999999999999999999",
        "train --run r --tokens 9e19",
        "train --run r --k 99999999999999999999",
        "capture --layer l --sample-seed -1",
        "capture --layer l --batch-size 99999999999999999999",
        "features --min-auroc nan",
        "features --min-max-act inf",
        "feature 99999999999999999999",
        "concepts set 1 x --confidence nan",
        "import x --scale 1e-300",
    ],
)
def test_the_command_line_says_it_in_one_sentence(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert "must be" in output.err or " is " in output.err


MODEL, TEXTS = ModelSpec("sample"), DatasetSpec("sample")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, -1, 10**20, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda v: SaeTrainingConfig(batch_size=v),
        lambda v: SaeTrainingConfig(steps=v),
        lambda v: SaeTrainingConfig(warmup_steps=v),
        lambda v: SaeTrainingConfig(checkpoint_every=v),
        lambda v: SaeTrainingConfig(seed=v),
        lambda v: TrainConfig("r", "l", n_latents=v, k=1),
        lambda v: TrainConfig("r", "l", k=v),
        lambda v: CaptureConfig(MODEL, TEXTS, ("l",), context_length=v),
        lambda v: CaptureConfig(MODEL, TEXTS, ("l",), seed=v),
        lambda v: DatasetSpec("sample", limit=v),
        lambda v: DatasetSpec("sample", sample_seed=v),
        lambda v: IndexConfig("s", top_examples=v),
        lambda v: IndexConfig("s", window=v),
        lambda v: EvaluateConfig("s", documents=v),
        lambda v: Sampling(max_new_tokens=v),
        lambda v: Sampling(seed=v),
    ],
)
def test_configs_refuse_counts_that_are_none(make: Any, value: Any) -> None:
    with pytest.raises(UserError, match="must be"):
        make(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, -1e308])
@pytest.mark.parametrize(
    "make",
    [
        lambda v: SaeTrainingConfig(lr=v),
        lambda v: SaeTrainingConfig(l1_lambda=v),
        lambda v: SaeTrainingConfig(target_l0=v),
        lambda v: SaeTrainingConfig(decay_share=v),
        lambda v: SaeTrainingConfig(aux_alpha=v),
        lambda v: SaeTrainingConfig(outlier_factor=v),
        lambda v: TrainConfig("r", "l", expansion=v),
        lambda v: TrainConfig("r", "l", sweep_expansion=(2.0, v)),
        lambda v: Sampling(temperature=v),
        lambda v: Sampling(top_p=v),
        lambda v: Sampling(plausible=v),
        lambda v: Sampling(kl_budget=v),
        lambda v: parse_intervention(f"3=+1@decay {v}"),
        lambda v: parse_intervention(f"3=+1?4>{v}"),
        lambda v: FeatureFilter(min_auroc=v),
        lambda v: FeatureFilter(min_max_act=v),
        lambda v: Intervention("feature:3", "add", v),
        lambda v: parse_intervention(f"3=+{abs(v)}"),
        lambda v: from_form(
            {
                "target": "3",
                "op": "add",
                "value": str(v),
                "unit": "max",
                "rivals": "",
                "scope": "all",
                "schedule": "constant",
                "condition": "",
            }
        ),
        lambda v: strengths(f"0, {v}"),
    ],
)
def test_configs_refuse_amounts_that_are_none(make: Any, value: float) -> None:
    with pytest.raises(UserError):
        make(value)


@pytest.mark.parametrize(
    "text", ["3=1e308", "3=+1e308max", "3=x1e308", "99999999999999999999=+1", f"{'9' * 5000}=+1"]
)
def test_an_intervention_that_overflows(text: str) -> None:
    with pytest.raises(UserError, match=r"at most|whole number"):
        parse_intervention(text)


@pytest.mark.parametrize(
    ("bounds", "text", "says"),
    [
        (COUNT, "0", "0 is less than 1"),
        (COUNT, "99999999999999999999", "99999999999999999999 is more than 1,000,000,000,000"),
        (COUNT, "1e5", "'1e5' is not a whole number"),
        (SHARE, "nan", "nan is not a number"),
        (SHARE, "1.5", "1.5 is more than 1"),
        (TOP_P, "0", "0 is not above 0"),
        (EXPANSION, "-1", "-1 is not above 0"),
        (SEED, "-1", "-1 is less than 0"),
        (FEATURE, "2147483648", "2147483648 is more than 2,147,483,647"),
        (TEMPERATURE, "", "'' is not a number"),
        (REAL, "1e308", "1e308 is more than 3.4e+38"),
    ],
)
def test_the_sentence_names_the_bound(bounds: Bounds, text: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        bounds.read(text)
    assert str(caught.value) == says


def test_what_is_within_is_taken() -> None:
    assert COUNT.read("1_000") == 1000
    assert [SHARE.read(text) for text in ("0", "1", "0.25")] == [0, 1, 0.25]
    assert parse_intervention("3=-0.8max").value == -0.8
    SaeTrainingConfig(steps=10, lr=1e-4, warmup_steps=0, l1_lambda=0.0)

"""Texts of several strengths in one batch are those that are written one by one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mi_crow.language_model import LanguageModel
from mi_crow.language_model.generation import Sampling, generate_each
from mi_crow.mechanistic.steering import effects
from mi_crow.mechanistic.steering.effects import write_now, write_together
from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention
from mi_crow.mechanistic.steering.measure.arms import Arm, in_groups, strength_beside
from mi_crow.mechanistic.steering.measure.bench import Bench
from mi_crow.mechanistic.steering.measure.config import Judging, SweepConfig, Trial
from mi_crow.mechanistic.steering.measure.sweep import run_sweep
from mi_crow.mechanistic.steering.steer import steering
from mi_crow.store import Workspace
from tests.helpers.index_fixture import make_index
from tests.helpers.session_fixture import SAE_ID, add_tiny_sae
from tests.helpers.steering_fixture import LATENTS, tiny_sae

PROMPTS = ("The ferry", "Knead it", "A very long road leads")
STRENGTHS = (0.5, 1.0, 1.7)
STACKS = [
    ("3=+2norm",),
    ("3=floor 1norm", "5=+4"),
    pytest.param(("3+0.5*7=clamp 2", "9=x0"), marks=pytest.mark.slow),
    pytest.param(("4=cap 0.5", "6=floor 0.4norm on generated"), marks=pytest.mark.slow),
    pytest.param(("3=+2norm on generated@decay 4", "5=ablate"), marks=pytest.mark.slow),
]


def scaled(stack: tuple[str, ...], strength: float) -> tuple[Intervention, ...]:
    return Arm(tuple(map(parse_intervention, stack))).scaled(strength).interventions


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("constraint", [{}, {"plausible": 0.1}])
def test_texts_of_all_strengths_are_those_of_each(
    tiny_lm: LanguageModel, stack: tuple[str, ...], constraint: dict[str, Any]
) -> None:
    sae = tiny_sae()
    layer = "resid_post.1"
    found = []
    with steering(tiny_lm, sae, layer, scaled(stack, 1.0)):
        sampling = Sampling(6, seed=3, **constraint)
        together = write_together(tiny_lm, PROMPTS, sampling, 7, STRENGTHS, bool(constraint))
    for strength, written in zip(STRENGTHS, together, strict=True):
        with steering(tiny_lm, sae, layer, scaled(stack, strength)):
            alone = write_now(
                tiny_lm,
                PROMPTS,
                n=7,
                max_new_tokens=6,
                seed=3,
                with_nats=bool(constraint),
                **constraint,
            )
        assert written.texts == alone.texts
        found.append(written.texts)
        nats = [
            [value for one in side.generations for value in one.nats or ()]
            for side in (written, alone)
        ]
        assert nats[0] == pytest.approx(nats[1], abs=1e-4)
    assert len({tuple(texts) for texts in found}) > 1


def test_arms_that_differ_only_in_strength_are_a_group() -> None:
    arms = [Arm(scaled(("3=+2norm", "5=ablate"), one)) for one in (1.0, 2.0, 0.5)]
    other = Arm(scaled(("3=floor 2norm", "5=ablate"), 1.0))
    limited = Arm(arms[1].interventions, plausible=0.1)
    assert in_groups([*arms, other, limited]) == [arms, [other], [limited]]
    assert strength_beside(arms[0], arms[2]) == 0.5
    uneven = Arm((parse_intervention("3=+4"), parse_intervention("5=+3")))
    assert strength_beside(Arm(scaled(("3=+2", "5=+3"), 1.0)), uneven) is None
    layers = [Arm((parse_intervention(f"layer:resid_post.1=clamp {n}"),)) for n in (2, 3)]
    assert in_groups(layers) == [[layers[0]], [layers[1]]]


def test_a_batch_without_room_is_halved(
    tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = generate_each(tiny_lm, PROMPTS * 2, Sampling(4, n=2), list(range(6)))
    handle = tiny_lm.model.register_forward_pre_hook(_allocate, with_kwargs=True)
    try:
        found = generate_each(tiny_lm, PROMPTS * 2, Sampling(4, n=2), list(range(6)))
    finally:
        handle.remove()
    assert [one.texts for one in found] == [one.texts for one in wanted]


def _allocate(_: Any, __: Any, given: dict[str, torch.Tensor]) -> None:
    if len(given["input_ids"]) > 2:
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.slow
def test_a_sweep_has_the_figures_of_its_arms(
    workspace: Workspace, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_tiny_sae(workspace, tiny_model_dir)
    make_index(workspace, SAE_ID, n_features=LATENTS)
    tiny_sae(model=str(tiny_model_dir)).save(workspace.sae_dir(SAE_ID))
    config = SweepConfig(
        SAE_ID,
        (parse_intervention("3=floor 1norm").as_json(),),
        strengths=STRENGTHS,
        operations=("floor", "add"),
        judging=Judging(label="sailing"),
        trial=Trial(prompts=PROMPTS, n=7, max_new_tokens=6, documents=2),
        device="cpu",
        name="together",
    )
    batches: list[Any] = []
    whole = effects.generate_each

    def counted(*given: Any) -> Any:
        batches.append(given)
        return whole(*given)

    monkeypatch.setattr(effects, "generate_each", counted)
    together, several = run_sweep(workspace, config), len(batches)
    monkeypatch.setattr(Bench, "write_ahead", lambda *_: None)
    alone = run_sweep(workspace, SweepConfig(**{**vars(config), "name": "alone"}))
    assert several < len(batches) - several
    for one, other in zip(together["arms"], alone["arms"], strict=True):
        assert one["texts"] == other["texts"]
        for key in ("share", "perplexity", "perplexity_ratio", "kl", "activation", "repetition"):
            assert one[key] == pytest.approx(other[key], rel=1e-5, abs=1e-6), key
        assert one["random"]["perplexity"] == pytest.approx(other["random"]["perplexity"])

"""A sweep or search that was stopped and resumed gives what an uninterrupted one gives."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mi_crow.errors import CancelledError, UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.mechanistic.steering.loading import load_for_work
from mi_crow.mechanistic.steering.measure import search
from mi_crow.mechanistic.steering.measure.auto import run_auto
from mi_crow.mechanistic.steering.measure.config import AutoConfig, Judging, SweepConfig, Trial
from mi_crow.mechanistic.steering.measure.sweep import run_sweep
from mi_crow.mechanistic.vectors.stored import list_vectors
from mi_crow.progress import Progress
from tests.helpers.index_fixture import make_index
from tests.helpers.progress import Watched
from tests.helpers.session_fixture import SAE_ID, add_tiny_sae
from tests.helpers.steering_fixture import LATENTS, tiny_sae


@pytest.fixture
def home(workspace, tiny_model_dir):
    """The tiny model's SAE with a made-up index of 48 documents."""
    add_tiny_sae(workspace, tiny_model_dir)
    make_index(workspace, SAE_ID, n_features=LATENTS)
    tiny_sae(model=str(tiny_model_dir)).save(workspace.sae_dir(SAE_ID))
    return workspace


def plain(result: dict[str, Any]) -> dict[str, Any]:
    """A result without its name."""
    return {key: value for key, value in result.items() if key != "measurement"}


def stopped_after(checkpoints: int, run: Callable[[Progress], dict[str, Any]]) -> dict[str, Any]:
    """What a job gives that is cancelled after a number of checkpoints, and then resumed."""
    with pytest.raises(CancelledError):
        run(Watched(checkpoints=checkpoints))
    return run(Watched())


@pytest.mark.slow
def test_a_sweep_stopped_between_arms_gives_what_an_uninterrupted_one_gives(home):
    stack = (parse_intervention("3=floor 1norm on generated@feedback").as_json(),)
    config = SweepConfig(
        SAE_ID,
        interventions=stack,
        strengths=(0.1, 1.0),
        plausible=(0.0, 0.2),
        judging=Judging(label="sailing"),
        trial=Trial(n=4, max_new_tokens=6, documents=4),
        device="cpu",
        name="whole",
    )
    loaded = load_for_work(home, SAE_ID, "cpu")
    whole = run_sweep(home, config, None, loaded)
    assert len(whole["arms"]) == 4
    for arms in (1, 3):
        again = replace(config, name=f"stopped-{arms}")
        resumed = stopped_after(
            arms, lambda progress, to=again: run_sweep(home, to, progress, loaded)
        )
        assert plain(resumed) == plain(whole)
    other = replace(config, name="other", trial=replace(config.trial, seed=7))
    assert run_sweep(home, other, None, loaded)["arms"] != whole["arms"]


SEARCH = AutoConfig(
    SAE_ID,
    label="sailing",
    recipes=("floor", "means"),
    development=4,
    most_ratio=50.0,
    trial=Trial(n=4, max_new_tokens=6, documents=0),
    device="cpu",
    name="whole",
)


@pytest.mark.slow
def test_a_search_stopped_early_or_late_gives_and_leaves_what_an_uninterrupted_one_does(home):
    config = replace(SEARCH, tries=2)
    loaded = load_for_work(home, SAE_ID, "cpu")
    first = Watched()
    whole = run_auto(home, config, first, loaded)
    vectors = [one.name for one in list_vectors(home)]
    for tries in (1, len(first.checkpoints) - 1):
        again = replace(config, name=f"stopped-{tries}")
        resumed = stopped_after(
            tries, lambda progress, to=again: run_auto(home, to, progress, loaded)
        )
        assert plain(resumed) == plain(whole)
        assert [one.name for one in list_vectors(home)] == vectors


@pytest.mark.slow
def test_a_search_that_is_resumed_leaves_no_vector_that_lost(home, monkeypatch):
    """One that a preset was made of in the meantime stays."""
    decided = search.decided
    only = ["floor"]

    def chosen(found):
        return [one for one in decided(found) if one.tried.recipe.name in only]

    monkeypatch.setattr(search, "decided", chosen)
    config = replace(SEARCH, tries=1)
    loaded = load_for_work(home, SAE_ID, "cpu")

    def left() -> list[str]:
        return [one.name for one in list_vectors(home)]

    first = Watched()
    run_auto(home, config, first, loaded)
    assert left() == []
    late = len(first.checkpoints) - 1  # after it made its vector
    resumed = replace(config, name="resumed")
    with pytest.raises(CancelledError):
        run_auto(home, resumed, Watched(checkpoints=late), loaded)
    assert len(left()) == 1
    run_auto(home, resumed, None, loaded)
    assert left() == []
    # Nothing found at all.
    only.clear()
    with pytest.raises(UserError, match="no recipe moves"):
        run_auto(home, replace(config, name="nothing"), None, loaded)
    assert left() == []
    only[:] = ["floor"]
    stopped = replace(config, name="stopped")
    with pytest.raises(CancelledError):
        run_auto(home, stopped, Watched(checkpoints=late), loaded)
    annotations = Annotations(home.annotations_path)
    (made,) = left()
    annotations.save_preset("mine", [parse_intervention(f"vector:{made}=+1norm").as_json()])
    annotations.close()
    run_auto(home, stopped, None, loaded)
    assert left() == [made]

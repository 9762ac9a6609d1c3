"""The form that scores how strongly features steer."""

import json
import shlex

import pytest

from mi_crow.cli import main
from mi_crow.cli.commands.steer import scoring
from mi_crow.jobs.spec import config_as_json
from mi_crow.store.workspace import Workspace
from tests.tui.driving import press, settle
from tests.tui.test_runs_forms import advice, jobs_of, situation
from tui.screens.runs.forms.scoring import ScoresForm
from tui.widgets.forms.popup import FormPopup

PROMPTS = "The ship, again | I think"


@pytest.mark.parametrize("texts", [{}, {"prompts": PROMPTS, "strength": "0.3", "batch_size": "8"}])
def test_form_command_and_repeated_job_mean_the_same(indexed: Workspace, monkeypatch, texts):
    form = ScoresForm(situation(indexed))
    (job,) = jobs_of(form, **texts)
    asked = []
    monkeypatch.setattr(scoring, "run_job", lambda *all: asked.append(all[2]) or 0)
    program, *words = shlex.split(advice(form, **texts).command)
    assert (program, main(words)) == ("mi-crow", 0)
    assert [json.loads(json.dumps(config_as_json(one))) for one in asked] == [job.params]
    (again,) = jobs_of(ScoresForm(situation(indexed), job))
    assert again.params == job.params


async def test_the_menu_starts_it(run_app, indexed: Workspace, submitted):
    async with run_app(indexed, size=(120, 40)) as pilot:
        await press(pilot, "1", "n", "s")
        await settle(pilot)
        assert isinstance(pilot.app.screen, FormPopup)
        await press(pilot, "ctrl+r")
        await settle(pilot)
    assert [one["kind"] for one in submitted] == ["steer-scores"]
    assert submitted[0]["params"]["sae_id"] == "fixture-sae"

"""What the library says, without the flags of the command line."""

import pytest

from tests.helpers.jobs_fixture import FakeJobs
from tests.tui.driving import screen_text, select
from tui.flags import in_words, of_a_job


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("name it with --target-layer", "name it with target layer"),
        ("give another --dataset", "give another dataset"),
        (
            "name it with --layer, as `mi-crow layers` lists them, e.g. resid_post.5",
            "name it with layer, e.g. resid_post.5",
        ),
        ("lower --k: mi-crow train --k 8", "lower k: mi-crow train --k 8"),
        ("nothing to do", "nothing to do"),
    ],
)
def test_a_failed_job_names_no_flags_but_those_of_a_command(said: str, shown: str):
    assert of_a_job(said) == shown


def test_the_labels_of_a_form_stand_for_its_flags():
    assert in_words("give another --dataset", {"--dataset": "texts"}) == "give another texts"


async def test_the_view_of_a_failed_import_has_no_flags(
    app_workspace, fake_jobs: FakeJobs, run_app
):
    fake_jobs.add(
        "failed", "import", name="x", error="no layer is named", hint="name it with --layer"
    )
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        rows = pilot.app.screen.query_one("#list-jobs")
        await select(pilot, "jobs", rows.rows[0].key)
        text = screen_text(pilot)
        assert "no layer is named" in text
        assert "--layer" not in text

"""Activations of indexed texts that the SAE's run holds already."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from mi_crow.language_model.hook_points.point import HookPoint
from mi_crow.mechanistic.steering.loading import LoadedSae
from mi_crow.mechanistic.steering.measure.aims import topic_vector
from mi_crow.mechanistic.steering.measure.aims.stored_texts import stored_activations
from mi_crow.mechanistic.steering.measure.texts import Document
from tests.helpers.index_reference import Doc
from tests.helpers.index_runs import LAYER, WIDTH, identity_sae, save_run, save_sae

POINT = HookPoint(LAYER, "resid_post.1", "output")
LENGTHS = (3, 0, 5, 2)


@pytest.fixture
def acts(workspace):
    """Four documents in two parts, one without kept tokens; their activations."""
    generator = np.random.default_rng(0)
    rows = [generator.uniform(0.5, 1, (n, WIDTH)).astype(np.float32) for n in LENGTHS]
    docs = [
        Doc(n, f"text {n}", None, "train", [0] * (len(one) + 1), [], [*range(1, len(one) + 1)], one)
        for n, one in enumerate(rows)
    ]
    save_run(workspace, docs, "hash", part_documents=2)
    save_sae(workspace, identity_sae("hash"))
    return rows


def asked(*numbers):
    return [Document(number, f"text {number}", None, False) for number in numbers]


def test_the_rows_of_documents_come_in_the_order_that_is_asked_for(workspace, acts):
    found = stored_activations(workspace, "sae", POINT, asked(3, 1, 0))
    assert found is not None
    assert torch.equal(found.rows, torch.from_numpy(np.concatenate([acts[3], acts[0]])))
    assert found.ends.tolist() == [2, 5]
    assert found.model_texts == [0, 2]


def test_nothing_is_taken_from_a_run_that_does_not_hold_them(workspace, acts):
    other = HookPoint("model.layers.0", "resid_post.0", "output")
    assert stored_activations(workspace, "sae", other, asked(0)) is None
    assert stored_activations(workspace, "sae", POINT, asked(0, 9)) is None
    changed = [Document(2, "another text", None, False)]
    assert stored_activations(workspace, "sae", POINT, changed) is None
    workspace.delete(workspace.run_dir("run"))
    assert stored_activations(workspace, "sae", POINT, asked(0)) is None


def test_a_vector_at_several_layers_reads_those_that_the_run_holds(workspace, acts, monkeypatch):
    asked_of_model = []

    def pass_of_the_model(lm, points, texts):
        asked_of_model.append(list(points))
        return {}

    monkeypatch.setattr(topic_vector, "activations_on", pass_of_the_model)
    loaded = cast(LoadedSae, SimpleNamespace(sae_id="sae", lm=None))
    twin = HookPoint(LAYER, "another name", "output")
    found = topic_vector._read(workspace, loaded, [POINT, twin], asked(2, 3))
    assert not asked_of_model
    assert torch.equal(found[POINT].rows, found[twin].rows)
    assert len(found[POINT].rows) == 7
    other = HookPoint("model.layers.0", "resid_post.0", "output")
    topic_vector._read(workspace, loaded, [POINT, other], asked(2, 3))
    assert asked_of_model == [[POINT, other]]

"""The model session with the sample model: what it says equals a computation apart, and an
interrupt ends a generation long before its end."""

from collections.abc import Iterator

import pytest
import torch

from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.sae import SaeMetadata, TopKSae, load_sae
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.session.client import SessionClient
from mi_crow.store.workspace import Workspace

pytestmark = pytest.mark.slow

SAE_ID = "sample-random"
TEXT = "The judge adjourned the hearing until the second witness could be found."
PUSH = Intervention("feature:3", "add", 4.0).as_json()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, sample_lm: LanguageModel) -> Workspace:
    """A workspace with a random SAE of the sample model's third block."""
    workspace = Workspace.open(tmp_path_factory.mktemp("session") / "workspace")
    sae = TopKSae(64, sample_lm.layers.width("resid_post.2"), k=8, seed=1)
    sae.metadata = SaeMetadata(model_name="sample", layer="model.layers.2", point="resid_post.2")
    sae.save(workspace.make_sae_dir(SAE_ID, SAE_ID))
    return workspace


@pytest.fixture(scope="module")
def session(home: Workspace) -> Iterator[SessionClient]:
    client = SessionClient(home)
    client.call("load", sae_id=SAE_ID, device="cpu")
    yield client
    client.close()


def test_inspected_activations_are_those_of_a_plain_forward_pass(
    session: SessionClient, home: Workspace, sample_lm: LanguageModel
) -> None:
    ids = sample_lm.tokenizer(TEXT, return_tensors="pt").input_ids
    sae = load_sae(home.sae_dir(SAE_ID))
    with torch.no_grad():
        x = sample_lm.model(input_ids=ids, output_hidden_states=True).hidden_states[3][0]
        pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    values, indices = pre.relu().topk(8, dim=1)
    expected = torch.zeros_like(pre).scatter(1, indices, values)
    special = torch.isin(ids[0], torch.tensor(sample_lm.tokenizer.all_special_ids))
    expected[special] = 0

    found = session.call("inspect", text=TEXT, top=64)
    assert found["special"] == special.tolist()
    assert "".join(found["tokens"]).endswith(TEXT)
    got = torch.zeros_like(expected)
    for row in found["features"]:
        got[:, row["feature"]] = torch.tensor(row["acts"])
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert (expected > 0).any()


def test_an_interrupt_ends_the_text_that_is_being_written(session: SessionClient) -> None:
    whole = {"prompt": TEXT, "max_new_tokens": 200, "temperature": 0.0, "interventions": [PUSH]}
    events = session.request("generate", **whole)
    pieces = [next(events)]
    session.interrupt()
    *rest, result = events
    pieces += rest
    assert result["stopped"] is True
    assert 0 < result["metrics"]["tokens"] < 200
    for side in ("baseline", "steered"):
        assert "".join(one["text"] for one in pieces if one["side"] == side) == result[side]
    assert "kl" not in result["metrics"]


def test_scale_by_one_is_the_baseline_and_a_push_is_not(session: SessionClient) -> None:
    still = Intervention("feature:3", "scale", 1.0).as_json()
    results = [
        session.call("generate", prompt=TEXT, max_new_tokens=16, seed=5, interventions=[one])
        for one in (still, PUSH)
    ]
    assert results[0]["steered"] == results[0]["baseline"] == results[1]["baseline"] != ""
    assert results[1]["steered"] != results[1]["baseline"]

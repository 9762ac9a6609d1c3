"""The model session as its users see it: a real process with the tiny model and its SAE."""

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mi_crow.errors import CancelledError, MiCrowError, NotFoundError, UserError
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.run import inspect_text, steer_prompt
from mi_crow.session.client import SessionClient
from mi_crow.store.workspace import Workspace
from tests.helpers import small_device
from tests.helpers.session_fixture import SAE_ID, add_tiny_sae
from tests.helpers.steering_fixture import LATENTS, LAYER, TEXT

PUSH = Intervention("feature:3", "add", 15.0)

needs_pidfd = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="waiting for a process that is no child needs Linux"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Workspace:
    """A workspace with two SAEs of one model, which a test may move away."""
    folder = tmp_path_factory.mktemp("session")
    model = Path(shutil.copytree(tiny_model_dir, folder / tiny_model_dir.name))
    workspace = Workspace.open(folder / "workspace")
    add_tiny_sae(workspace, model)
    add_tiny_sae(workspace, model, "second")
    return workspace


@pytest.fixture(scope="module")
def session(home: Workspace) -> Iterator[SessionClient]:
    """One session for all tests, as for all screens; each loads what it needs."""
    client = SessionClient(home)
    yield client
    client.close()


@pytest.fixture
def loaded(session: SessionClient) -> SessionClient:
    session.call("load", sae_id=SAE_ID, device="cpu")
    return session


def generate(client: SessionClient, *stack: Intervention, **params: Any) -> list[dict[str, Any]]:
    wanted = {"prompt": "The ferry", "max_new_tokens": 12, "seed": 3} | params
    return list(
        client.request("generate", interventions=[one.as_json() for one in stack], **wanted)
    )


def test_a_model_is_loaded_without_an_sae_and_steered(home, session, tiny_model_dir):
    state = session.call("load", model=str(tiny_model_dir), device="cpu")
    assert (state["sae_id"], state["layer"], state["n_features"]) == (None, "", 0)
    change = Intervention(f"layer:{LAYER}", "scale", 0.0)
    events = generate(session, change)
    assert events[-1]["baseline"] != events[-1]["steered"]
    assert session.call("layers")["layers"]
    with pytest.raises(UserError, match="is loaded without an SAE"):
        session.call("inspect", text=TEXT)
    with pytest.raises(UserError, match=f"no SAE is loaded, not '{SAE_ID}'"):
        session.call("inspect", text=TEXT, sae_id=SAE_ID)
    with pytest.raises(UserError, match="neither an SAE nor a model"):
        session.call("load", device="cpu")


def test_before_anything_is_loaded_it_says_so(home):
    client = SessionClient(home)
    try:
        with pytest.raises(UserError, match="no SAE is loaded"):
            client.call("inspect", text=TEXT)
        with pytest.raises(NotFoundError, match="'gone' not found"):
            client.call("load", sae_id="gone", device="cpu")
        with pytest.raises(UserError, match="no operation 'dance'"):
            client.call("dance")
    finally:
        client.close()


def test_an_answer_is_attributed_and_asked_for_again_without_its_causes(loaded):
    found = loaded.call("attribute", text=TEXT, top=3, sae_id=SAE_ID)
    assert [one["sae_id"] for one in found["saes"]] == [SAE_ID]
    causes = [(SAE_ID, one["feature"]) for one in found["saes"][0]["causes"]]
    assert len(causes) == 3
    plain = loaded.call("predict", text=TEXT)
    assert plain["predictions"] == plain["predictions_without"]
    without = loaded.call("predict", text=TEXT, ablated=causes)
    assert without["predictions"][0]["token"] == found["target"]["token"]
    assert without["predictions"] != without["predictions_without"]
    with pytest.raises(UserError, match="of the same layer"):
        loaded.call("attribute", text=TEXT, saes=[SAE_ID, "second"])
    with pytest.raises(NotFoundError, match="'gone'"):
        loaded.call("attribute", text=TEXT, saes=["gone"])


@pytest.mark.slow
def test_loading_names_model_layer_and_device_and_the_next_sae_keeps_the_model(session):
    loaded = session.call("load", sae_id=SAE_ID, device="cpu")
    assert loaded["layer"] == LAYER
    assert (loaded["device"], loaded["n_layers"], loaded["n_features"]) == ("cpu", 3, LATENTS)
    assert Path(loaded["model_id"]).name == "tiny-llama"
    model = Path(loaded["model_id"])
    away = model.rename(model.with_name("away"))  # it cannot be read again
    try:
        assert session.call("load", sae_id="second", device="cpu")["sae_id"] == "second"
    finally:
        away.rename(model)
    hooks = session.call("hooks")["hooks"]
    assert {(hook["layer"], hook["type"]) for hook in hooks} == {
        (LAYER, "detector"),
        (LAYER, "controller"),
    }
    assert len(hooks) == 2


def test_an_sae_that_cannot_be_loaded_leaves_the_loaded_one(loaded):
    with pytest.raises(NotFoundError):
        loaded.call("load", sae_id="gone", device="cpu")
    assert loaded.call("ping")["sae_id"] == SAE_ID


def test_two_texts_and_two_sets_of_texts_are_told_apart(loaded):
    found = loaded.call("compare", text=TEXT, against="The boat left the village.", top=4)
    assert len(found["features"]) == 4
    assert found["first"]["text"] == TEXT
    with pytest.raises(UserError, match="has 1 text, too few"):
        loaded.call("contrast", texts=[TEXT], against=["a boat"])
    with pytest.raises(UserError, match="no chat template"):
        loaded.call("render", chat="user: hello")


def test_inspecting_gives_what_the_command_gives(loaded, home):
    found = loaded.call("inspect", text=TEXT, top=6)
    assert found == inspect_text(home, SAE_ID, TEXT, top=6, device="cpu")
    assert len(found["features"]) == 6
    assert "".join(found["tokens"]).endswith(TEXT)


def test_names_from_the_annotations_come_with_the_features(loaded, home):
    from mi_crow.mechanistic.concepts.annotations import Annotations

    feature = loaded.call("inspect", text=TEXT, top=1)["features"][0]["feature"]
    annotations = Annotations(home.annotations_path)
    annotations.set_concept(SAE_ID, feature, "ferries", confidence=0.9)
    annotations.set_concept(SAE_ID, feature, "perhaps gulls", confidence=0.2)
    annotations.close()
    (row,) = loaded.call("inspect", text=TEXT, top=1)["features"]
    assert (row["feature"], row["concept"]) == (feature, "ferries")


def test_streamed_text_joined_is_the_text_and_is_what_the_command_gives(loaded, home):
    *pieces, result = generate(loaded, PUSH)
    for side in ("baseline", "steered"):
        streamed = "".join(one["text"] for one in pieces if one["side"] == side)
        assert streamed == result[side] != ""
    assert result["baseline"] != result["steered"]
    assert result["stopped"] is False
    assert result["metrics"]["kl"] > 0
    assert result["metrics"]["tokens_s"] > 0
    told = steer_prompt(home, SAE_ID, "The ferry", [PUSH], device="cpu", max_new_tokens=12, seed=3)
    assert {key: told[key] for key in ("baseline", "steered", "interventions")} == {
        key: result[key] for key in ("baseline", "steered", "interventions")
    }


def test_scale_by_one_writes_the_baseline(loaded):
    result = generate(loaded, Intervention("feature:3", "scale", 1.0))[-1]
    assert result["steered"] == result["baseline"]
    assert result["metrics"]["kl"] == 0


def test_without_a_baseline_only_the_steered_text_is_written(loaded):
    *pieces, result = generate(loaded, PUSH, baseline=False)
    assert {one["side"] for one in pieces} == {"steered"}
    assert result["baseline"] == ""
    assert result["steered"] == generate(loaded, PUSH)[-1]["steered"]


def test_steering_leaves_no_trace(loaded):
    before = generate(loaded)[-1]["baseline"]
    generate(loaded, PUSH)
    assert generate(loaded)[-1]["steered"] == before
    assert len(loaded.call("hooks")["hooks"]) == 2


def test_bad_interventions_are_told_and_the_session_goes_on(loaded):
    for wrong, sentence in (
        ({"target": "feature:999", "op": "add", "value": 1}, "not a feature of SAE"),
        ({"target": "feature:1", "op": "double", "value": 1}, "'double' is not known"),
        ({"target": "layer:h.9", "op": "ablate"}, "layer 'h.9' not found"),
        ({"target": "feature:1", "op": "add", "value": 1, "unit": "max"}, "no feature index|index"),
    ):
        with pytest.raises(UserError, match=sentence):
            loaded.call("generate", prompt="The ferry", interventions=[wrong])
    with pytest.raises(UserError, match="new tokens"):
        loaded.call("generate", prompt="The ferry", max_new_tokens=0)
    assert loaded.call("ping")["sae_id"] == SAE_ID


def test_an_interrupt_stops_what_runs_and_what_waits_between_two_tokens(loaded):
    running = loaded.request("generate", prompt="The ferry", max_new_tokens=60, temperature=0)
    next(running)  # it writes
    waiting = loaded.request("generate", prompt="Granite", max_new_tokens=60)
    asked = loaded.request("inspect", text=TEXT)
    loaded.interrupt()
    *_, first = running
    *_, second = waiting
    # A tiny model may be quicker than the interrupt, but never than the queue behind it.
    assert second["stopped"] is True
    assert second["baseline"] == second["steered"] == ""
    assert first["stopped"] in (True, False)
    with pytest.raises(CancelledError):
        list(asked)
    assert generate(loaded)[-1]["stopped"] is False


def test_the_tree_and_the_statistics_describe_the_model(loaded):
    rows = {row["name"]: row for row in loaded.call("layers")["layers"]}
    assert rows[LAYER]["point"] == "resid_post.1"
    assert rows[LAYER]["kind"] == "LlamaDecoderLayer"
    assert rows["lm_head"]["params"] > 0
    found = loaded.call("layer_stats", layer="mlp_out.2", text=TEXT)
    assert found["layer"] == "model.layers.2.mlp"
    assert found["max_norm"] >= found["mean_norm"] > 0


@pytest.mark.slow
@needs_pidfd
def test_a_killed_session_comes_back_with_its_sae(home):
    client = SessionClient(home)
    try:
        client.call("load", sae_id=SAE_ID, device="cpu")
        pid = client.call("ping")["pid"]
        os.kill(pid, signal.SIGKILL)
        await_end(pid)
        assert not client.alive
        assert client.call("inspect", text=TEXT)["features"]
        assert client.call("ping")["pid"] != pid
    finally:
        client.close()


@pytest.mark.slow
def test_a_session_without_memory_says_what_to_lower_and_lives(home):
    client = SessionClient(home, command=small_device.COMMAND)
    try:
        client.call("load", sae_id=SAE_ID, device="cpu")
        pid = client.call("ping")["pid"]
        *_, before = generate(client, PUSH, n=2)
        with pytest.raises(MiCrowError, match="the device is out of memory") as caught:
            generate(client, PUSH, n=small_device.ROOM)
        assert "fewer samples or new tokens, or shorten the prompt" in caught.value.hint
        *_, after = generate(client, PUSH, n=2)
        assert after["samples"] == before["samples"]
        assert client.call("ping")["pid"] == pid
    finally:
        client.close()


@pytest.mark.slow
@needs_pidfd
def test_the_session_ends_when_its_client_is_killed(home):
    code = (
        "import os, signal\nfrom pathlib import Path\n"
        "from mi_crow.session.client import SessionClient\n"
        "from mi_crow.store.workspace import Workspace\n"
        f"client = SessionClient(Workspace(Path({str(home.root)!r})))\n"
        "print(client.call('ping')['pid'], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    await_end(int(done.stdout))


def await_end(pid: int) -> None:
    """Waits until a process is gone; fails when that takes ten seconds."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = select.select([process], [], [], 10)
    finally:
        os.close(process)
    assert ended, f"process {pid} lives on"


def test_what_is_about_another_sae_than_the_loaded_one_is_refused(loaded):
    with pytest.raises(UserError, match="SAE 'third' not found"):
        generate(loaded, PUSH.in_sae("third"))
    for op, params in (("generate", {"prompt": "The ferry"}), ("inspect", {"text": TEXT})):
        with pytest.raises(UserError, match=f"SAE '{SAE_ID}' is loaded, not 'second'"):
            loaded.call(op, sae_id="second", **params)
    *_, result = generate(loaded, PUSH.in_sae(SAE_ID), sae_id=SAE_ID, max_new_tokens=2)
    assert result["sae_id"] == SAE_ID

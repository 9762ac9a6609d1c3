"""The vectors of the workspace over Steer: listed, looked into, sent to the stack, renamed."""

import numpy as np
from safetensors.numpy import save_file

from tests.tui.driving import notices, press, screen_text, settle


def add_vector(workspace, name: str) -> None:
    workspace.vectors_dir.mkdir(exist_ok=True)
    made = (
        '{"method": "probe", "model_id": "sample", "for": ["label:sea"], "layers":'
        ' {"resid_post.2": {"auroc_heldout": 0.97}}}'
    )
    values = {"resid_post.2": np.full(4, 2.0, dtype=np.float32)}
    save_file(values, workspace.vectors_dir / f"{name}.safetensors", {"mi_crow": made})


async def test_vectors_are_listed_looked_into_and_sent_to_the_stack(open_steer, app_workspace):
    async with open_steer(size=(120, 40)) as (pilot, session):
        await press(pilot, "D")
        assert "no vectors yet: n makes one" in screen_text(pilot)
        await press(pilot, "escape")
        add_vector(app_workspace, "calm")
        session.answers["look_into"] = {
            "features": {
                "sae_id": "demo-topk",
                "nearest": [{"feature": 3, "cosine": 0.81}],
                "pursuit": [{"feature": 17, "coefficient": 1.5}],
                "explained": 0.64,
            },
            "texts": {"run_id": "demo", "top": [{"projection": 1.2, "text": "gulls"}]},
        }
        await press(pilot, "D")
        text = screen_text(pilot)
        for words in ("calm", "probe", "resid_post.2", "0.97", "norm 4.00", "label:sea"):
            assert words in text
        await press(pilot, "enter")
        text = screen_text(pilot)
        for words in ("#3", "0.81", "explain 64% of it", "gulls"):
            assert words in text
        op, params = session.asked[-1]
        assert (op, params["name"], params["sae_id"], params["run_id"]) == (
            "look_into",
            "calm",
            "demo-topk",
            "demo",
        )
        await press(pilot, "r", *"ease", "enter")
        assert "The vector calm is called ease now" in notices(pilot)
        await press(pilot, "s")
        await settle(pilot)
        (one,) = pilot.app.context.steered
        assert one.target == "vector:ease"
        await press(pilot, "D", "x", "y")
        assert not (app_workspace.vectors_dir / "ease.safetensors").exists()

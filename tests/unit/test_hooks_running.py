"""Statistics over passes, and the controllers that need no SAE."""

from dataclasses import replace

import pytest
import torch

from mi_crow.errors import UserError
from mi_crow.hooks import (
    ConditionalController,
    LayerActivationDetector,
    NeuronsController,
    PipelineController,
    ScaleController,
    StatisticsDetector,
)
from mi_crow.hooks.running import GrowingHistogram
from mi_crow.hooks.specs import HookSpec
from mi_crow.mechanistic.attribution.depth import depth_profile
from mi_crow.session.layers import watch

TEXT, LAYER = "The ferry left the harbour before dawn.", "resid_post.1"


def test_statistics_of_many_passes_are_those_of_all_rows_at_once():
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, n, 6, generator=generator) * n + n for n in (3, 1, 7)]
    told: list[int] = []
    detector = StatisticsDetector(top=3, warn_above=20.0, on_warning=told.append)
    for part in parts:
        detector.process_activations(None, None, part)
    rows = torch.cat([part.reshape(-1, 6) for part in parts]).double()
    norms = rows.norm(dim=-1)
    torch.testing.assert_close(detector.mean, rows.mean(dim=0))
    torch.testing.assert_close(detector.variance, rows.var(dim=0, unbiased=False))
    assert [norm for norm, *_ in detector.top] == pytest.approx(norms.topk(3).values.tolist())
    assert detector.warnings == sum(told) == int((norms > 20).sum()) > 0
    assert sum(detector.histogram.counts) == len(rows)
    detector.process_activations(None, None, torch.full((1, 2, 6), float("nan")))
    assert detector.warnings == sum(told) == int((norms > 20).sum()) + 2
    assert detector.count == len(rows)


def test_a_histogram_grows_with_its_values():
    histogram, values = GrowingHistogram(), torch.rand(500) * 3
    for part in (values[:10], values[10:], torch.tensor([97.0])):
        histogram.add(part)
    edges = torch.tensor(histogram.edges)
    for low, high, found in zip(edges[:-1], edges[1:], histogram.counts, strict=True):
        everything = torch.cat([values, torch.tensor([97.0])])
        assert found == int(((everything >= low) & (everything < high)).sum())


def test_controllers_act_in_their_order_and_leave(tiny_lm):
    seen = LayerActivationDetector(LAYER)

    def after(*hooks) -> torch.Tensor:
        from contextlib import ExitStack

        with ExitStack() as stack:
            for hook in (*hooks, seen):
                stack.enter_context(hook.on(tiny_lm))
            tiny_lm.inference.execute_inference(TEXT)
        found = seen.get_captured()
        assert found is not None
        return found

    x = after()
    zero = NeuronsController(LAYER, [1, 4], 3.0)
    torch.testing.assert_close(after(ScaleController(LAYER, 2.0)), 2 * x)
    assert (after(ScaleController(LAYER, 2.0), zero)[..., [1, 4]] == 3).all()
    assert (after(zero, ScaleController(LAYER, 2.0))[..., [1, 4]] == 6).all()
    both = PipelineController(LAYER, [lambda x: x + 1, lambda x: 2 * x])
    torch.testing.assert_close(after(both), 2 * (x + 1))
    limit = x.norm(dim=-1).median()
    some = ConditionalController(LAYER, lambda x: 0 * x, lambda x: x.norm(dim=-1) > limit)
    assert torch.equal((after(some) == 0).all(-1), x.norm(dim=-1) > limit)
    off = ScaleController(LAYER, 0.0)
    off.disable()
    torch.testing.assert_close(after(off), x)
    assert not tiny_lm.layers.get_hooks()
    with pytest.raises(UserError, match="no neuron 999"):
        after(NeuronsController(LAYER, [999]))
    assert not tiny_lm.layers.get_hooks()


def test_a_hook_that_does_not_fit_the_model_is_named(tiny_lm):
    hooks = [HookSpec(LAYER), HookSpec(LAYER, "neurons", 0.0, (3, 9999))]
    with pytest.raises(UserError, match=r"hook 2 \(neurons 3, 9999 = 0\): .* has no neuron 9999"):
        watch(tiny_lm, TEXT, [one.as_json() for one in hooks])
    with pytest.raises(UserError, match=r"hook 1 \(× 0\): layer 'nowhere'"):
        watch(tiny_lm, TEXT, [HookSpec("nowhere", "scale").as_json()])
    off = replace(hooks[1], enabled=False)
    assert watch(tiny_lm, TEXT, [off.as_json()])["hooks"] == [None]


def test_a_text_is_watched_under_hooks(tiny_lm):
    hooks = [
        HookSpec(LAYER, "scale", 0.5),
        HookSpec(LAYER, warn_above=0.001),
        HookSpec(LAYER, enabled=False),
    ]
    found = watch(tiny_lm, TEXT, [one.as_json() for one in hooks])
    assert found["kl"] > 0
    assert [one is not None for one in found["hooks"]] == [False, True, False]
    detector = found["hooks"][1]
    assert detector["count"] == detector["warnings"] == found["tokens"]
    plain = watch(tiny_lm, TEXT, [HookSpec(LAYER).as_json()])
    assert plain["kl"] is None
    assert plain["hooks"][0]["top"][0][1] == pytest.approx(2 * detector["top"][0][1], rel=1e-4)
    assert not tiny_lm.layers.get_hooks()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"layer": "h.1", "kind": "dance"}, "'dance' is not known"),
        ({"layer": "h.1", "kind": "neurons"}, "no neurons given"),
        ({"layer": "h.1", "value": float("nan")}, "finite"),
        ({"kind": "scale"}, "not a valid hook"),
        ({"layer": "", "kind": "scale"}, "needs a layer"),
    ],
)
def test_a_wrong_hook_is_refused(wrong, sentence):
    with pytest.raises(UserError, match=sentence):
        HookSpec.from_json(wrong)


def test_a_profile_agrees_with_the_activations(tiny_lm):
    found = depth_profile(tiny_lm, TEXT)
    seen = LayerActivationDetector("resid_post.1")
    with seen.on(tiny_lm):
        tiny_lm.inference.execute_inference(TEXT)
    x = seen.get_captured()
    assert x is not None
    ordinary = ~tiny_lm.encode([TEXT]).special[0]
    row = found["blocks"][1]
    assert row["norm"] == pytest.approx(float(x[0][ordinary].norm(dim=-1).median()), rel=1e-4)
    assert found["tokens"] == int(ordinary.sum())
    assert all(one["entropy"] > 0 and one["attention"] > 0 for one in found["blocks"])
    assert all(-1 <= one["mlp_cosine"] <= 1 for one in found["blocks"])
    with pytest.raises(UserError, match="the text is empty"):
        depth_profile(tiny_lm, "  ")

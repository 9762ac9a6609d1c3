"""Attribution to features of SAEs over several layers: each is counted once, at every layer."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from mi_crow.cli import main
from mi_crow.errors import UserError
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture_pass import run_to
from mi_crow.mechanistic.attribution.attribute import attribute
from mi_crow.mechanistic.attribution.passes import edited_pass, graph_pass
from mi_crow.mechanistic.attribution.patching import patch_features
from mi_crow.mechanistic.attribution.question import Question
from mi_crow.mechanistic.attribution.run import attribute_loaded, predict_without
from mi_crow.mechanistic.attribution.site import SaeSite
from mi_crow.mechanistic.attribution.target import Target
from mi_crow.mechanistic.attribution.tree import Influence
from mi_crow.mechanistic.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.other_model import OtherModel
from mi_crow.mechanistic.sae.cross_layer.record import ModelRead
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.substitute import substitute
from mi_crow.mechanistic.steering.inspection import inspect
from mi_crow.mechanistic.steering.known import KnownFeatures, of_one_model
from mi_crow.mechanistic.steering.loading import LoadedSae, join
from mi_crow.store import Workspace
from mi_crow.store.workspace import SaeSummary
from tests.helpers.cross_layer_fixture import LATENTS, WIDTH, dense, shared, small
from tests.helpers.steering_fixture import TEXT, tiny_sae

KINDS = ("clt", "crosscoder", "shared")
kinds = pytest.mark.parametrize("kind", KINDS)


def mostly(fast: str) -> Any:
    """Each kind, all but one in the slow run."""
    marked = [pytest.param(k, marks=() if k == fast else pytest.mark.slow) for k in KINDS]
    return pytest.mark.parametrize("kind", marked)


def made(kind: str, numbers: tuple[int, ...] = (0, 1, 2), model: str = "") -> CrossLayerSae:
    if kind != "shared":
        return small(kind, numbers, model)
    sae = shared(numbers)
    sae.metadata = replace(sae.metadata, model_name=model)
    return sae


def encoded(lm: LanguageModel) -> Any:
    return lm.padded([lm.tokenize([TEXT])[0]])


def target_of(lm: LanguageModel) -> Target:
    return Target("difference", encoded(lm).input_ids.shape[1] - 1, 80, 91)


def site_of(lm: LanguageModel, kind: str) -> SaeSite:
    return SaeSite.of(join("across", lm, made(kind)))


def read(lm: LanguageModel, points: Any) -> dict[Any, Tensor]:
    encoding = encoded(lm)
    found = run_to(lm, points, encoding.input_ids, encoding.attention_mask)
    return {point: rows[0].clone() for point, rows in found.items()}


@contextmanager
def held(lm: LanguageModel, values: dict[Any, Tensor]) -> Iterator[None]:
    """Every layer has these values, whatever comes before it."""
    with ExitStack() as stack:
        for point, rows in values.items():
            stack.enter_context(substitute(lm, point, lambda _, rows=rows: rows[None].clone()))
        yield


def value_of(lm: LanguageModel, target: Target) -> Tensor:
    return target.of_logits(lm.model(**encoded(lm).as_inputs()).logits[0, target.position])


def partial_derivative(lm: LanguageModel, site: SaeSite, at: int, target: Target) -> float:
    """d m / d a where layer `at` has (1 + a) times what it had and the others what they had."""
    clean = read(lm, site.writes)
    with forward_ad.dual_level(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        rows = clean[site.writes[at]]
        moved = clean | {site.writes[at]: forward_ad.make_dual(rows, rows.clone())}
        with held(lm, moved):
            slope: Any = forward_ad.unpack_dual(value_of(lm, target)).tangent
    return 0.0 if slope is None else float(slope)


@kinds
def test_the_parts_of_each_layer_are_its_derivative_with_the_others_held(tiny_lm, kind):
    site, target = site_of(tiny_lm, kind), target_of(tiny_lm)
    found = attribute(tiny_lm, encoded(tiny_lm), [site], target, top=5).saes[0]
    expected = [partial_derivative(tiny_lm, site, at, target) for at in range(3)]
    sums = [one.first_order for one in found.by_layer]
    size = sum(abs(one.features) + abs(one.error) + abs(one.bias) for one in found.by_layer)
    assert size > 1e-3
    assert sums == pytest.approx(expected, abs=1e-4 * size)
    assert found.parts.first_order == pytest.approx(sum(expected), abs=1e-4 * size)
    assert sum(found.per_token) == pytest.approx(sum(expected), abs=1e-4 * size)
    features = sum(one.features for one in found.by_layer)
    assert found.parts.features == pytest.approx(features, abs=1e-5 * size)
    if kind == "clt":
        assert all(abs(one.features) > 1e-6 for one in found.by_layer)
    else:  # what the stream had earlier is in what it has last, and is counted there
        assert expected[:2] == [0, 0]


@kinds
def test_what_is_measured_is_every_layer_without_the_feature(tiny_lm, kind):
    site, target = site_of(tiny_lm, kind), target_of(tiny_lm)
    found = attribute(tiny_lm, encoded(tiny_lm), [site], target, top=4).saes[0]
    assert found.check is not None
    sae, clean = site.sae, read(tiny_lm, site.writes)
    assert isinstance(sae, CrossLayerSae)
    x = dict(zip(sae.layer_numbers, read(tiny_lm, site.reads).values(), strict=True))
    z = sae.encode(x)[2] if kind == "shared" else dense(sae, x)
    z = z * ~encoded(tiny_lm).special[0][:, None]
    for cause, measured in zip(found.causes, found.check.measured, strict=True):
        rows = sae.writes([cause.feature])
        without = {
            point: clean[point] - z[:, cause.feature, None] * rows[n]
            for n, point in zip(sae.layer_numbers, site.writes, strict=True)
            if n in rows
        }
        with torch.no_grad(), held(tiny_lm, clean):
            whole = value_of(tiny_lm, target)
        with torch.no_grad(), held(tiny_lm, clean | without):
            changed = value_of(tiny_lm, target)
        assert measured == pytest.approx(float(whole - changed), abs=1e-5)
        assert cause.activation == pytest.approx(float(z[:, cause.feature].max()), rel=1e-4)


class _Linear(nn.Module):
    """A causal linear model of three blocks, each a mean over the tokens so far and an MLP."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=3, vocab_size=vocabulary)
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList([_Block(width) for _ in range(3)])
        self.head = nn.Linear(width, vocabulary)
        self.dtype, self.device = torch.float32, torch.device("cpu")

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(
        self, input_ids: Tensor, attention_mask: Any = None, use_cache: bool = False
    ) -> Any:
        del attention_mask, use_cache
        x = self.embedding(input_ids)
        for block in self.blocks:
            x = block(x)
        return SimpleNamespace(logits=self.head(x))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn, self.mlp = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        counts = torch.arange(1, x.shape[1] + 1)[:, None]
        x = x + self.attn(x).cumsum(1) / counts
        return x + self.mlp(x)


@pytest.fixture(scope="module")
def linear_lm(tokenizer: Any) -> LanguageModel:
    torch.manual_seed(1)
    model = _Linear(WIDTH, len(tokenizer)).eval()
    return LanguageModel(model, tokenizer, model_id="linear", device=torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tests.helpers.tiny_models import build_tokenizer

    return build_tokenizer()


@kinds
@pytest.mark.parametrize("steps", [None, pytest.param(3, marks=pytest.mark.slow)])
def test_in_a_linear_model_what_is_predicted_is_what_is_measured(linear_lm, kind, steps):
    site, target = site_of(linear_lm, kind), target_of(linear_lm)
    text = encoded(linear_lm)
    found = attribute(linear_lm, text, [site], target, steps=steps, top=3 * LATENTS).saes[0]
    check = found.check
    assert check is not None
    assert len(found.causes) >= 6  # of the last token: those of others do not reach it
    predicted = [one.effect for one in found.causes]
    size = max(map(abs, predicted))
    assert check.measured == pytest.approx(predicted, abs=1e-4 * size)
    assert check.together == pytest.approx(sum(predicted), abs=1e-4 * size)
    assert check.together == pytest.approx(found.parts.features, abs=1e-4 * size)
    assert check.faithfulness == pytest.approx(1, abs=1e-3)
    assert check.completeness == pytest.approx(0, abs=1e-3)
    # Without any feature: the bias and the error of every layer, and what is not of these layers.
    rest = sum(vars(found.parts).values()) - found.parts.features
    assert check.without_features == pytest.approx(rest, abs=1e-4 * size)


def test_integrated_gradients_add_up_over_all_layers(tiny_lm):
    site, target = site_of(tiny_lm, "clt"), target_of(tiny_lm)
    found = attribute(tiny_lm, encoded(tiny_lm), [site], target, steps=64).saes[0]
    assert found.check is not None
    worth = sum(vars(found.parts).values()) - found.check.without_features
    assert found.parts.features == pytest.approx(worth, abs=0.02 * abs(worth))
    assert all(one.error == 0 for one in found.by_layer)


@pytest.mark.parametrize("kind", ["clt", "crosscoder"])
def test_a_later_feature_is_explained_by_those_of_earlier_layers(tiny_lm, kind):
    """The derivative of its activation by those of others is that of moving what they write, with
    all layers held."""
    site, text = site_of(tiny_lm, kind), encoded(tiny_lm)
    sae = site.sae
    assert isinstance(sae, CrossLayerSae)
    reading = graph_pass(tiny_lm, text, [site], 5).readings[0]
    last = reading.plain.values * (reading.latents.indices >= 2 * LATENTS)
    place = last.flatten().argmax()
    token = int(place) // last.shape[1]
    feature = int(reading.latents.indices.flatten()[place])
    target = Target("feature", token, sae_id="across", feature=feature)
    found = attribute(tiny_lm, text, [site], target, target_site=site, top=5)
    assert found.value == pytest.approx(float(last.max()), rel=1e-4)
    causes = found.saes[0].causes
    assert causes
    assert all(one.feature < 2 * LATENTS for one in causes)
    assert {one.layer for one in causes} <= {point.point for point in site.reads[:2]}
    step = 1e-3
    for one in causes:
        change = reading.features_part(reading.latents.indices == one.feature)
        both = torch.stack([step * change, -step * change])
        up, down = edited_pass(
            tiny_lm, text, reading.at_points(both), target, site, reading.held
        ).tolist()
        assert one.effect == pytest.approx((up - down) / (2 * step), rel=2e-2, abs=1e-4)
    first = Target("feature", token, sae_id="across", feature=3)
    with pytest.raises(UserError, match="needs an SAE of an earlier layer"):
        attribute(tiny_lm, text, [site], first, target_site=site)


def through(lm: LanguageModel, sites: list[SaeSite], root: Influence, child: Influence) -> float:
    """By hand: what the child (of the first site) writes moves the activation of the root (of the
    last), which acts by its own rows."""
    text, target = encoded(lm), target_of(lm)
    graph = graph_pass(lm, text, sites, target.position)
    earlier, later = graph.readings[0], graph.readings[-1]
    [flow] = graph.slopes(target.of_logits(graph.logits), [len(sites) - 1])
    slope = (flow @ later.written_by([root.feature])[0]).detach()
    step = 1e-3
    change = step * earlier.features_part(earlier.latents.indices == child.feature)
    with held(lm, earlier.at_points(earlier.y.detach() - change)):
        moved = graph_pass(lm, text, sites[-1:], target.position).readings[0]
    before, after = (one.activation_of(root.feature).detach() for one in (later, moved))
    open_ = (before > 0) & (after > 0)
    return float(((before - after) * slope)[open_].sum()) / step


def test_the_tree_goes_through_the_layers_of_one_sae(linear_lm):
    site, target, text = site_of(linear_lm, "clt"), target_of(linear_lm), encoded(linear_lm)
    found = attribute(linear_lm, text, [site], target, prune=0.0, top=30)
    root = next(one for one in found.tree if one.feature >= LATENTS)
    assert root.layer in ("mlp_in.1", "mlp_in.2")
    child = root.children[0]
    assert child.feature < LATENTS * (root.feature // LATENTS)
    assert child.effect == pytest.approx(
        through(linear_lm, [site], root, child), rel=2e-2, abs=1e-4
    )
    assert attribute(linear_lm, text, [site_of(linear_lm, "shared")], target).tree[0].children == ()


def test_below_a_feature_are_those_of_an_earlier_sae_of_several_layers(linear_lm):
    loaded = (
        join("first", linear_lm, made("shared", (0, 1))),
        join("then", linear_lm, made("clt", (2,))),
    )
    sites = [SaeSite.of(one) for one in loaded]
    found = attribute(linear_lm, encoded(linear_lm), sites, target_of(linear_lm), prune=0.0)
    root = next(one for one in found.tree if one.children)
    child = root.children[0]
    assert (root.sae_id, child.sae_id) == ("then", "first")
    assert child.effect == pytest.approx(through(linear_lm, sites, root, child), rel=2e-2, abs=1e-4)


def test_beside_an_earlier_sae_its_layers_follow_what_that_changes(tiny_lm):
    """Ablated together, an earlier SAE's feature acts through layers that are held otherwise."""
    loaded = [join("early", tiny_lm, tiny_sae()), join("across", tiny_lm, made("clt", (2,)))]
    sites = [SaeSite.of(one) for one in loaded]
    text, target = encoded(tiny_lm), target_of(tiny_lm)
    found = attribute(tiny_lm, text, sites[::-1], target, prune=0.0)
    assert [one.site.sae_id for one in found.saes] == ["early", "across"]
    assert {one.sae_id for root in found.tree for one in root.children} == {"early"}
    pairs = [(one.site.sae_id, one.causes[0].feature) for one in found.saes]
    alone = predict_without(loaded, TEXT, pairs[:1])["predictions_without"]
    both = predict_without(loaded, TEXT, pairs)["predictions_without"]
    plain = predict_without(loaded, TEXT, [])["predictions"]
    assert plain != alone != both
    # By hand: the layer is held at what ablating the early feature makes of it.
    readings = graph_pass(tiny_lm, text, sites, target.position).readings
    parts = [
        reading.features_part(reading.latents.indices == feature)
        for reading, (_, feature) in zip(readings, pairs, strict=True)
    ]
    with (
        torch.no_grad(),
        substitute(tiny_lm, sites[0].write, lambda y: y - parts[0]),
        substitute(tiny_lm, sites[1].write, lambda y: y - parts[1]),
    ):
        logits = tiny_lm.model(**text.as_inputs()).logits[0, target.position]
    for one in both:
        assert one["probability"] == pytest.approx(
            float(logits.softmax(-1)[one["token_id"]]), rel=1e-3
        )


def test_of_two_models_the_one_that_answers_is_explained(tiny_lm, tokenizer):
    """Latents are read from both; what they write is taken from the model that runs."""
    from tests.helpers.tiny_models import build_model

    torch.manual_seed(3)
    model = build_model("llama", len(tokenizer))
    with torch.no_grad():
        for one in model.parameters():
            one.mul_(1.1)
    base = LanguageModel(model, tokenizer, model_id="base", device=torch.device("cpu"))
    models = ModelRead("base", "base"), ModelRead("tuned", str(tiny_lm.model_id))
    sae = shared((1,), models)
    assert isinstance(sae, TwoModelCrosscoder)
    point, text, target = (
        tiny_lm.layers.resolve("resid_post.1"),
        encoded(tiny_lm),
        target_of(tiny_lm),
    )
    loaded = LoadedSae("two", tiny_lm, sae, point, other=OtherModel(sae, tiny_lm, base))
    found = attribute(tiny_lm, text, [SaeSite.of(loaded)], target, top=3).saes[0]
    assert found.check is not None
    own, other = (
        read(lm, [lm.layers.resolve("resid_post.1")]).popitem()[1] for lm in (tiny_lm, base)
    )
    z = sae.encode(torch.cat([other, own], dim=-1)) * ~text.special[0][:, None]
    expected = partial_derivative(tiny_lm, found.site, 0, target)
    assert found.parts.first_order == pytest.approx(expected, rel=1e-3)
    for cause, measured in zip(found.causes, found.check.measured, strict=True):
        row = sae.decoder_at(1)[cause.feature]
        without = own - z[:, cause.feature, None] * row
        with torch.no_grad():
            whole = value_of(tiny_lm, target)
            with held(tiny_lm, {point: without}):
                changed = value_of(tiny_lm, target)
        assert measured == pytest.approx(float(whole - changed), abs=1e-4)
        assert cause.layer in ("base:resid_post.1", "tuned:resid_post.1")
    asked = Target("feature", 4, sae_id="two", feature=found.causes[0].feature)
    with pytest.raises(UserError, match="a feature of 'two' reads two models"):
        attribute(tiny_lm, text, [found.site], asked, target_site=found.site)


@mostly("shared")
def test_what_was_inspected_before_can_be_explained(tiny_lm, tmp_path, kind):
    loaded = join("across", tiny_lm, made(kind))
    inspect(loaded, TEXT)  # reads the weights without gradients in mind
    known = KnownFeatures(Workspace.open(tmp_path / "w"))
    found = attribute_loaded(known, [loaded], TEXT, Question(position=4))
    assert found["saes"][0]["causes"]


def test_overlapping_layers_are_refused_in_a_sentence(tiny_lm, tmp_path):
    loaded = [join("across", tiny_lm, made("shared")), join("one", tiny_lm, tiny_sae())]
    known = KnownFeatures(Workspace.open(tmp_path / "w"))
    with pytest.raises(UserError, match=r"'across' \(resid_post\.0-2\) and 'one'.*overlap"):
        attribute_loaded(known, loaded, TEXT, Question())
    with pytest.raises(UserError, match="needs an SAE of an earlier layer"):
        attribute_loaded(known, loaded[:1], TEXT, Question(feature="3"))


def test_features_are_patched_at_all_their_layers(tiny_lm):
    site, target = site_of(tiny_lm, "clt"), target_of(tiny_lm)
    clean = encoded(tiny_lm)
    ids = clean.input_ids.clone()
    ids[0, 4] += 1
    other = type(clean)(ids, clean.attention_mask, clean.special)
    found = patch_features(site, clean, other, target)
    assert found.points == ("mlp_out.0-2",)
    [row] = found.effects
    assert row[:4] == (0, 0, 0, 0)
    assert any(abs(one) > 1e-4 for one in row[4:])


@mostly("clt")
def test_the_command_names_the_layer_of_each_feature(workspace, tiny_model_dir, kind, capsys):
    made(kind, model=str(tiny_model_dir)).save(workspace.make_sae_dir("across", "across"))
    asked = ["attribute", "--workspace", str(workspace.root), "--device", "cpu", TEXT]
    assert main([*asked, "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["saes"]
    place = "mlp_out.0-2" if kind == "clt" else "resid_post.0-2"
    assert (found["point"], found["layer"]) == (place, place)
    points = {f"{'mlp_in' if kind == 'clt' else 'resid_post'}.{n}" for n in range(3)}
    assert {one["layer"] for one in found["causes"]} <= points
    assert [one["point"] for one in found["by_layer"]] == [
        f"{'mlp_out' if kind == 'clt' else 'resid_post'}.{n}" for n in range(3)
    ]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert f"across at {place}" in shown
    first = found["causes"][0]
    assert [str(first["feature"]), first["layer"]] in [
        row.split()[:2] for row in shown.splitlines()
    ]


def test_beside_an_sae_over_several_layers_no_other_is_asked(tmp_path):
    def summary(sae_id: str, layer: str, layers: tuple[str, ...] = ()) -> SaeSummary:
        known: dict[str, Any] = {"run_id": None, "has_index": False, "evaluation": None, "bytes": 1}
        sizes: dict[str, Any] = {"n_inputs": 8, "n_latents": 16, "k": 4, "model_id": "m"}
        return SaeSummary(sae_id, tmp_path, "topk", layer=layer, layers=layers, **sizes, **known)

    one, other = summary("one", "resid_post.0"), summary("other", "resid_post.1")
    across = summary("across", "resid_post.0-1", ("resid_post.0", "resid_post.1"))
    every = [one, other, across]
    assert of_one_model(across, every, one_a_layer=True) == ["across"]
    assert of_one_model(one, every, one_a_layer=True) == ["one", "other"]
    assert of_one_model(one, every) == ["one", "other", "across"]


def test_the_second_model_computes_in_the_dtype_of_the_first(tokenizer):
    from tests.helpers.tiny_models import build_model

    model = build_model("llama", len(tokenizer)).to(torch.bfloat16)
    tuned = LanguageModel(model, tokenizer, model_id="tuned", device=torch.device("cpu"))
    sae = shared((1,), (ModelRead("base", "sample"), ModelRead("tuned", "tuned")))
    assert isinstance(sae, TwoModelCrosscoder)
    assert OtherModel(sae, tuned).lm.dtype == torch.bfloat16

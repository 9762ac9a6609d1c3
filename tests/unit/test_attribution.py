"""Attribution: the parts add up to the first-order change, and what is predicted is measured."""

import json
from collections.abc import Callable
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
from mi_crow.mechanistic.attribution.attribute import attribute
from mi_crow.mechanistic.attribution.check import correlation, ranks
from mi_crow.mechanistic.attribution.memory import most_ablations
from mi_crow.mechanistic.attribution.passage import passages_of
from mi_crow.mechanistic.attribution.passes import edited_pass, graph_pass
from mi_crow.mechanistic.attribution.question import Question
from mi_crow.mechanistic.attribution.run import attribute_loaded
from mi_crow.mechanistic.attribution.site import SaeSite
from mi_crow.mechanistic.attribution.target import (
    Target,
    notes_on,
    position_of,
    token_id,
    token_text,
)
from mi_crow.mechanistic.concepts.inspection_words import doubt, without_causes
from mi_crow.mechanistic.sae import SaeMetadata, TopKSae
from mi_crow.mechanistic.sae.substitute import substitute
from mi_crow.mechanistic.steering.known import KnownFeatures
from mi_crow.mechanistic.steering.loading import LoadedSae
from mi_crow.store.workspace import Workspace
from tests.helpers.session_fixture import SAE_ID, add_tiny_sae
from tests.helpers.tiny_models import build_model, build_tokenizer

TEXT = "The ferry left the harbour before dawn and the gulls"
ARCHITECTURES = ("llama", "gpt2", "gpt_neox", "gemma2", "gemma3_text", "qwen3")
# Exact in fp32 wherever the model is smooth: one architecture in every run, the others thoroughly.
EACH = [ARCHITECTURES[0], *(pytest.param(one, marks=pytest.mark.slow) for one in ARCHITECTURES[1:])]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


@pytest.fixture(scope="module")
def make(tokenizer: Any) -> Callable[[str], LanguageModel]:
    models: dict[str, LanguageModel] = {}

    def of(architecture: str) -> LanguageModel:
        if architecture not in models:
            model = build_model(architecture, len(tokenizer))
            models[architecture] = LanguageModel.from_local_torch(model, tokenizer)
        return models[architecture]

    return of


def sae_at(
    lm: LanguageModel, point: str, seed: int = 3, outlier_norm: float | None = None
) -> SaeSite:
    sae = TopKSae(96, lm.layers.width(point), k=8, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        sae.W_dec.mul_(0.5 + torch.rand(96, 1, generator=generator))
        sae.b_dec.copy_(0.1 * torch.randn(sae.n_inputs, generator=generator))
    found = lm.layers.resolve(point)
    sae.metadata = SaeMetadata(layer=found.name, point=found.point, outlier_norm=outlier_norm)
    return SaeSite(f"sae-{point}", lm, sae.eval(), found, found)


def encoded(lm: LanguageModel) -> Any:
    return lm.padded([lm.tokenize([TEXT])[0]])


def target_of(lm: LanguageModel, kind: Any = "difference") -> Target:
    last = encoded(lm).input_ids.shape[1] - 1
    return Target(kind, last, 80, 91 if kind == "difference" else None)


def directional(lm: LanguageModel, site: SaeSite, target: Target) -> float:
    """d m(y + a y) / d a at 0, by differentiation in forward mode."""
    with forward_ad.dual_level(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        with substitute(lm, site.write, lambda y: forward_ad.make_dual(y, y.clone())):
            logits = lm.model(**encoded(lm).as_inputs()).logits[0, target.position]
        slope: Any = forward_ad.unpack_dual(logits).tangent
    return float(slope[target.token] - slope[target.against or 0])


@pytest.mark.parametrize("architecture", EACH)
@pytest.mark.parametrize("point", ["resid_post.1", "mlp_out.1"])
def test_the_parts_add_up_to_the_directional_derivative(make, architecture, point):
    lm = make(architecture)
    site, target = sae_at(lm, point), target_of(lm)
    found = attribute(lm, encoded(lm), [site], target, top=5)
    parts = found.saes[0].parts
    expected = directional(lm, site, target)
    size = max(abs(expected), sum(map(abs, (parts.features, parts.error, parts.bias))))
    assert parts.first_order == pytest.approx(expected, abs=1e-4 * size)
    assert sum(found.saes[0].per_token) == pytest.approx(expected, abs=1e-4 * size)
    assert parts.first_order + parts.outside == pytest.approx(found.value, abs=1e-4 * size)
    assert abs(parts.features) > 0
    assert all(one.grad is None for one in lm.model.parameters())


class _Linear(nn.Module):
    """A causal linear model: embed, mean over the tokens so far, a linear block, unembed."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=1, vocab_size=vocabulary)
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList([_Mean(width)])
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
        counts = torch.arange(1, x.shape[1] + 1)[:, None]
        return SimpleNamespace(logits=self.head(x.cumsum(1) / counts))


class _Mean(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(x)


@pytest.fixture(scope="module")
def linear_lm(tokenizer: Any) -> LanguageModel:
    torch.manual_seed(1)
    model = _Linear(16, len(tokenizer)).eval()
    return LanguageModel(model, tokenizer, model_id="linear", device=torch.device("cpu"))


@pytest.mark.parametrize("kind", ["difference", "centred_logit"])
@pytest.mark.parametrize("steps", [None, 3])
def test_in_a_linear_model_what_is_predicted_is_what_is_measured(linear_lm, steps, kind):
    target = target_of(linear_lm, kind)
    found = attribute(
        linear_lm, encoded(linear_lm), [sae_at(linear_lm, "resid_post.0")], target, steps=steps
    ).saes[0]
    check = found.check
    assert check is not None
    assert len(found.causes) == 20
    predicted = [one.effect for one in found.causes]
    assert check.measured == pytest.approx(predicted, abs=1e-5)
    assert check.together == pytest.approx(sum(predicted), abs=1e-5)
    assert check.rank_correlation == pytest.approx(1, abs=1e-6)
    assert check.without_features == pytest.approx(
        found.parts.first_order - found.parts.features + found.parts.outside, abs=1e-5
    )


def test_faithfulness_is_one_for_all_features_and_completeness_zero(linear_lm):
    site = sae_at(linear_lm, "resid_post.0")
    found = attribute(linear_lm, encoded(linear_lm), [site], target_of(linear_lm), top=96).saes[0]
    assert found.check is not None
    assert found.check.faithfulness == pytest.approx(1, abs=1e-4)
    assert found.check.completeness == pytest.approx(0, abs=1e-4)
    few = attribute(linear_lm, encoded(linear_lm), [site], target_of(linear_lm), top=3).saes[0]
    assert few.check is not None
    assert few.check.faithfulness != pytest.approx(few.check.random_faithfulness, abs=1e-3)


def test_integrated_gradients_add_up_to_what_all_features_are_worth(make):
    lm = make("llama")
    found = attribute(lm, encoded(lm), [sae_at(lm, "resid_post.1")], target_of(lm), steps=64).saes[
        0
    ]
    assert found.check is not None
    worth = sum(vars(found.parts).values()) - found.check.without_features
    one_point = attribute(lm, encoded(lm), [sae_at(lm, "resid_post.1")], target_of(lm)).saes[0]
    assert found.parts.features == pytest.approx(worth, abs=0.05 * abs(worth))
    assert abs(one_point.parts.features - worth) > abs(found.parts.features - worth)


def test_special_and_outlier_tokens_are_a_part_of_their_own(make):
    lm = make("llama")
    plain = attribute(lm, encoded(lm), [sae_at(lm, "resid_post.1")], target_of(lm)).saes[0]
    none = attribute(
        lm, encoded(lm), [sae_at(lm, "resid_post.1", outlier_norm=1e-3)], target_of(lm)
    ).saes[0]
    assert none.causes == ()
    assert none.check is None
    assert none.parts.other_tokens == pytest.approx(plain.parts.first_order, rel=1e-4)


def test_a_feature_of_a_later_sae_can_be_the_target(make, tmp_path):
    lm = make("llama")
    early, late = sae_at(lm, "resid_post.0"), sae_at(lm, "resid_post.2", seed=8)
    text = encoded(lm)
    first = attribute(lm, text, [early, late], target_of(lm))
    assert [one.site for one in first.saes] == [early, late]
    cause = first.saes[1].causes[0]
    target = Target("feature", cause.tokens[0][0], sae_id=late.sae_id, feature=cause.feature)
    found = attribute(lm, text, [late, early], target, target_site=late)
    assert [one.site for one in found.saes] == [early]
    assert found.value > 0
    check = found.saes[0].check
    assert check is not None
    edit = torch.zeros(1, text.input_ids.shape[1], 32)
    assert float(edited_pass(lm, text, {early.write: edit}, target, late)[0]) == pytest.approx(
        found.value, rel=1e-4
    )
    known, question = KnownFeatures(Workspace.open(tmp_path / "w")), Question(feature="3")
    loaded = [LoadedSae(one.sae_id, lm, one.sae, one.read) for one in (early, late)]
    silent = late.sae.n_latents - 1
    with torch.no_grad():
        late.sae.b_enc[silent] = -1e6
    asked = replace(question, feature=f"{late.sae_id}/{silent}", position=2)
    with pytest.raises(UserError, match=f"feature {silent} of .* does not fire on token 2"):
        attribute_loaded(known, loaded, TEXT, asked)
    with pytest.raises(UserError, match="needs an SAE of an earlier layer"):
        attribute(lm, text, [late], target, target_site=late)
    with pytest.raises(UserError, match="comes after"):
        attribute(lm, text, [late], replace(target, sae_id=early.sae_id), target_site=early)


def test_the_tree_says_what_acts_through_what(linear_lm, make):
    lm = make("llama")
    early, late = sae_at(lm, "resid_post.0"), sae_at(lm, "resid_post.1", seed=8)
    found = attribute(lm, encoded(lm), [early, late], target_of(lm), prune=0.0, top=4)
    assert [one.feature for one in found.tree] == [one.feature for one in found.saes[1].causes]
    for root in found.tree:
        assert root.sae_id == late.sae_id
        assert root.children
        assert all(one.sae_id == early.sae_id for one in root.children)
        sizes = [abs(one.effect) for one in root.children]
        assert sizes == sorted(sizes, reverse=True)
    pruned = attribute(lm, encoded(lm), [early, late], target_of(lm), prune=0.9, top=4)
    assert pruned.tree == ()
    with pytest.raises(UserError, match="are of the same layer"):
        attribute(lm, encoded(lm), [early, early], target_of(lm))


def test_what_acts_through_a_feature_is_what_ablating_it_there_would_change(linear_lm):
    """An SAE reads the embedding, a later one the block: in a linear model between them the product
    is exact for latents that stay open."""
    early, late = sae_at(linear_lm, "resid_pre.0"), sae_at(linear_lm, "resid_post.0", seed=8)
    text, target = encoded(linear_lm), target_of(linear_lm)
    found = attribute(linear_lm, text, [early, late], target, prune=0.0, top=2)
    root = found.tree[0]
    child = root.children[0]
    step = 1e-3
    graph = graph_pass(linear_lm, text, [early, late], target.position)
    first, second = graph.readings
    here = first.latents.indices == child.feature
    edit = -step * first.features_part(here)
    with substitute(linear_lm, early.write, lambda x: x + edit):
        moved = graph_pass(linear_lm, text, [late], target.position).readings[0]
    slope = torch.autograd.grad(target.of_logits(graph.logits), second.y)[0]
    open_ = (second.latents.indices == root.feature).any(1)
    change = (second.activation_of(root.feature) - moved.activation_of(root.feature)).detach()
    flow = slope @ late.sae.W_dec[root.feature].detach()
    assert float((change * flow)[open_].sum()) / step == pytest.approx(child.effect, rel=5e-3)


def test_a_centred_logit_does_not_move_with_all_logits_but_a_raw_one_does():
    logits = torch.tensor([[1.0, 4.0, -2.0], [6.0, 9.0, 3.0]])  # the same and 5 more
    assert Target("centred_logit", 0, 1).of_logits(logits).tolist() == [3.0, 3.0]
    assert Target("logit", 0, 1).of_logits(logits).tolist() == [4.0, 9.0]


def test_a_long_text_is_explained_in_the_window_that_holds_the_token(make):
    lm = make("llama")
    assert lm.context is not None
    text = "The gulls left the harbour. " * lm.context
    cut = passages_of(lm, text)
    assert (len(cut.encodings), cut.read) == (1, lm.context)
    assert cut.at(3).position == 3
    for place in (None, -1, lm.context):
        with pytest.raises(UserError, match="of which the model reads"):
            cut.at(place)
    every = passages_of(lm, text, windows=True)
    assert every.read == every.total
    last, first = every.at(None), every.at(lm.context)
    assert last.start + last.position + 1 == every.places
    assert (first.start, first.position) == (lm.context, 0)
    assert first.encoding is every.encodings[1]
    with pytest.raises(UserError, match="has no token"):
        every.at(every.places)


@pytest.mark.parametrize(
    ("firing", "words"),
    [
        (0, "no feature fires on this text"),
        (1, "1 feature fires on this text, it has no effect on this target"),
        (1200, "1,200 features fire on this text, none has an effect on this target"),
        (None, "no feature has an effect on this target"),
    ],
)
def test_an_answer_without_causes_says_why(firing, words):
    assert without_causes({"causes": [], "check": None, "firing": firing}) == words


def test_memory_is_told_for_the_features_that_can_fire(make):
    site = sae_at(make("llama"), "resid_post.0")  # 8 of 96 a token
    assert most_ablations([site], 20, 8) == 26
    assert most_ablations([site], 100_000, 4) == 4 * 8 + 6
    assert most_ablations([site], 100_000, 512) == 96 + 6


def test_ranks_share_places_and_constants_do_not_correlate():
    assert ranks([3.0, 1.0, 3.0, 2.0]) == [2.5, 0.0, 2.5, 1.0]
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert correlation([1, 2, 3], [5, 5, 5]) is None
    assert correlation([1], [2]) is None


def test_targets_that_do_not_exist_say_what_would(make):
    lm = make("llama")
    with pytest.raises(UserError, match=r"is \d tokens for"):
        token_id(lm, "harbourmaster")
    with pytest.raises(UserError, match="the target is empty"):
        token_id(lm, "")
    with pytest.raises(UserError, match="has no token 9"):
        position_of(4, 9)
    assert position_of(4, None) == 3
    assert position_of(4, -2) == 2
    assert token_id(lm, "e") == lm.tokenizer("e", add_special_tokens=False)["input_ids"][0]


def test_a_word_that_is_no_token_is_taken_with_its_space(make):
    lm = make("llama")
    words = [token_text(lm, one) for one in range(len(lm.tokenizer))]
    spaced = next(
        word
        for word in words
        if word[:1] == " "
        and len(word.strip()) > 2
        and len(lm.tokenizer(word, add_special_tokens=False)["input_ids"]) == 1
        and len(lm.tokenizer(word[1:], add_special_tokens=False)["input_ids"]) > 1
    )
    found = token_id(lm, spaced[1:])
    assert token_text(lm, found) == spaced
    assert notes_on(lm, [(spaced, found), (None, found)]) == []
    [note] = notes_on(lm, [(spaced[1:], found)])
    assert repr(spaced) in note
    with pytest.raises(UserError) as refused:
        token_id(lm, f"{spaced}zzqz")
    assert "e.g. ' " in str(refused.value.hint)


@pytest.mark.parametrize(
    ("predicted", "together", "rank", "says"),
    [
        (0.356, 9.67, 0.9, "the sum (+0.356; ablated together +9.67) fails here"),
        (0.5, -0.5, None, "ablated together -0.5"),
        (1.0, 1.2, 0.1, "rank correlation 0.10"),
        (1.0, 2.9, 0.5, ""),
        (0.001, 0.05, 0.9, ""),  # less than a hundredth of the target
    ],
)
def test_a_prediction_that_fails_is_told(predicted, together, rank, says):
    check = {"predicted_sum": predicted, "together": together, "rank_correlation": rank}
    found = doubt(check, 8.0)
    assert says in found
    assert bool(says) == bool(found)


def test_the_command_says_what_made_the_model_say_it(workspace, tiny_model_dir, capsys):
    add_tiny_sae(workspace, tiny_model_dir)
    add_tiny_sae(workspace, tiny_model_dir, "other")
    asked = ["attribute", "--workspace", str(workspace.root), "--device", "cpu", "--top", "4"]

    def run(*more: str) -> int:
        return main([*asked, *more])

    assert run("--sae", SAE_ID, TEXT, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    one = found["saes"][0]
    assert found["target"]["token_id"] == found["predictions"][0]["token_id"]
    assert len(one["causes"]) == 4
    assert one["first_order"] == pytest.approx(sum(one["per_token"]), rel=1e-3)
    assert found["memory_bytes"] > 0
    assert found["target"]["kind"] == "centred_logit"
    assert run("--sae", SAE_ID, TEXT, "--raw-logit", "--json") == 0
    assert json.loads(capsys.readouterr().out)["target"]["kind"] == "logit"
    long = TEXT * 40
    assert run("--sae", SAE_ID, long, "--windows", "--json") == 0
    window = json.loads(capsys.readouterr().out)
    assert window["start"] + window["target"]["position"] + 1 == window["tokens_read"]
    assert len(window["tokens"]) < window["start"]
    assert run("--sae", SAE_ID, TEXT) == 0
    shown = capsys.readouterr().out
    assert one["firing"] >= 4
    assert found["model_id"] in shown.replace("\n", "")
    assert all(str(cause["feature"]) in shown for cause in one["causes"])
    for more, words in (
        ((TEXT,), "choose one with --sae"),
        (("--sae", SAE_ID, "--sae", "other", TEXT), "are of the same layer"),
        (("--sae", SAE_ID, " "), "the text is empty"),
        (("--sae", SAE_ID, long), "shorten it, read it in windows (--windows)"),
        (("--sae", SAE_ID, TEXT, "--against", "e"), "--against needs a --target"),
        (("--sae", SAE_ID, TEXT, "--target", "e", "--against", "e"), "minus itself is 0"),
        (("--sae", SAE_ID, TEXT, "--log-prob", "--raw-logit"), "do not go together"),
        (("--sae", SAE_ID, TEXT, "--token", "500"), "has no token 500"),
        (("--sae", SAE_ID, TEXT, "--feature", "gone/3"), "is not among those given"),
        (("--sae", SAE_ID, TEXT, "--feature", "3", "--against", "e"), "--feature and --against do"),
        (("--sae", SAE_ID, TEXT, "--feature", "3000"), "feature 3000 is not in the SAE"),
        (("--sae", SAE_ID, TEXT, "--feature", "3"), "needs an SAE of an earlier layer"),
    ):
        assert run(*more) == 2
        assert words in capsys.readouterr().err

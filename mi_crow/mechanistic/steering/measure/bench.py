"""The bench: a loaded model with its SAE, on which the arms of a sweep are measured one by one."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.errors import NotFiniteError, UserError
from mi_crow.hooks import Detector
from mi_crow.language_model.generation import Sampling
from mi_crow.mechanistic.sae.outputs import activations_of
from mi_crow.mechanistic.sae.substitute import replaceable
from mi_crow.mechanistic.steering.effects import (
    Written,
    corpus_loss,
    rows_forced,
    write_now,
    write_together,
)
from mi_crow.mechanistic.steering.fits import looked_up
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.loading import LoadedSae
from mi_crow.mechanistic.steering.measure.aims.own_texts import worthy
from mi_crow.mechanistic.steering.measure.aims.stand_ins import stand_ins
from mi_crow.mechanistic.steering.measure.arms import Arm, strength_beside
from mi_crow.mechanistic.steering.measure.certainty import mean_error, ratio_error, ratio_room
from mi_crow.mechanistic.steering.measure.config import REPORTED, Trial
from mi_crow.mechanistic.steering.measure.judges import Judge
from mi_crow.mechanistic.steering.measure.ratings import Rater
from mi_crow.mechanistic.steering.measure.text_figures import distinct, repetition
from mi_crow.mechanistic.steering.parts import LoadedParts
from mi_crow.mechanistic.steering.readings import watching
from mi_crow.mechanistic.steering.sources import Activations, Source
from mi_crow.mechanistic.steering.steer import steering_with, vector_sources
from mi_crow.mechanistic.steering.where import ordinary_tokens
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel

_REREAD = 32  # continuations
_EXAMPLES = 3


@dataclass(frozen=True)
class ArmTexts:
    """Continuations of one arm, read again by the plain model and as they were written."""

    prompts: list[str]  # of each text
    texts: list[str]
    token_ids: list[list[int]]
    nats: np.ndarray  # [texts], of each under the plain model
    perplexity: float  # of all of them
    kl: float  # KL(plain || steered), nats a token
    activation: float  # the plain model's greatest activation of the target in a text, mean


@dataclass
class Bench:
    """What measuring arms on one SAE needs; the plain loss is kept, and the baselines in
    `baselines`, which benches on one model and SAE may share."""

    workspace: Workspace
    loaded: LoadedSae
    judge: Judge
    target: int | None  # the feature whose activation is read
    greatest: float = 1.0  # its maximum in the index
    tokens: list[list[int]] = field(default_factory=list)  # held-out documents
    vector: str = ""  # the vector whose projection is read where there is no such feature
    rater: Rater | None = None  # rates the texts too
    baselines: dict[Any, ArmTexts] = field(default_factory=dict)
    _ahead: dict[Any, Written] = field(default_factory=dict)  # written with others, not yet read
    _plain_loss: float | None = None

    def figures(
        self, arm: Arm, trial: Trial, prompts: Sequence[str], n: int, seed: int
    ) -> dict[str, Any]:
        """The figures of one arm as JSON.

        share: of judged hits; share_baseline: the same of the baseline. perplexity_ratio: of the
        steered text to the baseline's, both under the plain model, the baseline written within the
        same plausible set. kl: nats a token between the plain and the steered model's predictions
        on the steered text. activation: of the target in the text as the plain model reads it, as a
        share of its maximum; of a vector the projection on it at its last layer, in multiples of it
        where no maximum is known; None where neither is steered. repetition, distinct_2, length:
        see `text_figures`. ce_added: nats a token that the stack adds on held-out texts of the
        corpus (None: not measured). With a rater also its mean ratings, `overall` and
        `overall_baseline`. Raises NotFiniteError where a figure is not finite, and what the rater
        raises.
        """
        baseline = self.baseline(trial, prompts, n, seed, arm.plausible)
        steered = self.read(arm, trial, prompts, n, seed)
        figures: dict[str, Any] = {
            "share": self.judge.share(steered.texts),
            "share_baseline": self.judge.share(baseline.texts),
            "perplexity": steered.perplexity,
            "perplexity_ratio": steered.perplexity / baseline.perplexity,
            "kl": steered.kl,
            "activation": steered.activation if self._reads else None,
            "activation_baseline": baseline.activation if self._reads else None,
            "repetition": repetition(steered.token_ids),
            "distinct_2": distinct(steered.token_ids),
            "length": sum(map(len, steered.token_ids)) / max(len(steered.token_ids), 1),
            "ce_added": self.ce_added(arm),
            "n": len(steered.texts),
        }
        if not all(math.isfinite(one) for one in figures.values() if one is not None):
            raise NotFiniteError(
                "the model's predictions are not finite numbers",
                hint="lower the interventions' values",
            )
        if self.rater is not None:
            rated = self.rater.figures(list(zip(steered.prompts, steered.texts, strict=True)))
            plain = self.rater.figures(list(zip(baseline.prompts, baseline.texts, strict=True)))
            figures |= {**rated, "overall_baseline": plain["overall"]}
        return {**figures, "texts": steered.texts[:_EXAMPLES]}

    def quick(
        self, arm: Arm, trial: Trial, prompts: Sequence[str], n: int, seed: int
    ) -> dict[str, Any]:
        """Only the share, the effect (`Judge.effect`) and the ratio of perplexities, of which a
        search needs many; the standard errors of the effect and of the ratio's logarithm, how much
        higher this may be on other prompts (see `ratio_room`), and the worthiest texts (`worthy`).
        Raises NotFiniteError where the predictions are not finite."""
        baseline = self.baseline(trial, prompts, n, seed, arm.plausible, whole=False)
        steered = self.read(arm, trial, prompts, n, seed, whole=False)
        effects = self.judge.effects(steered.texts)
        return {
            "share": self.judge.share(steered.texts),
            "effect": float(effects.mean()) if len(effects) else 0.0,
            "effect_error": mean_error(effects),
            "perplexity_ratio": steered.perplexity / baseline.perplexity,
            "ratio_error": ratio_error(steered, baseline),
            "ratio_room": ratio_room(steered, baseline, REPORTED),
            "own": worthy(self.judge, steered, baseline),
        }

    def write_ahead(
        self, arms: Sequence[Arm], controls: Sequence[Arm], trial: Trial, prompts: Sequence[str]
    ) -> None:
        """Writes the continuations of arms that differ only in strength in one batch, and those of
        their controls in another; `figures` of each then reads its own. Nothing is written where
        that does not work, as where predictions are not finite: each arm then tells by itself."""
        self._ahead.clear()
        for some in (arms, controls if controls != arms else ()):
            if len(some) < 2:
                continue
            sampling = Sampling(
                trial.max_new_tokens,
                trial.temperature,
                trial.top_p,
                trial.seed,
                plausible=some[0].plausible,
                kl_budget=some[0].kl_budget,
            )
            strengths = [strength_beside(some[0], arm) or 1.0 for arm in some]
            lm = self.loaded.lm
            with suppress(NotFiniteError, UserError), self.steered(some[0]):
                written = write_together(lm, prompts, sampling, trial.n, strengths)
                keys = [_key(arm, trial, prompts, trial.n, trial.seed) for arm in some]
                self._ahead |= dict(zip(keys, written, strict=True))

    def baseline(
        self,
        trial: Trial,
        prompts: Sequence[str],
        n: int,
        seed: int,
        plausible: float | None,
        whole: bool = True,
    ) -> ArmTexts:
        """The plain model's continuations; with `plausible`, within its own plausible set. Unless
        `whole`, without the target's activation."""
        plain = (trial.max_new_tokens, trial.temperature, trial.top_p, tuple(prompts), n, seed)
        key = (*plain, plausible, (self.target, self.vector) if whole else None)
        if key not in self.baselines:
            self.baselines[key] = self.read(Arm((), plausible), trial, prompts, n, seed, whole)
        return self.baselines[key]

    def read(
        self,
        arm: Arm,
        trial: Trial,
        prompts: Sequence[str],
        n: int,
        seed: int,
        whole: bool = True,
    ) -> ArmTexts:
        """Writes the continuations of an arm and reads them again; unless `whole`, the KL and the
        target's activation are left out: 0, and what the plain model said when they were written is
        not asked again."""
        ahead = self._ahead.pop(_key(arm, trial, prompts, n, seed), None)
        if ahead is not None:
            return self._read_again(arm, ahead, whole)
        told = not whole and (not arm.interventions or bool(arm.plausible or arm.kl_budget))
        with self.steered(arm):
            written = write_now(
                self.loaded.lm,
                prompts,
                n=n,
                max_new_tokens=trial.max_new_tokens,
                temperature=trial.temperature,
                top_p=trial.top_p,
                seed=seed,
                plausible=arm.plausible,
                kl_budget=arm.kl_budget,
                with_nats=told,
            )
        if told:
            costs = [cost for one in written.generations for cost in one.nats or ()]
            return self._readings(written, np.array(costs))
        return self._read_again(arm, written, whole)

    def _read_again(self, arm: Arm, written: Written, whole: bool) -> ArmTexts:
        lm = self.loaded.lm
        divergence = activation = 0.0
        texts = 0
        nats = np.zeros(len(written.texts))
        with_kl = whole and bool(arm.interventions)
        with self.steered(arm) if with_kl else nullcontext():
            for length, places, rows in _batches(written):
                reading = self._reading(length) if whole else nullcontext()
                with lm.plain(), reading as reader:
                    ((log_p, chosen, real),) = rows_forced(lm, rows, length, len(rows))
                told = log_p.gather(-1, chosen[..., None])[..., 0]
                nats[places] = -(told * real).sum(dim=-1, dtype=torch.float64).cpu().numpy()
                if reader is not None:
                    activation, texts = activation + reader.total, texts + reader.texts
                if with_kl:
                    ((log_q, _, _),) = rows_forced(lm, rows, length, len(rows))
                    kl = functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
                    divergence += float((kl * real).sum(dtype=torch.float64))
        activation = activation / max(texts, 1)
        return self._readings(written, nats, divergence, activation)

    def _readings(
        self, written: Written, nats: np.ndarray, divergence: float = 0.0, activation: float = 0.0
    ) -> ArmTexts:
        token_ids = [ids for one in written.generations for ids in one.token_ids]
        tokens = max(sum(map(len, token_ids)), 1)
        return ArmTexts(
            [one.prompt for one in written.generations for _ in one.texts],
            written.texts,
            token_ids,
            nats,
            math.exp(nats.sum() / tokens),
            max(divergence, 0.0) / tokens,
            activation,
        )

    @contextmanager
    def _reading(self, prompt_length: int) -> Iterator["TargetReader"]:
        """Inside the block the target's activations are read, as shares of its maximum: those of a
        feature where the SAE reads, those of a vector at its last layer."""
        if self.target is not None and self.loaded.several:
            with watching(self.loaded, [self.target]) as watched:
                watched.enable()
                reader = TargetReader(self.loaded.lm, None, None, prompt_length)
                yield reader
                reader.add(watched.found[..., 0] / self.greatest)
            return
        lm, (point, activations, limit) = self.loaded.lm, self._read_at
        reader = TargetReader(lm, activations, limit, prompt_length)
        hook = lm.layers.register_hook(point, reader)
        try:
            yield reader
        finally:
            lm.layers.unregister_hook(hook)

    @contextmanager
    def steered(self, arm: Arm) -> Iterator[None]:
        """Inside the block the model runs under the arm's stack."""
        lm = self.loaded.lm
        stack = looked_up(self.workspace, arm.interventions, self.loaded.sae_id)
        with steering_with(lm, self._loaded_parts.parts(self.loaded, stack), stack):
            yield

    @property
    def _reads(self) -> bool:
        return self.target is not None or bool(self.vector)

    @property
    def _read_at(self) -> "tuple[HookPoint, Activations | None, float | None]":
        """Where the target is read, how active it is there as a share of its maximum, and the norm
        of massive tokens."""
        sae, limit = self.loaded.sae, self.loaded.sae.metadata.outlier_norm
        if self.target is not None:
            feature = torch.tensor([self.target], device=sae.device)

            def share(x: Tensor) -> Tensor:
                return activations_of(sae.encode_sparse(x), feature).float() / self.greatest

            return self.loaded.layer, share, limit
        if not self.vector:
            return self.loaded.layer, None, limit
        source = self._vector_source
        known, most = source.activations([0]), source.maximum(0) or 1.0
        return source.read, lambda x: known(x) / most, source.outlier_norm

    @cached_property
    def _vector_source(self) -> Source:
        """The vector at the last of its layers."""
        lm = self.loaded.lm
        named = [Intervention(f"vector:{self.vector}", "add", 1.0)]
        found = vector_sources(lm, self._loaded_parts.parts(self.loaded, named), self.vector)
        order = lm.layers.list_layers()
        return max(found, key=lambda one: order.index(one.read.name))

    def stand_ins(self, stack: Sequence[Intervention], seed: int) -> dict[str, str]:
        """What stands in for the vectors and neurons of `stack` in a control: see `stand_ins`."""
        return stand_ins(self._loaded_parts, self.loaded, stack, seed)

    @cached_property
    def _loaded_parts(self) -> LoadedParts:
        return LoadedParts(self.workspace, self.loaded.lm)

    def ce_added(self, arm: Arm) -> float | None:
        """Cross-entropy on held-out texts under the stack minus that of the plain model, nats a
        token; schedules run as they do over generated text. None without such texts."""
        if not self.tokens:
            return None
        if self._plain_loss is None:
            with self.loaded.lm.plain():
                self._plain_loss = corpus_loss(self.loaded.lm, self.tokens)
        with self.steered(arm):
            return corpus_loss(self.loaded.lm, self.tokens) - self._plain_loss


def _key(arm: Arm, trial: Trial, prompts: Sequence[str], n: int, seed: int) -> Any:
    """What decides which texts are written."""
    return arm, trial, tuple(prompts), n, seed


def _batches(written: Written) -> Iterator[tuple[int, list[int], list[list[int]]]]:
    """Prompts with their continuations, their places among all, and the prompts' length: few texts
    of one length a time."""
    rows: dict[int, list[tuple[int, list[int]]]] = {}
    place = 0
    for one in written.generations:
        for ids in one.token_ids:
            if ids:
                rows.setdefault(len(one.prompt_ids), []).append((place, [*one.prompt_ids, *ids]))
            place += 1
    for length, texts in rows.items():
        for start in range(0, len(texts), _REREAD):
            some = texts[start : start + _REREAD]
            yield length, [place for place, _ in some], [ids for _, ids in some]


class TargetReader(Detector):
    """Sums, over texts, the greatest activation of one target on the tokens after the prompt."""

    def __init__(
        self,
        lm: "LanguageModel",
        activations: Activations | None,
        outlier_norm: float | None,
        prompt_length: int,
    ) -> None:
        """`activations`: of the target, [..., 1]; None reads nothing."""
        super().__init__()
        self._lm, self._activations, self._limit = lm, activations, outlier_norm
        self._first = prompt_length
        self.total: float = 0.0
        self.texts: int = 0

    @torch.no_grad()
    def process_activations(self, module: Any, inputs: Any, output: Any) -> None:
        x = output if output is not None else inputs
        if self._activations is None or not isinstance(x, Tensor) or x.dim() != 3:
            return
        where = replaceable(x, ordinary_tokens(self._lm, x), self._limit)
        self.add(self._activations(x)[..., 0] * where)

    def add(self, acts: Tensor) -> None:
        """Those of some texts, [texts, tokens] with their prompts."""
        self.total += float(acts[:, self._first :].amax(dim=1).sum())
        self.texts += len(acts)

"""How well SAEs reconstruct after the same tokens: ours, the dense reference, sparsify, SAELens.

    python tests/benchmarks/quality.py [--full] [--only NAME] [--resume]

SmolLM2-135M, layer 15, 4,608 latents, k = 32, batches of 1,024, 0.5M tokens (`--full`: 2M, and
every architecture steered to the same L0), three seeds. Every trainer takes the same training
tokens in the same order; those above 10 times the median norm, which our recipe leaves out, are
kept from all of them, since a trainer that meets them learns little else. Tokens repeat where the
run has fewer. The peers run their own trainers with their defaults, the batch aside, and write an
SAE that we load. The FVU is then `reconstruction_quality` for everybody, on the same held-out
tokens, outliers left out in `fvu` and taken in in `fvu_all`. The dead share is of a fixed sample
of 100,000 training tokens, as in every training's result.

`--options` trains with each option of a training beside the default of its architecture, and
measures besides the cross-entropy added, probes and the absorption of first letters; with
`--sample` on the sample model, 8 latents for each dimension.

The table goes to the terminal, the numbers to `--out`, after every SAE: with `--resume` those that
are there already are kept.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.mechanistic.sae import (
    BatchTopKSae,
    GatedSae,
    JumpReluSae,
    L1Sae,
    MatryoshkaSae,
    SaeTrainer,
    SaeTrainingConfig,
    SparseAutoencoder,
    TopKSae,
    load_sae,
)
from mi_crow.mechanistic.sae.config import KL, NONE
from mi_crow.mechanistic.sae.quality import latent_densities, reconstruction_quality
from mi_crow.mechanistic.sae.train.plan import make_plan, starting_point
from tests.benchmarks.captured import CapturedTokens, sample_run, smollm2_run
from tests.benchmarks.dense_reference import DenseReference
from tests.benchmarks.option_figures import OptionFigures
from tests.benchmarks.peer_process import PeerProcess
from tests.benchmarks.rows import Row, with_sleeping_threads, write_report
from tests.peer.environment import DownloadFailed, kept_environment

LATENTS, K, BATCH = 4608, 32, 1024
SEEDS = (0, 1, 2)
OTHERS = {
    "batchtopk": BatchTopKSae,
    "matryoshka": MatryoshkaSae,
    "l1": L1Sae,
    "jumprelu": JumpReluSae,
    "gated": GatedSae,
}
# Options of a training, each beside the default of its architecture.
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "jumprelu-tanh": ("jumprelu", {"penalty": "tanh"}),
    "orthogonal": ("mi-crow", {"orthogonality": 0.25}),
    "aligned": ("mi-crow", {"aligned": True}),
    "whitened": ("mi-crow", {"whiten": True}),
}
# Short trainings that go on from the default's SAE: on the model's predictions, and for comparison
# as long on the reconstruction alone.
FURTHER = {"finetuned": KL, "continued": NONE}
COMPARED = ("mi-crow", "dense", "sparsify", "saelens")
# name -> (run, tokens a training takes, wanted)
DEAD_SHARES = {
    "dead-sample": (sample_run, 5_000_000, "< 0.05"),
    "dead-smollm2": (smollm2_run, 2_000_000, "< 0.15"),
}


@dataclass(frozen=True)
class Found:
    """One trained SAE, measured."""

    name: str
    seed: int
    fvu: float
    fvu_all: float
    l0: float
    dead_share: float
    steps: int
    seconds: float  # whatever the trainer does at its end included
    more: dict[str, float] = field(default_factory=dict)  # with --options, see option_figures.py


class Bench:
    """The tokens, and one training of each kind on them."""

    def __init__(
        self, tokens: int, scratch: Path, python: Path | None, sample: bool, options: bool
    ) -> None:
        reader = sample_run() if sample else smollm2_run()
        self.tokens = CapturedTokens.of(reader)
        self.source = self.tokens.source()
        self.latents = 8 * self.source.width if sample else LATENTS
        self.steps = tokens // BATCH
        self._scratch, self._python = scratch, python
        self._figures = OptionFigures(reader) if options else None
        self._defaults: dict[int, SparseAutoencoder] = {}  # by seed, to go on from

    def train(self, name: str, seed: int) -> Found:
        began = time.perf_counter()
        sae = self._trainer(name)(name, seed)
        seconds = time.perf_counter() - began
        quality = reconstruction_quality(sae, self.tokens.heldout, self.tokens.outlier_norm)
        dead = float((latent_densities(sae, self.source, None) == 0).double().mean())
        more = {} if self._figures is None else self._figures.measure(sae)
        return Found(
            name, seed, quality.fvu, quality.fvu_all, quality.l0, dead, self.steps, seconds, more
        )

    def _trainer(self, name: str) -> Callable[[str, int], SparseAutoencoder]:
        trainers = {
            "dense": self._dense,
            "sparsify": self._peer,
            "saelens": self._peer,
            **dict.fromkeys(FURTHER, self._further),
        }
        return trainers.get(name, self._ours)

    def _config(self, seed: int, **fields: Any) -> SaeTrainingConfig:
        """The recipe as it stands; the outliers are out of the training tokens already."""
        return SaeTrainingConfig(
            steps=self.steps, batch_size=BATCH, seed=seed, outlier_factor=None, **fields
        )

    def _ours(self, name: str, seed: int) -> SparseAutoencoder:
        width = self.source.width
        name, fields = OPTIONS.get(name, (name, {}))
        if name == "mi-crow":
            sae: SparseAutoencoder = TopKSae(self.latents, width, K, seed=seed)
        elif name in ("batchtopk", "matryoshka"):
            sae = OTHERS[name](self.latents, width, K, seed=seed)
        else:
            sae = OTHERS[name](self.latents, width, seed=seed)
        target = float(K) if sae.steers_sparsity else None
        SaeTrainer(sae).train_on(self.source, self._config(seed, target_l0=target, **fields))
        return sae

    def _further(self, name: str, seed: int) -> SparseAutoencoder:
        assert self._figures is not None, "a training that goes on is one of --options"
        if seed not in self._defaults:
            self._defaults = {seed: self._ours("mi-crow", seed)}
        folder = self._scratch / f"{name}-{seed}"
        start = self._defaults[seed]
        return self._figures.trained_on(start, FURTHER[name], BATCH, seed, folder)

    def _dense(self, name: str, seed: int) -> SparseAutoencoder:
        sae = TopKSae(self.latents, self.source.width, K, seed=seed)
        plan = make_plan(sae, self.source, self._config(seed))
        reference = DenseReference(sae, plan, starting_point(sae, self.source, plan))
        batches = self.source.batches(BATCH, seed)
        for _ in range(self.steps):
            reference.step(next(batches).float())
        return reference.finished()

    def _peer(self, name: str, seed: int) -> SparseAutoencoder:
        assert self._python is not None
        tokens, order = self._scratch / "tokens.safetensors", self._scratch / "order.safetensors"
        if not tokens.exists():
            save_file({"train": self.tokens.train.contiguous()}, tokens)
        save_file({"order": self.tokens.order(BATCH, self.steps, seed)}, order)
        given = {
            "tokens": str(tokens),
            "order": str(order),
            "latents": self.latents,
            "k": K,
            "batch": BATCH,
            "seed": seed,
            "out": str(self._scratch / f"{name}-{seed}"),
        }
        with PeerProcess(self._python, f"{name}_training", given) as peer:
            steps, folder = peer.facts["steps"], peer.facts["sae"]
        assert steps == self.steps, f"{name} made {steps} steps, not {self.steps}"
        return load_sae(folder)


def dead_share(name: str, seed: int) -> Found:
    """A training by the recipe's defaults on a stored run, as `mi-crow train` makes it."""
    run, tokens, _ = DEAD_SHARES[name]
    source = run()
    config = SaeTrainingConfig(steps=tokens // SaeTrainingConfig().batch_size, seed=seed)
    trainer = SaeTrainer(TopKSae(8 * source.width, source.width, K, seed=seed))
    trainer.train_on(source, config)
    result = trainer.result
    assert result is not None
    return Found(
        name,
        seed,
        result.fvu,
        result.fvu_all,
        result.l0,
        result.dead_share,
        result.steps,
        result.seconds,
    )


def summary(found: list[Found]) -> list[Row]:
    """Means over seeds, and what they are wanted to be beside each other."""
    fvus: dict[str, list[float]] = {}
    for one in found:
        fvus.setdefault(one.name, []).append(one.fvu)
    means = {name: statistics.mean(values) for name, values in fvus.items()}
    rows = [
        Row(f"held-out FVU, {name}", mean, more={"seeds": fvus[name]})
        for name, mean in means.items()
        if name not in DEAD_SHARES
    ]
    for name in means:
        of_name = [one.more for one in found if one.name == name and one.more]
        rows += [
            Row(
                f"{figure}, {name}",
                statistics.mean(more[figure] for more in of_name),
                more={"seeds": [more[figure] for more in of_name]},
            )
            for figure in (of_name[0] if of_name else {})
        ]
    ours = fvus.get("mi-crow", [])
    if ours and len(fvus.get("dense", [])) == len(ours):
        # The pairs share seed, start and data, so that only rounding sets them apart. What it comes
        # to over a training shows in the spread over seeds: two standard errors, or 1% where the
        # seeds happen to agree better than that.
        pairs = [a - b for a, b in zip(ours, fvus["dense"], strict=True)]
        noise = 2 * statistics.stdev(pairs) / len(pairs) ** 0.5 if len(pairs) > 1 else 0.0
        allowed = max(noise, 0.01 * means["dense"])
        rows.append(
            Row("FVU, ours less dense", means["mi-crow"] - means["dense"], f"<= {allowed:.4f}")
        )
    for peer in ("sparsify", "saelens"):
        if ours and peer in means:
            rows.append(Row(f"FVU, ours / {peer}", means["mi-crow"] / means[peer], "< 1.0"))
    for name, (_, _, wanted) in DEAD_SHARES.items():
        worst = max((one.dead_share for one in found if one.name == name), default=None)
        if worst is not None:
            rows.append(Row(f"dead share, {name}", worst, wanted))
    return rows


def kept_results(out: Path, settings: dict[str, Any]) -> list[Found]:
    """The SAEs of a run that was cut, where its settings were the same."""
    if not out.is_file():
        return []
    report = json.loads(out.read_text())
    same = all(
        report["settings"].get(name) == str(settings[name])
        for name in ("tokens", "full", "sample", "options")
    )
    if not same:
        print(f"{out} was made with other settings: everything is trained anew")
    return [Found(**one) for one in report["saes"]] if same else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, help="0.5M, or 2M with --full")
    parser.add_argument("--options", action="store_true", help="those of a training alone")
    parser.add_argument("--sample", action="store_true", help="on the sample model's run")
    parser.add_argument("--full", action="store_true", help="2M tokens and every architecture")
    parser.add_argument("--only", choices=(*COMPARED, *OTHERS, *OPTIONS, *FURTHER, *DEAD_SHARES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--resume", action="store_true", help="keep what --out holds already")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/quality.json"))
    options = parser.parse_args()
    options.tokens = options.tokens or (2_000_000 if options.full else 500_000)
    with_sleeping_threads(options.threads)
    torch.set_flush_denormal(True)

    names = [*COMPARED, *(OTHERS if options.full else ()), *DEAD_SHARES]
    if options.options:
        names = ["mi-crow", *FURTHER, "jumprelu", *OPTIONS]
    names = [options.only] if options.only else names
    settings = vars(options)
    found = kept_results(options.out, settings) if options.resume else []
    python = None
    if {"sparsify", "saelens"} & set(names):
        try:
            python = kept_environment()
        except DownloadFailed as error:
            print(f"the peers cannot be downloaded, left out: {error}")
            names = [name for name in names if name not in ("sparsify", "saelens")]
    bench: Bench | None = None
    print(f"{'':14} {'seed':>4} {'fvu':>8} {'fvu all':>8} {'l0':>6} {'dead':>7} {'s':>7}")
    with tempfile.TemporaryDirectory() as scratch:
        for seed in options.seeds:
            for name in names:
                if any((one.name, one.seed) == (name, seed) for one in found):
                    continue
                if name in DEAD_SHARES:
                    one = dead_share(name, seed)
                else:
                    bench = bench or Bench(
                        options.tokens, Path(scratch), python, options.sample, options.options
                    )
                    one = bench.train(name, seed)
                found.append(one)
                print(
                    f"{name:14} {seed:4} {one.fvu:8.4f} {one.fvu_all:8.4f} {one.l0:6.1f} "
                    f"{one.dead_share:7.2%} {one.seconds:7.0f}"
                    + "".join(f"  {key} {value:.4f}" for key, value in one.more.items()),
                    flush=True,
                )
                write_report(
                    options.out, settings, summary(found), saes=[asdict(one) for one in found]
                )
    for row in summary(found):
        print(row.line())
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()

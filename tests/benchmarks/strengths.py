"""Processor time of texts of five strengths written in one batch / one strength after the other.

    python tests/benchmarks/strengths.py WORKSPACE [--sae SAE] [--n 4 16 64]

Both by turns, on four prompts with `n` continuations in all; the median ratio of the rounds, and
how many of the texts are the same.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

from mi_crow.language_model.generation import Sampling
from mi_crow.mechanistic.steering.effects import Written, write_together
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.mechanistic.steering.loading import LoadedSae, load_for_work
from mi_crow.mechanistic.steering.measure.arms import Arm
from mi_crow.mechanistic.steering.measure.config import STRENGTHS
from mi_crow.mechanistic.steering.steer import steering
from mi_crow.store.workspace import Workspace

PROMPTS = ("The ferry", "Knead the dough", "In the morning", "There was a")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace")
    parser.add_argument("--sae")
    parser.add_argument("--feature", default="42=floor 0.3norm on generated")
    parser.add_argument("--n", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    workspace = Workspace.open(options.workspace)
    sae_id = options.sae or workspace.list_saes()[0].sae_id
    loaded = load_for_work(workspace, sae_id, options.device)
    arm = Arm((parse_intervention(options.feature),))
    for n in options.n:
        ratios, same = [], 0
        for _ in range(options.rounds):
            spent, together = timed(lambda n=n: written(loaded, arm, n, STRENGTHS, options.tokens))
            more, alone = timed(
                lambda n=n: [
                    one
                    for strength in STRENGTHS
                    for one in written(loaded, arm.scaled(strength), n, (1.0,), options.tokens)
                ]
            )
            ratios.append(spent / more)
            texts = zip(texts_of(together), texts_of(alone), strict=True)
            same = sum(one == other for one, other in texts)
        all_texts = n * len(STRENGTHS)
        print(f"n = {n:<4} {median(ratios):.2f}   {same} of {all_texts} texts the same", flush=True)


def written(
    loaded: LoadedSae, arm: Arm, n: int, strengths: tuple[float, ...], tokens: int
) -> list[Written]:
    sampling = Sampling(tokens, 0.8, seed=1)
    with steering(loaded.lm, loaded.sae, loaded.layer, arm.interventions):
        return write_together(loaded.lm, PROMPTS, sampling, n, strengths)


def timed(work: Callable[[], list[Written]]) -> tuple[float, list[Written]]:
    begun = time.process_time()
    found = work()
    return time.process_time() - begun, found


def texts_of(found: list[Written]) -> list[str]:
    return [text for one in found for text in one.texts]


if __name__ == "__main__":
    main()

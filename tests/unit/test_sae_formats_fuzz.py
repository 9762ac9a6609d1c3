"""Mutated files of every format: read as they say, or refused in one sentence. No tracebacks."""

import random
import shutil
import traceback
from collections import Counter
from pathlib import Path

import pytest
import torch

from mi_crow.errors import MiCrowError
from mi_crow.mechanistic.sae import SparseAutoencoder, load_sae
from tests.helpers.sae_files import D
from tests.helpers.sae_mutations import SUBJECTS, Subject, complaint, configuration, made, mutate

X = torch.randn(8, D, generator=torch.Generator().manual_seed(1)) * 2


def computed(sae: SparseAutoencoder) -> tuple[str, torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        out = sae(X.to(sae.dtype))
        return type(sae).__name__, sae.encode(X.to(sae.dtype)).float(), out.reconstruction.float()


def mutants(subject: Subject, count: int, seed: int, folder: Path) -> list[str]:
    """What went wrong with `count` mutants of a file, each in one line."""
    rng = random.Random(f"{subject.maker} {seed}")
    place, trap = folder / "in", folder / "trap"
    files = made(subject, place)
    base, before = configuration(files), computed(load_sae(place))
    wrong = []
    outcomes: Counter[str] = Counter()
    for number in range(count):
        mutant = mutate(subject, files, rng, trap)
        for name, content in mutant.files.items():
            (place / name).write_bytes(content)
        said = ""
        try:
            after = computed(load_sae(place))
        except MiCrowError as error:
            outcomes["refused"] += 1
            if "\n" in error.sentence or len(error.sentence) > 1500:
                said = f"was refused in {error.sentence[:200]!r}"
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            said = f"gave {error!r:.200} at {last.filename}:{last.lineno}"
        else:
            outcomes["taken"] += 1
            said = complaint(subject, base, mutant, before, after)
        if said:
            wrong.append(f"{number}: {mutant.what} {said}")
    assert not trap.exists()
    assert outcomes["refused"] > count // 5  # the mutations do something
    shutil.rmtree(place)
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_a_mutated_file_is_refused_or_read_as_it_says(name: str, tmp_path: Path) -> None:
    subjects = SUBJECTS[name]
    for subject in subjects:
        wrong = mutants(subject, 50 // len(subjects), 0, tmp_path / subject.maker)
        assert not wrong, "\n".join(wrong[:10])


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_hundreds_of_mutated_files(name: str, tmp_path: Path) -> None:
    subjects = SUBJECTS[name]
    for subject in subjects:
        wrong = mutants(subject, 500 // len(subjects), 1, tmp_path / subject.maker)
        assert not wrong, f"{len(wrong)} of them\n" + "\n".join(wrong[:20])

"""Damaged files of published families: read, or refused in one sentence, never a traceback."""

import json
import random
import traceback
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
import yaml

from mi_crow.errors import MiCrowError
from mi_crow.mechanistic.sae import load_sae

FIXTURES = Path(__file__).parents[1] / "fixtures" / "sae_families"
FAMILIES = (
    "apollo_e2e",
    "ckkissane_hook_z",
    "deepseek_r1_qresearch",
    "gemma_scope_2_clt_affine",
    "gemma_scope_2_crosscoder",
    "gemma_scope_2_transcoder_affine",
    "gemma_scope_transcoder",
    "goodfire_8b",
    "llama_scope_r1_distill",
    "llamascopium_clt",
    "llamascopium_transcoder_topk",
    "mntss_clt_jumprelu",
    "mntss_skip_transcoders",
    "opensae_shift_back",
    "qwen_scope",
)
_ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    0.5,
    1e308,
    10**40,
    float("nan"),
    "",
    "x",
    "../../etc",
    "model.layers.{}.output",
    [],
    [1],
    {},
    {"a": {}},
)


def mutate(folder: Path, rng: random.Random) -> str:
    """Damages one file below `folder` and says how."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "expected.safetensors"
    ]
    path = rng.choice(files)
    if path.suffix in (".json", ".yaml") and rng.random() < 0.8:
        load, dump = (json.loads, json.dumps) if path.suffix == ".json" else (_load, yaml.safe_dump)
        values = load(path.read_text())
        key, odd = rng.choice(list(values)), rng.choice(_ODD)
        if rng.random() < 0.25:
            del values[key]
        else:
            values[key] = odd
        path.write_text(dump(values))
        return f"{path.name}: {key} = {odd!r}"
    content = bytearray(path.read_bytes())
    if rng.random() < 0.4:
        del content[rng.randrange(len(content)) :]
        what = f"cut at {len(content)}"
    else:
        at = [rng.randrange(min(len(content), 400)) for _ in range(rng.randint(1, 4))]
        for place in at:
            content[place] = rng.randrange(256)
        what = f"bytes {at}"
    path.write_bytes(content)
    return f"{path.name}: {what}"


def _load(text: str) -> Any:
    return yaml.safe_load(text)


def mutants(name: str, count: int, folder: Path) -> list[str]:
    """What went wrong with `count` damaged copies of a case."""
    rng, wrong, refused = random.Random(name), [], 0
    for number in range(count):
        place = folder / str(number)
        copytree(FIXTURES / name, place)
        what = mutate(place, rng)
        try:
            sae = load_sae(place, layer="0" if name == "mntss_skip_transcoders" else None)
            with torch.no_grad():
                sae(torch.ones(2, sae.n_inputs))
        except MiCrowError as error:
            refused += 1
            if "\n" in error.sentence or len(error.sentence) > 1500:
                wrong.append(f"{what}: refused in {error.sentence[:200]!r}")
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            wrong.append(f"{what}: {error!r:.200} at {last.filename}:{last.lineno}")
    assert refused > count // 6  # the damage does something
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_damaged_file_is_refused_or_read(name: str, tmp_path: Path) -> None:
    wrong = mutants(name, 20, tmp_path)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_many_damaged_files(name: str, tmp_path: Path) -> None:
    wrong = mutants(name, 60, tmp_path)
    assert not wrong, f"{len(wrong)} of them\n" + "\n".join(wrong[:20])

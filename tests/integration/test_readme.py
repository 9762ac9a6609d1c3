"""The README's Python example runs as it stands there."""

import json
import re
from itertools import islice
from pathlib import Path

import pytest

from mi_crow.datasets import TextDataset
from sample_data import corpus_path

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
def test_the_library_example_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)
    with (tmp_path / "my_texts.jsonl").open("w", encoding="utf-8") as file:
        for text in islice(TextDataset.from_local(corpus_path()), 40):
            file.write(json.dumps({"text": text}) + "\n")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(example, str(README), "exec"), names)
    names["lm"].detach_sae()

    assert (tmp_path / "my-workspace" / "activations" / names["run_id"]).is_dir()
    assert {"loss", "r2", "l0", "dead_features"} <= set(names["history"])
    assert names["top_texts"][names["strongest"]][0][0] == names["text"]
    # It prints the steered and the plain continuation, and they are not the same one.
    lm, config = names["lm"], names["sae"].concepts.get_manipulation_config()
    plain = lm.generate(names["text"]).text
    printed = capsys.readouterr().out
    assert config == {names["strongest"]: 4.0}
    assert printed.endswith(f"{plain}\n")
    assert printed.removesuffix(f"{plain}\n") not in ("", f"{plain}\n")

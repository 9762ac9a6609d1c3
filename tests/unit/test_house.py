"""The shape of the code itself: no import circles, no file or folder too large to take in."""

from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_LINES = 400
MOST_FILES = 20
# One file per published format: a list, not a room to find one's way in.
EXEMPT_FOLDERS = {"mi_crow/mechanistic/sae/formats"}

SOURCES = [path for package in ("mi_crow", "tui") for path in (ROOT / package).rglob("*.py")]


def test_no_module_imports_one_that_imports_it_back() -> None:
    """Imports inside functions count; those for type checkers do not."""
    grimp = pytest.importorskip("grimp", reason="comes with import-linter, in the extra `dev`")
    graph = grimp.build_graph("mi_crow", "tui", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_no_file_is_long() -> None:
    styles = (ROOT / "tui").rglob("*.tcss")
    read = [*SOURCES, *styles]
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in read}
    assert {path: n for path, n in lines.items() if n > MOST_LINES} == {}


def test_no_folder_holds_many_files() -> None:
    files = Counter(str(path.parent.relative_to(ROOT)) for path in SOURCES)
    large = {folder: n for folder, n in files.items() if n > MOST_FILES}
    assert large.keys() <= EXEMPT_FOLDERS


def test_the_script_for_gpus_runs_every_test_that_needs_one() -> None:
    from tests.gpu.run import GPU_TESTS, Step, judged

    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    marked = [str(one.relative_to(ROOT)) for one in tests if "mark.gpu\n" in one.read_text()]
    assert sorted(GPU_TESTS) == marked
    step = Step("evaluate", (), limits=(("other_sets", 0.001), ("absent", 1.0)))
    rows = [judged(step, {"other_sets": share}) for share in (0.0001, 0.01)]
    assert [[row["met"] for row in one] for one in rows] == [[True], [False]]

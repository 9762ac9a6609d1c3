"""What README and the pages in .github name exists: paths, modules, the public API and commands."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from mi_crow.cli.entry import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / ".github").glob("*.md"))]
FOLDERS = ("mi_crow", "tui", "sample_data", "tests", ".github", ".ci")
PUBLIC = re.compile(r"^\| `(mi_crow[\w.]*)` \| (.*) \|$", re.M)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@each_page
def test_paths_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    starts = "|".join(re.escape(folder) for folder in FOLDERS)
    named = set(re.findall(rf"(?<![\w./<-])((?:{starts})/[\w./-]*[\w/])", text))
    links = set(re.findall(r"\]\(([\w./-]+)\)", text))
    assert not sorted(name for name in named if not (ROOT / name).exists())
    assert not sorted(link for link in links if not (page.parent / link).exists())


@each_page
def test_dotted_names_exist(page: Path) -> None:
    names = set(
        re.findall(r"(?<![\w./-])((?:mi_crow|tui)(?:\.(?!py\b)\w+)+)", page.read_text("utf-8"))
    )
    assert not sorted(name for name in names if not found(name))


def found(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    try:
        import_module(name)
        return True
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return bool(module) and found(module) and hasattr(import_module(module), attribute)


@each_page
def test_commands_exist(page: Path) -> None:
    lines = re.findall(r"^    mi-crow (?:--\w+ \S+ )*([a-z]+)\b", page.read_text("utf-8"), re.M)
    inline = re.findall(r"`mi-crow ([a-z]+)\b", page.read_text("utf-8"))
    assert not {*lines, *inline} - set(COMMANDS)


def test_the_public_api_is_listed_as_it_is() -> None:
    """ARCHITECTURE.md lists the `__all__` of every package that has one, and each name loads."""
    rows = dict(PUBLIC.findall((ROOT / ".github" / "ARCHITECTURE.md").read_text("utf-8")))
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "mi_crow").rglob("__init__.py")
        if "\n__all__ = " in path.read_text("utf-8")
    }
    assert set(rows) == packages
    for package, names in rows.items():
        module = import_module(package)
        assert sorted(re.findall(r"`(\w+)`", names)) == sorted(module.__all__), package
        assert all(getattr(module, name) is not None for name in module.__all__)

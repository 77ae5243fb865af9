"""The benchmarks: their page lists every command, and their modules import only what exists."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
PAGES = [FOLDER / "README.md", ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(FOLDER.rglob("*.py"))
    if path.name != "__init__.py"
}
COMMANDS = [
    name
    for name, path in MODULES.items()
    if "ArgumentParser" in path.read_text(encoding="utf-8") or "options()" in path.read_text(encoding="utf-8")
]


def commands_in(page: Path) -> set[str]:
    return set(re.findall(r"python -m (benchmarks[\w.]+)", page.read_text(encoding="utf-8")))


def test_the_page_of_the_benchmarks_lists_every_command() -> None:
    assert commands_in(FOLDER / "README.md") == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_commands_that_exist(page: Path) -> None:
    assert commands_in(page) <= set(COMMANDS)
    assert not re.findall(r"python benchmarks/", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_names_that_exist(name: str) -> None:
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            ("benchmarks", "search", "trainables")
        ):
            assert node.module
            spec = importlib.util.find_spec(node.module)
            assert spec is not None, node.module
            assert spec.origin is not None
            tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
            bound = {
                *(n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)),
                *(
                    t.id
                    for n in ast.walk(tree)
                    if isinstance(n, ast.Name)
                    for t in [n]
                    if isinstance(n.ctx, ast.Store)
                ),
                *(
                    a.asname or a.name
                    for n in ast.walk(tree)
                    if isinstance(n, ast.ImportFrom)
                    for a in n.names
                ),
            }
            lazy = node.module in ("search", "search.registry")
            missing = [] if lazy else [a.name for a in node.names if a.name not in bound]
            assert not missing, f"{name}:{node.lineno}: {node.module} has no {', '.join(missing)}"


def test_a_command_starts_from_the_root_of_the_repository() -> None:
    command = [sys.executable, "-m", "benchmarks.studies.infeasible_proposals", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--trials" in done.stdout

"""The structure of the code: imports between folders run one way, and no folder is crowded."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From top to bottom: a folder may import from folders of its own row's number or below it, never from above. Folders of
# one row are independent of each other.
ROWS: tuple[tuple[str, ...], ...] = (
    ("search.cli",),
    ("search.commands",),
    ("search.study",),
    ("search.study.winner",),
    ("search.doctor",),
    ("search.views", "search.registry.inference"),
    ("search.registry",),
    ("search.report",),
    ("search.report.charts",),
    ("search.report.analysis",),
    ("search.execution", "search.tracking"),
    ("search.execution.engines",),
    ("search.execution.cluster",),
    ("search.ledger",),
    ("search.ledger.sampling",),
    ("search.config",),
    ("search.records.stats",),
    ("search.records", "search.fault_injection"),
    ("trainables.testing",),
    ("trainables.methods", "trainables.serving"),
    ("trainables.training",),
    ("trainables.batched_heads",),
    ("trainables.compiled", "trainables.transferability"),
    ("trainables.activations",),
    ("trainables.modalities.image",),
    ("trainables.modalities.image.print_backbone",),
    ("trainables.data", "trainables.backbones"),
    ("trainables.data.inputs",),
    ("trainables",),
)
RANK = {folder: rank for rank, row in enumerate(ROWS) for folder in row}
MOST_MODULES = 15


def modules() -> dict[str, Path]:
    """All modules of the two packages by their dotted names."""
    found = {}
    for path in chain(ROOT.glob("search/**/*.py"), ROOT.glob("trainables/**/*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = path
    return found


MODULES = modules()


def imported(module: str) -> Iterator[tuple[int, str]]:
    """Line and name of every module of ours that ``module`` imports, at the top, in a function, or for its types."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [
                whole if (whole := f"{node.module}.{alias.name}") in MODULES else node.module
                for alias in node.names
            ]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name in MODULES and name != module)


def folder_of(module: str) -> str:
    """The folder to which a module belongs; modules of the top folder ``search`` are folders of their own here."""
    if module in RANK:
        return module
    parent = module.rpartition(".")[0]
    return parent if parent in RANK or not parent else folder_of(parent)


def upward(module: str) -> list[str]:
    rank = RANK.get(folder_of(module))
    assert rank is not None, f"{module}: expected a folder that ROWS lists"
    wrong = []
    for line, name in imported(module):
        other = folder_of(name)
        same_row = RANK[other] == rank and other != folder_of(module)
        if RANK[other] < rank or same_row:
            wrong.append(f"{MODULES[module].relative_to(ROOT)}:{line} imports {name}")
    return wrong


def test_every_module_belongs_to_a_folder_of_the_order() -> None:
    assert not [name for name in MODULES if name != "search" and folder_of(name) not in RANK]


def test_imports_between_folders_run_downwards() -> None:
    # `search/__init__.py` re-exports the public names of the layers below it.
    assert [line for name in MODULES if name != "search" for line in upward(name)] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    import graphlib

    graph = {name: {other for _, other in imported(name)} for name in MODULES if name != "search"}
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"expected no circle of imports, received {' -> '.join(reversed(error.args[1]))}")


def test_no_folder_is_crowded() -> None:
    count: dict[str, int] = {}
    for path in MODULES.values():
        if path.name != "__init__.py":
            parent = str(path.parent.relative_to(ROOT))
            count[parent] = count.get(parent, 0) + 1
    assert {folder: number for folder, number in count.items() if number > MOST_MODULES} == {}


def exists(reference: str) -> bool:
    """Whether a dotted name of ours is a module, or what one defines or imports."""
    if reference.split(".")[0] not in ("search", "trainables"):
        return True
    name = reference
    while name not in MODULES and "." in name:
        name = name.rpartition(".")[0]
    if name == reference:
        return True
    head, _, rest = reference.removeprefix(f"{name}.").partition(".")
    text = MODULES[name].read_text(encoding="utf-8")
    return all(re.search(rf"\b{re.escape(part)}\b", text) for part in (head, *rest.split(".")) if part)


def test_references_in_docstrings_exist() -> None:
    pattern = re.compile(r":(?:mod|class|func|meth|attr|data|exc):`~?([\w.]+)`")
    wrong = [
        f"{path.relative_to(ROOT)}: {reference}"
        for path in MODULES.values()
        for reference in pattern.findall(path.read_text(encoding="utf-8"))
        if not exists(reference)
    ]
    assert wrong == []

"""What ``unfreeze backbones`` lists: a table that ships with the package, so that nothing need be built.

``python -m trainables.modalities.image.catalogue`` makes it anew, from every model with random weights (some
minutes, 4 GB).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

_TABLE = "catalogue.json"


@dataclass(frozen=True)
class CatalogueEntry:
    """One backbone: ``input_size`` in pixels a side, ``blocks`` is the greatest ``unfreeze_depth``."""

    name: str
    input_size: int
    parameters: int
    blocks: int


def catalogue() -> list[CatalogueEntry]:
    """All backbones that have a name, the built-in one first."""
    text = resources.files("trainables.modalities.image").joinpath(_TABLE).read_text(encoding="utf-8")
    return [CatalogueEntry(**row) for row in json.loads(text)]


def measure(name: str) -> CatalogueEntry:
    """The entry of backbone ``name``, found by building it with random weights."""
    from trainables.backbones.backbone import BackboneSpec, load

    backbone = load(BackboneSpec(name, weights="none"))
    return CatalogueEntry(backbone.name, backbone.input_size[0], backbone.parameters, len(backbone.blocks))


def main() -> None:
    """Write the table beside this file."""
    from trainables.modalities.image.applications import APPLICATIONS

    entries = []
    for name in ("print", *APPLICATIONS):
        entries.append(measure(name))
        print(entries[-1])
    rows = ",\n".join(json.dumps(asdict(entry)) for entry in entries)
    Path(__file__).with_name(_TABLE).write_text(f"[\n{rows}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()

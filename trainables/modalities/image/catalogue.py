"""What ``unfreeze backbones`` lists: a table that ships with the package, so that nothing need be built.

``python -m trainables.modalities.image.catalogue_table`` makes it anew, from every model with random weights (some
minutes, 4 GB).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

TABLE = "catalogue.json"


@dataclass(frozen=True)
class CatalogueEntry:
    """One backbone: ``input_size`` in pixels a side, ``blocks`` is the greatest ``unfreeze_depth``."""

    name: str
    input_size: int
    parameters: int
    blocks: int


def catalogue() -> list[CatalogueEntry]:
    """All backbones that have a name, the built-in one first."""
    text = resources.files("trainables.modalities.image").joinpath(TABLE).read_text(encoding="utf-8")
    return [CatalogueEntry(**row) for row in json.loads(text)]

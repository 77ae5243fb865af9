"""Reads the table of backbones that ``unfreeze backbones`` lists. It ships with the package, so no model is built.

``python -m trainables.modalities.image.catalogue_table`` measures it again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

from trainables.modalities.image.efficientnet_lite0.weight_packages import find_weight_package

TABLE = "catalogue.json"


@dataclass(frozen=True)
class CatalogueEntry:
    """One backbone.

    Attributes:
        name: as ``--backbone`` takes it.
        input_size: default height and width in pixels.
        parameters: number of weights, trainable or not.
        blocks: number of blocks, the largest ``unfreeze_depth``.
    """

    name: str
    input_size: int
    parameters: int
    blocks: int

    @property
    def install_hint(self) -> str | None:
        """The command that installs the pretrained weights; None if they are installed or are downloaded."""
        package = find_weight_package(self.name)
        return None if package is None or package.installed else package.install_hint


def catalogue() -> list[CatalogueEntry]:
    """Return all backbones that have a name, the built-in one first."""
    text = resources.files("trainables.modalities.image").joinpath(TABLE).read_text(encoding="utf-8")
    return [CatalogueEntry(**row) for row in json.loads(text)]

"""Builds every known backbone with random weights and writes the table ``catalogue.json``.

Run ``python -m trainables.modalities.image.catalogue_table`` after a change of the blocks or of the applications. It
takes some minutes and 4 GB of memory.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from trainables.modalities.image.catalogue import TABLE, CatalogueEntry


def measure(name: str) -> CatalogueEntry:
    """Build the backbone ``name`` with random weights and return its entry."""
    from trainables.backbones.spec import BackboneSpec
    from trainables.modalities.image.backbones import load

    backbone = load(BackboneSpec(name, weights="none"))
    return CatalogueEntry(backbone.name, backbone.input_size[0], backbone.parameters, len(backbone.blocks))


def main() -> None:
    """Measure all backbones and write the table next to this file."""
    from trainables.modalities.image.applications import APPLICATIONS
    from trainables.modalities.image.efficientnet_lite0.weight_packages import WEIGHT_PACKAGES

    entries = []
    for name in ("print", *(package.backbone for package in WEIGHT_PACKAGES), *APPLICATIONS):
        entries.append(measure(name))
        print(entries[-1])
    rows = ",\n".join(json.dumps(asdict(entry)) for entry in entries)
    Path(__file__).with_name(TABLE).write_text(f"[\n{rows}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()

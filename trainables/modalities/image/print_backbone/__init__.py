"""The built-in backbone ``print``: pretrained on printed characters, its weights shipped with the package.

``print.keras`` maps (N, 32, 32, 3) float32 raw pixels 0..255 to (N, C) globally average-pooled features.
``pretrain.py`` makes it from fonts; fonts are needed only there, never where the backbone is used.
"""

from __future__ import annotations

from pathlib import Path

NAME = "print"
CUTS = ("stage1_pool", "stage2_pool", "stage3_pool")
"""Layers whose output separates the four blocks, bottom to top; each is the one live tensor there."""


def weights_path() -> Path:
    """The shipped Keras file."""
    return Path(__file__).with_name("print.keras")

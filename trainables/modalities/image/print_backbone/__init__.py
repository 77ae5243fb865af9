"""The built-in backbone ``print``, pretrained on printed characters. Its weights ship with the package.

``print.keras`` maps (N, 32, 32, 3) float32 raw pixels 0..255 to (N, C) globally average-pooled features.
``pretrain.py`` trains it on characters rendered from fonts; fonts are needed only for that.
"""

from __future__ import annotations

from pathlib import Path

NAME = "print"
CUTS = ("stage1_pool", "stage2_pool", "stage3_pool")
"""Layers whose output separates the four blocks, bottom to top; each is the only live tensor at its point."""


def weights_path() -> Path:
    """Return the path of the shipped Keras file."""
    return Path(__file__).with_name("print.keras")

"""Draw the figures of the report: one module per figure, each a function of a search record."""

from __future__ import annotations

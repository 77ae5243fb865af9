"""The figures of the report, one file each; every one is a function of a search record."""

from __future__ import annotations

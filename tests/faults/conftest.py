"""Ledgers to damage, to put away and to fight over."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from search.ledger import Ledger

OpenLedger = Callable[..., Ledger]


@pytest.fixture
def open_ledger() -> OpenLedger:
    """Opens the study ``name`` at a URL, or begins it."""

    def opened(url: str, name: str = "a search", *, sampler: str = "random", seed: int = 0) -> Ledger:
        return Ledger(
            url,
            name,
            direction="maximize",
            metric="val_accuracy",
            method="finetune",
            sampler=sampler,
            seed=seed,
        )

    return opened

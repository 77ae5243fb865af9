"""The methods by name: how knowledge is transferred."""

from __future__ import annotations

from trainables.align import Align
from trainables.distill import Distill
from trainables.errors import UsageError
from trainables.remembering import RememberingFineTune
from trainables.reweight import Reweight
from trainables.scratch import Scratch
from trainables.source_only import SourceOnly
from trainables.training import Training, TrialConfig
from trainables.workbench import Workbench

METHODS: dict[str, type[Training]] = {
    "finetune": RememberingFineTune,
    "reweight": Reweight,
    "align": Align,
    "distill": Distill,
    "scratch": Scratch,
    "source": SourceOnly,
}


def begin(config: TrialConfig, bench: Workbench) -> Training:
    """Begin a trial under the method that ``config`` names."""
    if config.method not in METHODS:
        raise UsageError(f"method: expected one of {', '.join(METHODS)}, received {config.method!r}")
    return METHODS[config.method](config, bench)

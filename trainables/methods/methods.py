"""The methods by name: how knowledge is transferred."""

from __future__ import annotations

from trainables.errors import UsageError
from trainables.methods.align import Align
from trainables.methods.baselines import Scratch, SourceOnly
from trainables.methods.distill import Distill
from trainables.methods.remember import RememberingFineTune
from trainables.methods.reweight import Reweight
from trainables.training.training import Training
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

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

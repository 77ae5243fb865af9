"""What can be told to be wrong before anything is started, written or put away."""

from __future__ import annotations

from search.config import SearchConfig
from search.enqueue import read_enqueue
from search.environment import service_patience
from search.space import make_space
from search.warm_start import read_earlier
from search.workspace import Workspace
from trainables.datasets import DataOptions, check_data
from trainables.errors import DataError

_MOST_BLOCKS = 1000
"""How many blocks the backbone has is not known yet: no backbone has more."""


def check_inputs(config: SearchConfig, workspace: Workspace) -> None:
    """Read the space, the configurations to try first, and the data's files, columns and labels.

    Raises:
        UsageError: the space, the configurations or a variable of the environment can't be understood, or an earlier
            search has another objective.
        LedgerError: an earlier search to begin from is not there.
        DataError: the data is missing, can't be read or is unfit; its images are decoded later.
    """
    service_patience()
    several = dict.fromkeys(config.backbones, _MOST_BLOCKS) if len(config.backbones) > 1 else None
    space = make_space(
        config.space,
        _MOST_BLOCKS,
        config.method,
        config.methods,
        config.unlabelled_target,
        several,
        remember=config.remember is not None,
    )
    if config.enqueue:
        read_enqueue(config.enqueue, space)
    if config.warm_start and (config.fresh or config.ledger or not workspace.ledger.is_file()):
        read_earlier(config, workspace)
    check_data(config.data, directory=workspace.data, options=data_options(config))
    for name, data in (("source", config.source), ("remember", config.remember)):
        try:
            if data is not None:
                check_data(data, directory=workspace.data, options=data_options(config))
        except DataError as error:
            raise DataError(f"{name}: {error}") from error


def data_options(config: SearchConfig) -> DataOptions:
    """How the search reads and splits its data."""
    return DataOptions(
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        skip_bad_images=config.skip_bad_images,
        image_column=config.image_column,
        label_column=config.label_column,
        split_column=config.split_column,
    )

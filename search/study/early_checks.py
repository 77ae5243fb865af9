"""What can be told to be wrong before anything is started, written or put away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from search.config.enqueue import read_enqueue
from search.config.environment import service_patience
from search.config.search_config import SearchConfig
from search.config.space import make_space
from search.ledger.reader import read_earlier_searches
from search.ledger.workspace import Workspace
from search.study.resolved_inputs import pinned_versions
from search.tracking.stores import store_to_read
from trainables.data.class_names import shared_classes
from trainables.data.inputs.options import DataOptions
from trainables.errors import DataError, TrackingError, UsageError
from trainables.modalities.image.datasets import check_data

_MAX_BLOCKS = 1000
"""How many blocks the backbone has is not known yet: no backbone has more."""


def check_inputs(config: SearchConfig, workspace: Workspace) -> None:
    """Read the space, the configurations to try first, and the data's files, columns and labels; look whether models of
    the registry are there.

    Raises:
        UsageError: the space, the configurations or a variable of the environment can't be understood, an earlier
            search has another objective, or the source has no class of the target.
        LedgerError: an earlier search to begin from is not there.
        DataError: the data is missing, can't be read or is unfit; its images are decoded later.
        TrackingError: a backbone or teacher is no model of the registry.
    """
    service_patience()
    several = dict.fromkeys(config.backbones, _MAX_BLOCKS) if len(config.backbones) > 1 else None
    space = make_space(
        config.space,
        _MAX_BLOCKS,
        config.method,
        config.methods,
        config.unlabelled_target,
        several,
        remember=config.remember is not None,
    )
    if config.enqueue:
        read_enqueue(config.enqueue, space)
    if config.warm_start and (config.fresh or config.ledger or not workspace.ledger.is_file()):
        read_earlier_searches(config, workspace)
    classes: dict[str, tuple[str, ...]] = {}
    for name, data in (("source", config.source), ("remember", config.remember)):
        try:
            if data is not None:
                classes[name] = check_data(data, directory=workspace.data, options=data_options(config))
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
    options = target_options(config, classes.get("source", ()))
    known = check_data(config.data, directory=workspace.data, options=options)
    if config.uses_source and "source" in classes:
        shared_classes(classes["source"], known)
    _check_models(config, workspace)


def target_options(config: SearchConfig, classes: Sequence[str]) -> DataOptions:
    """How the search reads and splits its target; ``classes`` are the source's."""
    options = data_options(config)
    return replace(options, unlabelled=True, classes=tuple(classes)) if config.unlabelled_target else options


def _check_models(config: SearchConfig, workspace: Workspace) -> None:
    """Backbones and teachers out of the registry must be there: it takes a second to ask, and more to start Ray."""
    named = [("backbone", name) for name in config.backbones]
    if config.teacher is not None and config.uses_teacher:
        named.append(("teacher", config.teacher))
    known = pinned_versions(config, workspace)
    for option, name in named:
        if not name.startswith("models:/") or name in known:
            continue
        try:
            uri = store_to_read(config.tracking_uri, workspace.storage)
        except UsageError:
            raise UsageError(
                f"{option}: expected a model of a registry, received {name!r}, but {str(workspace.storage)!r} has "
                "none: name the --storage of the search that made it, or its --tracking-uri"
            ) from None
        from search.registry.downloads import check_model_exists  # MLflow takes a second to import

        try:
            check_model_exists(name, uri)
        except TrackingError as error:
            raise TrackingError(f"{option}: {str(error).removeprefix('model: ')}") from error


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

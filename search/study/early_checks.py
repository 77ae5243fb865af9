"""Checks the inputs of a search before anything is started, written or archived."""

from __future__ import annotations

from search.config.enqueue import read_enqueue
from search.config.environment import service_patience
from search.config.search_config import SearchConfig
from search.config.space import make_space
from search.ledger.reader import read_earlier_searches
from search.ledger.workspace import Workspace
from search.study.resolved_inputs import DataSources, data_options, pinned_versions, target_options
from search.tracking.stores import store_to_read
from trainables.data.class_names import shared_classes
from trainables.data.inputs.options import DataOptions
from trainables.errors import DataError, TrackingError, UsageError
from trainables.modalities.image.datasets import check_data

_MAX_BLOCKS = 1000
"""More blocks than any backbone has; how many this one has is not known before it is loaded."""


def check_inputs(config: SearchConfig, workspace: Workspace, sources: DataSources) -> None:
    """Check the search space, the configurations to try first, the data without its images, and registered models.

    Raises:
        UsageError: the space, the configurations or an environment variable are not valid, an earlier search has
            another objective, or the source has no class of the target.
        LedgerError: an earlier search to begin from does not exist.
        DataError: the data is missing, unreadable or unfit. Images are decoded later.
        TrackingError: a backbone or teacher is not in the model registry.
    """
    service_patience()
    # The number of blocks is not known yet, so depths are checked against no limit here.
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
    # A resumed search keeps a copy of what the earlier searches found, so they need not exist any more.
    if config.warm_start and (config.fresh or config.ledger or not workspace.ledger.is_file()):
        read_earlier_searches(config, workspace)
    _check_data(config, sources)
    _check_models(config, workspace)


def _check_data(config: SearchConfig, sources: DataSources) -> None:
    """Check files, columns and labels of all data."""

    def classes_of(data: str, options: DataOptions) -> tuple[str, ...]:
        source = sources.open(data, options)
        return check_data(data, directory=sources.directory, options=options, source=source)

    classes: dict[str, tuple[str, ...]] = {}
    for name, data in (("source", config.source), ("remember", config.remember)):
        try:
            if data is not None:
                classes[name] = classes_of(data, data_options(config))
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
    target_classes = classes_of(config.data, target_options(config, classes.get("source", ())))
    if config.uses_source and "source" in classes:
        shared_classes(classes["source"], target_classes)


def _check_models(config: SearchConfig, workspace: Workspace) -> None:
    """Check that backbones and teachers of the registry exist: asking takes a second, starting Ray several."""
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

"""Opens the data sources of a search, each of them once, and says how the search reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from search.config.search_config import SearchConfig
from trainables.data.inputs.options import DataOptions
from trainables.data.inputs.source import DataSource
from trainables.modalities.image.datasets import open_source


@dataclass
class DataSources:
    """The data sources of one search.

    The early checks list the files of each source; preparation lists them again for every input size. On network
    storage a listing of a large folder takes minutes, so each source is opened once.

    Attributes:
        directory: folder of prepared tasks; no part of a source even if it lies inside it.
    """

    directory: Path
    _opened: dict[tuple[str, bool], DataSource] = field(default_factory=dict)

    def open(self, data: str, options: DataOptions) -> DataSource:
        """The source ``data``, opened now or before.

        Raises:
            UsageError: ``data`` is not valid.
            DataError: the data is missing, or its files or columns are unreadable.
        """
        # All other options are the same for all sources of a search, or are not read when a source is opened.
        key = data, options.unlabelled
        if key not in self._opened:
            self._opened[key] = open_source(data, directory=self.directory, options=options)
        return self._opened[key]


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


def target_options(config: SearchConfig, source_classes: Sequence[str]) -> DataOptions:
    """How the search reads and splits its target.

    Args:
        source_classes: class names of the source; with ``--unlabelled-target`` the target takes them over.
    """
    options = data_options(config)
    if config.unlabelled_target:
        return replace(options, unlabelled=True, classes=tuple(source_classes))
    return options

"""The configuration of a search: one field for each option of ``unfreeze search``.

To add an option, add one field to :class:`SearchConfig`. Its type checks the value, its
:class:`~search.config.option_types.Option` places it in the help page, its ``description`` is the help text. The
command line and ``docs/options.md`` (:mod:`search.config.options`), the messages about wrong values
(:mod:`search.config.validation_errors`) and config files (:mod:`search.config.config_file`) follow from the field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from search.config.choices import (
    ALL_METHODS,
    METHOD_NAMES,
    METHODS,
    PREPROCESSING,
    PRIOR,
    PROBE,
    REQUIRED_OPTIONS,
    SAMPLER_NAMES,
    SCHEDULER_NAMES,
)
from search.config.environment import DEFAULT_STORAGE
from search.config.objectives import check_sampler, direction, resolve_objectives
from search.config.option_types import (
    BackboneNames,
    ByteCount,
    CacheText,
    Duration,
    FolderName,
    GpuShare,
    JsonlText,
    Number,
    ObjectiveNames,
    Option,
    PathText,
    ReuseText,
    SearchNames,
    SpaceText,
    StorageText,
    Text,
    Url,
    Weights,
    WholeNumber,
)
from search.config.parameters import SPACES
from search.config.validation_errors import validation_message
from search.records.epoch_plan import EPOCH_LIMITS, TARGET_STEPS
from search.records.metrics import EPOCH_METRICS, METRICS, SERVING_COSTS, Direction
from trainables.errors import UsageError
from trainables.numerics import JIT, PRECISIONS
from trainables.reuse import DEFAULT_VIEWS, REUSABLE_PARTS, Reuse
from trainables.training.trial_config import BATCH_NORM


def _and(names: Iterable[str]) -> str:
    """Return ``a, b and c``, with each name marked as code."""
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} and {last}" if others else last


def _methods_requiring(option: str) -> str:
    return _and(name for name, method in METHODS.items() if option in method.required_options)


def _metric_choices(names: Iterable[str]) -> dict[str, str]:
    return {name: f"{METRICS[name].help}; {METRICS[name].direction}d" for name in names}


class SearchConfig(BaseModel):
    """The options of a search, checked and frozen.

    Paths are text, relative to the working directory; a leading ``~/`` stands for the home directory. ``None`` means
    that the value follows from other options, as the ``unset`` of the field's :class:`Option` describes.

    Raises:
        UsageError: one or more values are wrong; the message has one line for each problem.

    >>> SearchConfig(data="photos/", backbone="MobileNetV2", trials=40).batch_size
    32
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )

    data: Annotated[PathText, Option("data", "digits|DIR|FILE.parquet", input_path=True)] = Field(
        "digits",
        description="Images to learn from: `digits` (scikit-learn's handwritten digits, built in), a folder of "
        "images, or a Parquet or Arrow file.",
    )
    source: Annotated[PathText | None, Option("data", "digits|DIR|FILE.parquet", input_path=True)] = Field(
        None,
        description="Second dataset to transfer from, in any form that --data accepts. Its classes are matched to "
        f"those of --data by name. The methods {_methods_requiring('source')} require it.",
    )
    unlabelled_target: Annotated[bool, Option("data")] = Field(
        False,
        description="Train without labels of --data. Only the labels of its test images are read, and trials are "
        "compared by `val_loss` unless --metric or --objective is given.",
    )
    validation_fraction: Annotated[Number, Option("data", "X")] = Field(
        0.2,
        gt=0,
        le=0.5,
        description="Fraction of the images that form the validation split if the data has none.",
    )
    test_fraction: Annotated[Number, Option("data", "X")] = Field(
        0.2, gt=0, le=0.5, description="Fraction of the images that form the test split if the data has none."
    )
    image_column: Annotated[Text | None, Option("data", "COLUMN", unset="found by name and type")] = Field(
        None, description="Column of a Parquet or Arrow file that holds the images."
    )
    label_column: Annotated[Text | None, Option("data", "COLUMN", unset="found by name and type")] = Field(
        None, description="Column of a Parquet or Arrow file that holds the labels."
    )
    split_column: Annotated[Text | None, Option("data", "COLUMN", unset="`split`, if there is one")] = Field(
        None, description="Column of a Parquet or Arrow file that names the split of each row."
    )
    skip_bad_images: Annotated[bool, Option("data")] = Field(
        False,
        description="Leave out images that cannot be decoded. By default they end the search with a list of their "
        "names.",
    )

    backbone: Annotated[
        BackboneNames,
        Option("backbone", "NAME|FILE.keras|models:/NAME@ALIAS", repeatable=True, input_path=True),
    ] = Field(
        "print",
        description="Pretrained network: `print` (built in), a name that `unfreeze backbones` lists, a Keras "
        "file, or a registered model. If several are given, the backbone is a parameter of the search.",
    )
    weights: Annotated[Weights, Option("backbone", "default|imagenet|none|FILE", input_path=True)] = Field(
        "default",
        description="Initial weights of the backbone: `default` (its own pretrained weights), `imagenet` "
        "(all named networks but `print`), `none` (random), or a weights file, which fits one backbone only.",
    )
    teacher: Annotated[
        PathText | None, Option("backbone", "NAME|FILE.keras|models:/NAME@ALIAS", input_path=True)
    ] = Field(
        None,
        description="Larger backbone to learn from, named as for --backbone. It sees the images at its own input "
        f"size. The method {_methods_requiring('teacher')} requires it.",
    )
    teacher_weights: Annotated[Weights, Option("backbone", "default|imagenet|none|FILE", input_path=True)] = (
        Field("default", description="Weights of the teacher, as for --weights.")
    )
    input_size: Annotated[
        WholeNumber | None, Option("backbone", "PIXELS", unset="the backbone's own size")
    ] = Field(
        None,
        ge=8,
        le=4096,
        description="Height and width, in pixels, to which images are resized for the backbone.",
    )
    preprocessing: Annotated[str, Option("backbone", choices=PREPROCESSING)] = Field(
        "auto",
        description="Scaling of pixel values that a .keras backbone expects. Named backbones bring their own and "
        "accept `auto` only.",
    )
    batch_norm: Annotated[str, Option("backbone", choices=BATCH_NORM)] = Field(
        "auto", description="Mode of the batch normalisation layers in the unfrozen part of the backbone."
    )

    name: Annotated[FolderName | None, Option("storage", "NAME", unset="the task's name")] = Field(
        None, description="Name of the search, which is also the name of its folder in the storage."
    )
    trials: Annotated[WholeNumber, Option("trials", "N")] = Field(
        24,
        ge=1,
        le=1_000_000,
        description="Number of trials. Running the same command with a larger number extends the search.",
    )
    epochs: Annotated[
        WholeNumber | None,
        Option(
            "trials",
            "N",
            unset=f"about {TARGET_STEPS} optimizer steps: {EPOCH_LIMITS[0]} to {EPOCH_LIMITS[1]} epochs",
        ),
    ] = Field(
        None,
        ge=1,
        le=100_000,
        description="Maximum number of epochs of a trial. A search that is resumed or extended keeps its number.",
    )
    batch_size: Annotated[WholeNumber, Option("trials", "N")] = Field(
        32, ge=1, le=65_536, description="Images in a training step."
    )
    method: Annotated[str, Option("trials", choices=METHOD_NAMES)] = Field(
        "finetune", description="How knowledge is transferred."
    )
    space: Annotated[SpaceText, Option("trials", "core|full|FILE.yaml", input_path=True)] = Field(
        "core",
        description=f"Search space: `core` ({SPACES['core']}), `full` ({SPACES['full']}), or a YAML file of "
        "parameters and their ranges. Methods other than `finetune` add parameters of their own.",
    )
    enqueue: Annotated[JsonlText | None, Option("trials", "FILE.jsonl", input_path=True)] = Field(
        None,
        description="Configurations to try first: a file with one JSON object of parameters per line. The sampler "
        "chooses the parameters that a line leaves out.",
    )
    remember: Annotated[PathText | None, Option("trials", "DATA", input_path=True)] = Field(
        None,
        description="Data of an old task, in any form that --data accepts, on which the backbone shall stay "
        "accurate. Works with the method `finetune`.",
    )
    warm_start: Annotated[SearchNames | None, Option("trials", "NAME", repeatable=True)] = Field(
        None, description="Earlier search of the same storage whose best configurations are tried first."
    )
    prior: Annotated[str, Option("trials", choices=PRIOR)] = Field(
        "on", description="Whether several backbones are scored before the first trial."
    )
    probe: Annotated[str, Option("trials", choices=PROBE)] = Field(
        "on", description="Whether the frozen probe is the first trial of a search whose data has labels."
    )
    sampler: Annotated[str, Option("trials", choices=SAMPLER_NAMES)] = Field(
        "tpe", description="Optuna sampler that proposes configurations."
    )
    scheduler: Annotated[str, Option("trials", choices=SCHEDULER_NAMES)] = Field(
        "asha", description="Scheduler that stops weak trials early."
    )
    metric: Annotated[str, Option("trials", choices=_metric_choices(EPOCH_METRICS))] = Field(
        "val_accuracy", description="Metric that the search optimises."
    )
    objective: Annotated[
        ObjectiveNames, Option("trials", choices=_metric_choices(METRICS), repeatable=True)
    ] = Field(
        None,
        description="Objective of a search with several objectives, which looks for the Pareto front. The first "
        f"must be one of {_and(EPOCH_METRICS)}; the others may also be {_and(SERVING_COSTS)}, which are "
        "costs of serving the model.",
    )
    time_budget: Annotated[Duration | None, Option("trials", "TIME", unset="no limit")] = Field(
        None,
        description="Time for the trials, such as `30m` or `1h30m`. When it is over, running trials are stopped "
        "and the best one so far is confirmed. The trials of each baseline get the same time again.",
    )
    patience: Annotated[WholeNumber | None, Option("trials", "N", unset="no limit")] = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Stop after this number of finished trials in a row without an improvement.",
    )
    seed: Annotated[WholeNumber, Option("trials", "N")] = Field(
        0, ge=0, le=2**32 - 1, description="Random seed of data splits, proposals and training."
    )

    finalists: Annotated[WholeNumber, Option("winner", "N")] = Field(
        3,
        ge=1,
        le=1000,
        description="Number of the best trials that are trained again with new seeds, to choose the winner by its "
        "mean. The frozen probe is one more of them; it wins unless another one is better by more than one standard "
        "error. Applies with a single objective.",
    )
    refit: Annotated[bool, Option("winner")] = Field(
        True,
        description="Train the winner on the training and validation images together before it is measured and "
        "registered. The baselines are treated alike.",
    )
    confirm_seeds: Annotated[WholeNumber, Option("winner", "N")] = Field(
        3,
        ge=1,
        le=100,
        description="Number of random seeds with which finalists and winner are trained again before the winner is "
        "measured on the test images.",
    )
    confirm_points: Annotated[WholeNumber, Option("winner", "N")] = Field(
        5,
        ge=1,
        le=50,
        description="Maximum number of points of the Pareto front that are confirmed and registered. Applies with "
        "several objectives only.",
    )
    baseline_trials: Annotated[
        WholeNumber | None,
        Option(
            "winner",
            "N",
            unset="as many as --trials",
        ),
    ] = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Trials of each baseline with which the winner is compared. By default a baseline that trains "
        "from scratch has a third as many, of twice as many epochs, unless --epochs is given. 0 trains no baseline, "
        "and the report has no verdict.",
    )

    storage: Annotated[StorageText, Option("storage", "DIR")] = Field(
        DEFAULT_STORAGE,
        description="Folder of the search's files. On a cluster all nodes must see it under the same path.",
    )
    fresh: Annotated[bool, Option("storage")] = Field(
        False,
        description="Move an earlier search of the same name to the archive of the storage and begin anew. "
        "Nothing is deleted.",
    )
    keep_best: Annotated[WholeNumber, Option("storage", "N")] = Field(
        3,
        ge=0,
        le=1_000_000,
        description="Number of ended trials whose checkpoints are kept, the best ones; 0 keeps none.",
    )
    checkpoint_budget: Annotated[
        ByteCount | None, Option("storage", "SIZE", unset="a fifth of the free disk, at most 20 GB")
    ] = Field(
        None,
        description="Disk space that the checkpoints of the search may take, such as `2 GB`. Those of the worst "
        "trials are deleted first. Checkpoints of running trials are kept in any case.",
    )
    ledger: Annotated[Url | None, Option("storage", "URL", unset="a SQLite file in the storage")] = Field(
        None,
        description="Database of the ledger, such as `postgresql://USER:PASSWORD@HOST/DATABASE` (requires `pip "
        "install '.[postgresql]'`).",
    )
    tracking_uri: Annotated[Url | None, Option("storage", "URI", unset="a SQLite file in the storage")] = (
        Field(None, description="MLflow tracking server or database.")
    )
    model_name: Annotated[FolderName | None, Option("winner", "NAME", unset="`unfreeze-TASK`")] = Field(
        None, description="Name under which the winner is registered in MLflow."
    )
    register_model: Annotated[bool, Option("winner")] = Field(
        True, alias="register", description="Register the winner in MLflow as challenger."
    )

    max_concurrent: Annotated[
        WholeNumber | None, Option("resources", "N", unset="as many as the nodes have room for")
    ] = Field(None, ge=1, le=100_000, description="Maximum number of trials that run at the same time.")
    cpus_per_trial: Annotated[Number, Option("resources", "X")] = Field(
        1.0, gt=0, le=1024, description="CPU cores that a trial reserves."
    )
    gpus_per_trial: Annotated[GpuShare, Option("resources", "X")] = Field(
        0.0,
        ge=0,
        le=64,
        description="GPUs that a trial reserves. With a fraction, such as 0.25, trials share a GPU.",
    )
    max_retries: Annotated[WholeNumber, Option("resources", "N")] = Field(
        2,
        ge=0,
        le=1000,
        description="How often a trial whose process died or hung resumes from its checkpoint before it counts "
        "as failed. The loss of a node does not count. A trial that raises an error fails at once.",
    )
    trial_timeout: Annotated[Duration | None, Option("resources", "TIME", unset="no limit")] = Field(
        None,
        description="Longest time without a new epoch, such as `20m`, after which a trial counts as hung and is "
        "retried.",
    )
    address: Annotated[Text | None, Option("resources", "RAY", unset="Ray is started on this machine")] = (
        Field(
            None,
            description="Address of the Ray cluster to join: `HOST:PORT` of its head, or `auto` on a machine of "
            "the cluster.",
        )
    )
    precision: Annotated[str, Option("resources", choices=PRECISIONS)] = Field(
        "auto",
        description="Floating-point precision in which the backbone computes. Weights and the served model are "
        "float32.",
    )
    jit: Annotated[str, Option("resources", choices=JIT)] = Field(
        "auto", description="Whether XLA compiles the training steps."
    )

    reuse: Annotated[ReuseText, Option("reuse", "all|none|PART,PART")] = Field(
        "all",
        description="What trials reuse from each other: `all`, `none`, or a comma-separated list of "
        f"{_and(REUSABLE_PARTS)}. Switch parts off to measure what they save, or to find the cause of a problem.",
    )
    views: Annotated[WholeNumber, Option("reuse", "N")] = Field(
        DEFAULT_VIEWS,
        ge=0,
        le=10_000,
        description="Augmented versions of each image and augmentation strength, which trials share; 0 draws new "
        "ones in every epoch.",
    )
    cache: Annotated[
        CacheText | None,
        Option("reuse", "DIR|off", unset="`$UNFREEZE_CACHE`, or `~/.cache/unfreeze/activations`"),
    ] = Field(
        None,
        description="Folder on every machine for the activations of frozen blocks, or `off` to keep none on disk.",
    )
    cache_budget: Annotated[
        ByteCount | None, Option("reuse", "SIZE", unset="a fifth of the free disk, at most 10 GB")
    ] = Field(None, description="Disk space that the folder of --cache may take, such as `20 GB`.")

    @model_validator(mode="wrap")
    @classmethod
    def _check(
        cls, data: Any, handler: ModelWrapValidatorHandler[SearchConfig], info: ValidationInfo
    ) -> SearchConfig:
        """Check each value, then what must hold between values.

        A wrap validator sees pydantic's own error and raises UsageError in its place. The validation's ``context`` maps
        field names to what the user wrote, such as ``--trials`` or ``search.yaml: trials``.
        """
        labels: Mapping[str, str] = info.context or {}

        def label(key: str) -> str:
            return labels.get(key, key)

        try:
            config = handler(cls._settle_metric(data, label) if isinstance(data, dict) else data)
        except ValidationError as error:
            raise UsageError(validation_message(error, cls.model_fields, label)) from None
        config._check_fractions()
        config._check_weights(label)
        check_sampler(config.sampler, len(config.objectives))
        config._check_method_requirements(label)
        config._check_old_task_method(label)
        return config

    @staticmethod
    def _settle_metric(data: dict[str, Any], label: Callable[[str], str]) -> dict[str, Any]:
        if data.get("unlabelled_target") and not {"metric", "objective"} & set(data):
            # Without labels of the target, val_accuracy is measured on the source and may not hold for the target:
            # see trainables.methods.unlabelled_selection.
            data = {**data, "metric": "val_loss"}
        return resolve_objectives(data, label)

    def _check_fractions(self) -> None:
        if self.validation_fraction + self.test_fraction > 0.9:
            raise UsageError(
                "validation_fraction, test_fraction: expected a sum of at most 0.9 (the rest trains), "
                f"received {self.validation_fraction} + {self.test_fraction}"
            )

    def _check_weights(self, label: Callable[[str], str]) -> None:
        if len(self.backbones) > 1 and Path(self.weights).suffix:
            raise UsageError(
                f"{label('weights')}: expected default, imagenet or none where there are several backbones, received "
                f"{self.weights!r}, which fits one"
            )

    def _check_method_requirements(self, label: Callable[[str], str]) -> None:
        if not self.methods:
            raise UsageError(
                f"{label('method')}: expected a method that needs no labels of the target, with what it requires "
                f"(--source DATA), received {self.method!r}"
            )
        for name in self.methods:
            for option in METHODS[name].required_options:
                if getattr(self, option) is None:
                    raise UsageError(
                        f"{label('method')}: {name!r} expected {REQUIRED_OPTIONS[option]}, received none"
                    )
            if self.unlabelled_target and METHODS[name].needs_target_labels:
                valid = ", ".join(n for n, method in METHODS.items() if not method.needs_target_labels)
                raise UsageError(
                    f"{label('method')}: expected one of {valid} with --unlabelled-target, received {name!r}, which "
                    "needs labels"
                )

    def _check_old_task_method(self, label: Callable[[str], str]) -> None:
        if self.remember is not None and "finetune" not in self.methods:
            without = " with --unlabelled-target" if self.unlabelled_target else ""
            raise UsageError(
                f"{label('remember')}: expected --method finetune, which can remember an old task, received "
                f"{self.method!r}{without}"
            )

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that trials may have: the one that is named, or all that can run with the other options."""
        if self.method != ALL_METHODS:
            return (self.method,)
        return tuple(
            name
            for name, method in METHODS.items()
            if method.searchable
            and all(getattr(self, option) is not None for option in method.required_options)
            and not (self.unlabelled_target and method.needs_target_labels)
        )

    @property
    def uses_source(self) -> bool:
        """Whether a trial of the search or of a baseline may train on the source."""
        return any("source" in METHODS[name].required_options for name in (*self.methods, *self.baselines))

    @property
    def uses_teacher(self) -> bool:
        """Whether a trial may learn from the teacher."""
        return any("teacher" in METHODS[name].required_options for name in self.methods)

    @property
    def teacher_config(self) -> SearchConfig | None:
        """This configuration with the teacher as its backbone, or None if no trial learns from a teacher."""
        if self.teacher is None or not self.uses_teacher:
            return None
        changes = {"weights": self.teacher_weights, "input_size": None, "preprocessing": "auto"}
        return self.replace(backbone=self.teacher, **changes)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of what is optimised: one, or several."""
        return self.objective or (self.metric,)

    @property
    def backbones(self) -> tuple[str, ...]:
        """The values of ``backbone``: one, or those among which the search chooses."""
        return (self.backbone,) if isinstance(self.backbone, str) else self.backbone

    @property
    def direction(self) -> Direction:
        """Whether the objective, or the first of several, is maximised or minimised."""
        return direction(self.metric)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """For each objective, whether it is maximised or minimised."""
        return tuple(direction(name) for name in self.objectives)

    @property
    def transfers(self) -> bool:
        """Whether a trial may start from pretrained weights."""
        return any(METHODS[name].transfers for name in self.methods)

    @property
    def planned_baseline_trials(self) -> int:
        """The number of trials of each baseline; 0 if there is no baseline."""
        if not self.baselines:
            return 0
        return self.trials if self.baseline_trials is None else self.baseline_trials

    @property
    def baselines(self) -> tuple[str, ...]:
        """The methods with which the winner is compared. The report's verdict is about the first.

        A method that uses a source or a teacher has to be better than the same without it: fine-tuning on the target
        alone or, if the target has no labels, training on the source alone.
        """
        own = ("scratch",) if self.method == ALL_METHODS else METHODS[self.method].baselines
        return ("source",) if own and self.unlabelled_target else own

    @property
    def reuse_settings(self) -> Reuse:
        """What trials reuse from each other, as the engines take it."""
        parts: tuple[str, ...] = {"all": REUSABLE_PARTS, "none": ()}.get(
            self.reuse, tuple(self.reuse.split(","))
        )
        # Engines have another working directory, so a relative path of the driver must become absolute here.
        cache = self.cache if self.cache in (None, "off") else str(Path(str(self.cache)).absolute())
        return Reuse.of(parts, self.views, cache, self.cache_budget)

    def replace(self, **changes: object) -> SearchConfig:
        """Return a copy with ``changes``, checked like a new configuration.

        Raises:
            UsageError: a value is wrong.
        """
        return SearchConfig.model_validate({**self.model_dump(), **changes})

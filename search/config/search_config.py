"""What a search is asked to do: one field per option of ``unfreeze search``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from search.config.choices import ALL_METHODS, METHODS, REQUIRED_OPTIONS
from search.config.environment import OPTION_VARIABLES, options_from_environment
from search.config.objectives import check_sampler, direction, resolve_objectives
from search.config.option_types import (
    BackboneNames,
    BatchNormName,
    ByteCount,
    CacheText,
    Duration,
    FolderName,
    GpuShare,
    JitName,
    JsonlText,
    MethodName,
    MetricName,
    Number,
    ObjectiveNames,
    PathText,
    PrecisionName,
    PreprocessingName,
    PriorName,
    ReuseText,
    SamplerName,
    SchedulerName,
    SearchNames,
    SpaceText,
    StorageText,
    Text,
    Url,
    Weights,
    WholeNumber,
)
from search.config.strict_yaml import read_mapping
from search.config.validation_errors import format_key, validation_message
from search.records.metrics import SERVING_COSTS, Direction
from trainables.errors import UsageError
from trainables.reuse import DEFAULT_VIEWS, REUSABLE_PARTS, Reuse


class SearchConfig(BaseModel):
    """A search, asked for. Frozen; wrong values raise UsageError, one line a problem.

    Paths are text, relative to the working directory; a leading ``~/`` is the home directory.
    ``None`` means that the value follows from others, as the field's description says.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )

    data: PathText = Field("digits", description="digits, an image folder, or a Parquet or Arrow file")
    source: PathText | None = Field(
        None,
        description="another dataset to transfer from, read and split as --data is; classes are shared by name",
    )
    unlabelled_target: bool = Field(
        False,
        description="no label of --data but those of the test images is read, or needed; selection is by val_loss "
        "then",
    )
    validation_fraction: Number = Field(
        0.2, gt=0, le=0.5, description="share of the images for validation, where the data has no such split"
    )
    test_fraction: Number = Field(
        0.2, gt=0, le=0.5, description="share of the images for the test, where the data has no such split"
    )
    image_column: Text | None = Field(
        None, description="column of images in a Parquet file; found if not given"
    )
    label_column: Text | None = Field(
        None, description="column of labels in a Parquet file; found if not given"
    )
    split_column: Text | None = Field(None, description="column of split names in a Parquet file")
    skip_bad_images: bool = Field(False, description="leave out images that can't be read")

    backbone: BackboneNames = Field(
        "print",
        description="print (built in), a name from `unfreeze backbones`, FILE.keras or models:/NAME@ALIAS; given more "
        "than once, the search chooses among them",
    )
    weights: Weights = Field("default", description="default, imagenet, none, or a weights file")
    teacher: PathText | None = Field(
        None,
        description="a larger backbone to learn from, named as --backbone is; it sees the images at its own input size",
    )
    teacher_weights: Weights = Field(
        "default", description="of the teacher: default, imagenet, none, or a weights file"
    )
    input_size: WholeNumber | None = Field(
        None, ge=8, le=4096, description="pixels a side; the backbone's own if not given"
    )
    preprocessing: PreprocessingName = Field(
        "auto", description="what a .keras backbone expects of its pixels"
    )
    batch_norm: BatchNormName = Field("auto", description="mode of batch normalisation in the unfrozen part")

    name: FolderName | None = Field(None, description="name of the search; the task's name if not given")
    trials: WholeNumber = Field(24, ge=1, le=1_000_000, description="number of trials")
    epochs: WholeNumber = Field(20, ge=1, le=100_000, description="most epochs a trial trains")
    batch_size: WholeNumber = Field(32, ge=1, le=65_536, description="images per step")
    method: MethodName = Field("finetune", description="how knowledge is transferred")
    space: SpaceText = Field("core", description="core, full, or a YAML file of parameters")
    enqueue: JsonlText | None = Field(None, description="configurations to try first, one JSON object a line")
    remember: PathText | None = Field(
        None, description="data of an old task that the backbone shall not forget, as --data takes it"
    )
    warm_start: SearchNames | None = Field(
        None,
        description="earlier search of the same storage whose best configurations are tried first; may be given more "
        "than once",
    )
    prior: PriorName = Field(
        "on",
        description="whether several backbones are scored before the first trial, as a hint where to begin",
    )
    sampler: SamplerName = Field("tpe", description="who proposes configurations")
    scheduler: SchedulerName = Field("asha", description="who stops weak trials early")
    metric: MetricName = Field("val_accuracy", description="the objective")
    objective: ObjectiveNames = Field(
        None,
        description=(
            "several objectives, given once for each, the first of --metric's, "
            f"then {', '.join(SERVING_COSTS)} too"
        ),
    )
    time_budget: Duration | None = Field(None, description="stop starting trials after this long, as in 30m")
    patience: WholeNumber | None = Field(
        None, ge=1, le=1_000_000, description="stop after this many finished trials without a better one"
    )
    seed: WholeNumber = Field(
        0, ge=0, le=2**32 - 1, description="seed of data splits, proposals and training"
    )

    confirm_seeds: WholeNumber = Field(
        3, ge=1, le=100, description="seeds with which the winner is trained again"
    )
    confirm_points: WholeNumber = Field(
        5,
        ge=1,
        le=50,
        description="with several objectives: points of the front that are confirmed and registered",
    )
    baseline_trials: WholeNumber | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="trials of each baseline to compare with, from scratch and, where a source is used, without it; as "
        "many as --trials; 0 for none",
    )

    storage: StorageText = Field(
        "./unfreeze-runs", description="folder of the search's files; on a cluster one that all nodes share"
    )
    fresh: bool = Field(
        False, description="put an earlier search of this name away, in the storage's archive, and begin anew"
    )
    keep_best: WholeNumber = Field(
        3,
        ge=0,
        le=1_000_000,
        description="checkpoints of ended trials to keep, those of the best; 0 for none",
    )
    checkpoint_budget: ByteCount | None = Field(
        None,
        description="bytes that all checkpoints of the search may take, as in '2 GB'; a fifth of the free disk, at "
        "most 20 GB; a running trial's stay in any case",
    )
    ledger: Url | None = Field(
        None, description="database URL of the ledger; a file in the storage if not given"
    )
    tracking_uri: Url | None = Field(
        None, description="MLflow server; a SQLite file in the storage if not given"
    )
    model_name: FolderName | None = Field(None, description="registered model; unfreeze-TASK if not given")
    register_model: bool = Field(True, alias="register", description="register the winner")

    max_concurrent: WholeNumber | None = Field(None, ge=1, le=100_000, description="most trials at once")
    cpus_per_trial: Number = Field(1.0, gt=0, le=1024, description="CPU cores a trial asks for")
    gpus_per_trial: GpuShare = Field(
        0.0, ge=0, le=64, description="GPUs a trial asks for; a fraction shares one"
    )
    max_retries: WholeNumber = Field(
        2,
        ge=0,
        le=1000,
        description="how often a trial that died or hung goes on from its checkpoint before it counts as failed",
    )
    trial_timeout: Duration | None = Field(
        None,
        description="a trial that reports no epoch for this long hangs: it is ended and tried again; no limit if not "
        "given",
    )
    address: Text | None = Field(None, description="Ray cluster to join; this machine if not given")
    precision: PrecisionName = Field(
        "auto", description="what the backbone computes in; float32 unless there are GPUs with tensor cores"
    )
    jit: JitName = Field("auto", description="whether XLA compiles training steps; only where there is a GPU")

    reuse: ReuseText = Field(
        "all",
        description=f"what trials take over from each other: all, none, or some of {','.join(REUSABLE_PARTS)}",
    )
    views: WholeNumber = Field(
        DEFAULT_VIEWS,
        ge=0,
        le=10_000,
        description="distorted copies of each image for each augmentation strength, which trials share; "
        "0 for new ones in every epoch",
    )
    cache: CacheText | None = Field(
        None,
        description="folder of frozen activations on every machine, or off; "
        "$UNFREEZE_CACHE or ~/.cache/unfreeze/activations if not given",
    )
    cache_budget: ByteCount | None = Field(
        None,
        description="bytes that this folder may take, as in '20 GB'; a fifth of the free disk, at most 10 GB",
    )

    @model_validator(mode="wrap")
    @classmethod
    def _check(
        cls, data: Any, handler: ModelWrapValidatorHandler[SearchConfig], info: ValidationInfo
    ) -> SearchConfig:
        """Raise UsageError in place of pydantic's own error; ``context`` maps keys to the user's words."""
        labels: Mapping[str, str] = info.context or {}
        if (
            isinstance(data, dict)
            and data.get("unlabelled_target")
            and not {"metric", "objective"} & set(data)
        ):
            data = {
                **data,
                "metric": "val_loss",
            }  # the accuracy is the source's: see trainables.methods.unlabelled_selection
        try:
            config = handler(
                resolve_objectives(data, lambda key: labels.get(key, key)) if isinstance(data, dict) else data
            )
        except ValidationError as error:
            raise UsageError(
                validation_message(error, cls.model_fields, lambda key: labels.get(key, key))
            ) from None
        if config.validation_fraction + config.test_fraction > 0.9:
            raise UsageError(
                "validation_fraction, test_fraction: expected a sum of at most 0.9 (the rest trains), "
                f"received {config.validation_fraction} + {config.test_fraction}"
            )
        if len(config.backbones) > 1 and Path(config.weights).suffix:
            raise UsageError(
                f"{labels.get('weights', 'weights')}: expected default, imagenet or none where there are several "
                f"backbones, received {config.weights!r}, which fits one"
            )
        check_sampler(config.sampler, len(config.objectives))
        config._check_method_requirements(labels)
        config._check_old_task_method(labels)
        return config

    def _check_old_task_method(self, labels: Mapping[str, str]) -> None:
        if self.remember is not None and "finetune" not in self.methods:
            without = " with --unlabelled-target" if self.unlabelled_target else ""
            raise UsageError(
                f"{labels.get('remember', 'remember')}: expected --method finetune, which can keep an old task, "
                f"received {self.method!r}{without}"
            )

    def _check_method_requirements(self, labels: Mapping[str, str]) -> None:
        named = labels.get("method", "method")
        if not self.methods:
            raise UsageError(
                f"{named}: expected a method that needs no labels of the target and what it needs (--source DATA), "
                f"received {self.method!r}"
            )
        for method in self.methods:
            for option in METHODS[method].needs:
                if getattr(self, option) is None:
                    raise UsageError(
                        f"{named}: {method!r} expected {REQUIRED_OPTIONS[option]}, received none"
                    )
            if self.unlabelled_target and METHODS[method].labels:
                valid = ", ".join(name for name, known in METHODS.items() if not known.labels)
                raise UsageError(
                    f"{named}: expected one of {valid} with --unlabelled-target, received {method!r}: it needs labels"
                )

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that trials may have: the one that is named, or all that can run."""
        if self.method != ALL_METHODS:
            return (self.method,)
        return tuple(
            name
            for name, known in METHODS.items()
            if known.rival
            and all(getattr(self, option) is not None for option in known.needs)
            and not (self.unlabelled_target and known.labels)
        )

    @property
    def uses_source(self) -> bool:
        """Whether a trial, or one of a baseline, may train on the source."""
        return any("source" in METHODS[name].needs for name in (*self.methods, *self.baselines))

    @property
    def uses_teacher(self) -> bool:
        """Whether a trial may learn from the teacher."""
        return any("teacher" in METHODS[name].needs for name in self.methods)

    @property
    def teacher_config(self) -> SearchConfig | None:
        """The same, with the teacher in the backbone's place; None where nobody learns from one."""
        if self.teacher is None or not self.uses_teacher:
            return None
        changes = {"weights": self.teacher_weights, "input_size": None, "preprocessing": "auto"}
        return self.replace(backbone=self.teacher, **changes)

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of what is optimised: one, or several."""
        return self.objective or (self.metric,)

    @property
    def backbones(self) -> tuple[str, ...]:
        """What ``backbone`` names: one, or those among which the search chooses."""
        return (self.backbone,) if isinstance(self.backbone, str) else self.backbone

    @property
    def direction(self) -> Direction:
        """Whether the objective, of several the first, is maximised or minimised."""
        return direction(self.metric)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Of all objectives."""
        return tuple(direction(name) for name in self.objectives)

    @property
    def transfers(self) -> bool:
        """Whether the method starts from pretrained weights."""
        return any(METHODS[name].transfers for name in self.methods)

    @property
    def planned_baseline_trials(self) -> int:
        """Trials of each baseline: 0 where there is none."""
        if not self.baselines:
            return 0
        return self.trials if self.baseline_trials is None else self.baseline_trials

    @property
    def baselines(self) -> tuple[str, ...]:
        """Methods to compare with; the verdict is about the first.

        A method that uses a source or a teacher has to beat the same without it: fine-tuning on the target alone, or,
        where the target has no labels, on the source alone.
        """
        if self.method in ("scratch", "source"):
            return ()
        if self.unlabelled_target:
            return ("source",)
        sourced = self.method != ALL_METHODS and "source" in METHODS[self.method].needs
        if sourced:
            return ("finetune", "source", "scratch")
        return ("finetune", "scratch") if self.method == "distill" else ("scratch",)

    @property
    def reuse_settings(self) -> Reuse:
        """What trials take over from each other."""
        parts: tuple[str, ...] = {"all": REUSABLE_PARTS, "none": ()}.get(
            self.reuse, tuple(self.reuse.split(","))
        )
        cache = self.cache if self.cache in (None, "off") else str(Path(str(self.cache)).absolute())
        return Reuse.of(parts, self.views, cache, self.cache_budget)

    def replace(self, **changes: object) -> SearchConfig:
        """A copy with ``changes``, checked like a new one."""
        return SearchConfig.model_validate({**self.model_dump(), **changes})


def load_config(path: str | Path | None = None, flags: Mapping[str, object] | None = None) -> SearchConfig:
    """The config of a YAML file with command line ``flags`` (by field name) in the place of its keys.

    Paths in the file mean what they mean on the command line: they are relative to the working directory, not
    to the file. What neither says may stand in the environment (:mod:`search.config.environment`). Raises
    UsageError that
    names the file's key, the flag or the variable.
    """
    overrides = dict(flags or {})
    content: dict[str, Any] = {} if path is None else read_mapping(Path(path), "config file")
    if "register" in content:
        if "register_model" in content:
            raise UsageError(f"{path}: register: expected once, received register_model, too")
        content["register_model"] = content.pop("register")
    _check_relative_paths(path, content)
    for key, other in (("metric", "objective"), ("objective", "metric")):
        if key in overrides and other not in overrides:
            content.pop(other, None)  # both say what is optimised, and flags go before what the file says
    surroundings = options_from_environment()
    labels = {key: OPTION_VARIABLES[key] for key in surroundings}
    labels.update({key: f"{path}: {format_key(key)}" for key in content})
    labels.update({key: "--" + key.replace("_", "-") for key in overrides})
    return SearchConfig.model_validate({**surroundings, **content, **overrides}, context=labels)


def _check_relative_paths(path: str | Path | None, content: Mapping[str, object]) -> None:
    """Say so when a path in the file would only be found from the file's own folder."""
    keys = (
        "data",
        "source",
        "remember",
        "backbone",
        "weights",
        "teacher",
        "teacher_weights",
        "space",
        "enqueue",
    )
    for key in keys:
        held = content.get(key)
        for value in held if isinstance(held, list) else [held]:
            if path is None or not isinstance(value, str) or not (os.sep in value or Path(value).suffix):
                continue
            beside = Path(path).parent / value
            if _exists(beside) and not _exists(Path(value)):
                raise UsageError(
                    f"{path}: {key}: expected a path relative to the working directory ({Path.cwd()}), "
                    f"received {value!r}, which lies beside the config file: "
                    f"write {str(beside)!r}, or run from {str(Path(path).parent)!r}"
                )


def _exists(path: Path) -> bool:
    try:
        return path.expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False

"""Distillation losses against loops in NumPy, including the cases that break naive code; and trials with a teacher."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainables.activations.stages import PrefixStages
from trainables.backbones.backbone import Backbone
from trainables.backbones.precision import recast_backbone
from trainables.backbones.spec import BackboneSpec
from trainables.compiled.head import head_shapes, initial_weights
from trainables.compiled.program import Program
from trainables.compiled.shapes import Batches, Hyperparameters, ProgramShape
from trainables.cost_account import CostAccount
from trainables.errors import UsageError
from trainables.methods.distill import teacher_outputs
from trainables.methods.distillation_losses import (
    EMBEDDINGS,
    SCORES,
    DistillationLoss,
    angle_loss,
    distance_loss,
    relational_loss,
    soft_target_loss,
)
from trainables.methods.methods import begin
from trainables.methods.parameter_values import DISTILLATIONS
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.testing import MethodConformance
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench


def huber(difference: float) -> float:
    size = abs(difference)
    return 0.5 * size**2 if size <= 1 else size - 0.5


def distances_by_hand(teacher: np.ndarray, student: np.ndarray) -> float:
    pairs = list(itertools.permutations(range(len(teacher)), 2))
    if not pairs:
        return 0.0

    def relative(x: np.ndarray) -> list[float]:
        found = [float(np.linalg.norm(x[i] - x[j])) for i, j in pairs]
        mean = sum(found) / len(found)
        return [d / mean if mean else 0.0 for d in found]

    both = zip(relative(teacher), relative(student), strict=True)
    return sum(huber(t - s) for t, s in both) / len(pairs)


def angles_by_hand(teacher: np.ndarray, student: np.ndarray) -> float:
    triplets = list(itertools.permutations(range(len(teacher)), 3))
    if not triplets:
        return 0.0

    def cosine(x: np.ndarray, i: int, j: int, k: int) -> float:
        a, b = x[i] - x[j], x[k] - x[j]
        size = float(np.linalg.norm(a) * np.linalg.norm(b))
        return float(a @ b) / size if size else 0.0

    return sum(huber(cosine(teacher, *t) - cosine(student, *t)) for t in triplets) / len(triplets)


def plain_by_hand(teacher: np.ndarray, student: np.ndarray, temperature: float) -> float:
    def softened(scores: np.ndarray) -> np.ndarray:
        odds = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    p, q = softened(teacher), softened(student)
    terms = np.where(p > 0, p * (np.log(np.maximum(p, 1e-300)) - np.log(q)), 0.0)
    return float(temperature**2 * terms.sum(axis=1).mean())


RANDOM = np.random.default_rng(11)


def embeddings(count: int, width: int, offset: float = 0.0) -> np.ndarray:
    return (RANDOM.normal(size=(count, width)) + offset).astype(np.float32)


def repeated(x: np.ndarray) -> np.ndarray:
    """The first row three times."""
    return np.concatenate([x[:1], x[:1], x[:1], x[3:]])


CASES = {
    "usual": (embeddings(7, 5), embeddings(7, 3)),
    "one": (embeddings(1, 5), embeddings(1, 3)),
    "two": (embeddings(2, 5), embeddings(2, 3)),
    "the same sample thrice": (repeated(embeddings(6, 5)), repeated(embeddings(6, 3))),
    "alike to the student alone": (embeddings(5, 4), repeated(embeddings(5, 3))),
    "alike to the teacher alone": (repeated(embeddings(5, 4)), embeddings(5, 3)),
    "all alike": (np.ones((4, 3), np.float32), np.full((4, 2), 0.1, np.float32)),
    "float16": (embeddings(6, 5).astype(np.float16), embeddings(6, 3)),
    "far from the origin": (embeddings(6, 5, 1000.0), embeddings(6, 3, -300.0)),
    "fewer samples than features": (embeddings(3, 2048), embeddings(3, 600)),
}


@pytest.mark.parametrize("case", CASES)
def test_relational_losses_match_the_formulas(case: str) -> None:
    teacher, student = CASES[case]
    exact = teacher.astype(np.float64), student.astype(np.float64)
    with tf.GradientTape() as tape:
        variable = tf.Variable(student)
        distances = distance_loss(tf.constant(teacher), variable)
        angles = angle_loss(tf.constant(teacher), variable)
        total = distances + angles
    gradient = tape.gradient(total, variable)
    assert float(distances) == pytest.approx(distances_by_hand(*exact), rel=1e-5, abs=1e-7)
    assert float(angles) == pytest.approx(angles_by_hand(*exact), rel=1e-5, abs=1e-7)
    assert np.isfinite(gradient).all()
    both = relational_loss(tf.constant(teacher), tf.constant(student))
    assert float(both) == pytest.approx(float(distances) + 2 * float(angles), rel=1e-5, abs=1e-7)


def test_gradients_match_finite_differences() -> None:
    teacher, student = embeddings(6, 5), embeddings(6, 3)
    with tf.GradientTape() as tape:
        variable = tf.Variable(student)
        loss = relational_loss(tf.constant(teacher), variable)
    (gradient,) = tape.gradient(loss, [variable])
    direction = embeddings(6, 3)

    def at(step: float) -> float:
        moved = student.astype(np.float64) + step * direction
        exact = teacher.astype(np.float64)
        return distances_by_hand(exact, moved) + 2 * angles_by_hand(exact, moved)

    slope = (at(1e-5) - at(-1e-5)) / 2e-5
    assert float((gradient.numpy() * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_relational_loss_ignores_scale_translation_and_order() -> None:
    teacher, student = embeddings(7, 5), embeddings(7, 5)
    loss = float(relational_loss(teacher, student))
    order = RANDOM.permutation(7)
    assert float(relational_loss(teacher[order], 3 * student[order] + 2)) == pytest.approx(loss, rel=1e-4)
    assert float(relational_loss(teacher, 5 * teacher - 1)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        (embeddings(6, 4), embeddings(6, 4)),
        (embeddings(1, 4), embeddings(1, 4)),
        (50 * embeddings(6, 4), 50 * embeddings(6, 4)),
        (np.where(np.arange(4) == 2, -1e4, embeddings(5, 4)).astype(np.float32), embeddings(5, 4)),
        (np.zeros((3, 4), np.float32), np.zeros((3, 4), np.float32)),
    ],
    ids=["usual", "one", "sure", "a class that the teacher never saw", "knows nothing"],
)
def test_soft_target_loss_matches_the_formula(
    teacher: np.ndarray, student: np.ndarray, temperature: float
) -> None:
    with tf.GradientTape() as tape:
        variable = tf.Variable(student)
        loss = soft_target_loss(tf.constant(teacher), variable, tf.constant(temperature))
    expected = plain_by_hand(teacher.astype(np.float64), student.astype(np.float64), temperature)
    assert float(loss) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert np.isfinite(tape.gradient(loss, variable)).all()


@pytest.mark.parametrize(("precision", "jit"), [("float32", True), ("mixed_float16", False)])
def test_xla_and_16_bits_give_the_same_training(precision: str, jit: bool) -> None:
    x = pixels = keras.Input((2, 2, 3))
    for width in (6, 4):
        x = keras.layers.Conv2D(width, 1, activation="relu", kernel_initializer="ones")(x)
    model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))
    made = Backbone(BackboneSpec(), "chain", "none", model, starts=[0, 1])
    random = np.random.default_rng(1)
    images = random.uniform(0, 0.1, (5, 8, 2, 2, 3)).astype(np.float32)
    labels = random.integers(0, 3, (5, 8)).astype(np.int32)
    example_inputs = {
        EMBEDDINGS: random.normal(size=(5, 8, 7)).astype(np.float16),
        SCORES: random.normal(size=(5, 8, 3)).astype(np.float32),
    }
    head = initial_weights(head_shapes(4, 0, 3), seed=1)

    def loss(precision: str, jit: bool) -> float:
        shape = ProgramShape(
            2, 3, 8, True, True, 0.9, precision, jit, 0 if jit else None, DistillationLoss(7, 3), gradual=True
        )
        program = Program(
            recast_backbone(made, precision), shape, PrefixStages(made, np.zeros((1, 2, 2, 3), np.uint8))
        )
        program.compile("float32", "float32")
        _, suffix = made.parts(2)
        assert suffix is not None
        program.start(suffix.get_weights(), head)
        rates, numbers = np.full(5, 0.01, np.float32), np.tile(np.float32([1.0, 1.0, 4.0]), (5, 1))
        batches = Batches(images, labels, example_inputs=example_inputs)
        return program.train(batches, rates, np.float32([0.0, 0.5]), Hyperparameters(), (0, 0), numbers)

    plain = loss("float32", False)
    assert loss(precision, jit) == pytest.approx(plain, rel=1e-4 if precision == "float32" else 1e-2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("teaching ü")
    load(BackboneSpec("print", weights="none")).save(made / "student.keras")
    load(BackboneSpec("print", input_size=48)).save(made / "teacher.keras")
    task = prepare("digits", image_size=(32, 32), directory=made / "small")
    prepare("digits", image_size=(48, 48), directory=made / "large", like=task)
    return made


@pytest.fixture(scope="module")
def bench(folder: Path) -> Workbench:
    """A student with random weights, and a teacher on the same images at another size."""
    teacher = Workbench.open(folder / "teacher.keras", folder / "large")
    return Workbench.open(folder / "student.keras", folder / "small", teacher=lambda: teacher)


class TestDistill(MethodConformance):
    method = "distill"
    params: ClassVar[dict[str, Any]] = {
        "unfreeze_depth": 4,
        "learning_rate": 3e-3,
        "head_units": 32,
        "augmentation_strength": 0.5,
        "dropout": 0.2,
        "distillation": "both",
        "distill_weight": 1.0,
        "distill_temperature": 4.0,
    }


BASE = {"unfreeze_depth": 2, "learning_rate": 3e-3, "head_units": 0, "distillation": "both"}


def losses(bench: Workbench, method: str = "distill", **changes: Any) -> list[tuple[float, float]]:
    training = begin(TrialConfig(method, {**BASE, **changes}, epochs=2, seed=1), bench)
    found = [(m.train_loss, m.val_loss) for m in (training.run_epoch() for _ in range(2))]
    training.release()
    return found


def test_all_kinds_of_distillation_differ_and_share_one_program(bench: Workbench) -> None:
    found = [losses(bench, distillation=kind) for kind in DISTILLATIONS]
    compiled = bench.compiled
    found += [losses(bench, distill_weight=0.1), losses(bench, distill_temperature=1.0)]
    assert len({str(f) for f in found}) == len(found)
    assert bench.compiled == compiled


def test_weight_zero_is_fine_tuning(bench: Workbench) -> None:
    assert losses(bench, distill_weight=0.0) == losses(bench, method="finetune")


@pytest.mark.parametrize("depth", [0, 1])
def test_activations_of_a_student_are_kept_as_in_fine_tuning(bench: Workbench, depth: int) -> None:
    training = begin(TrialConfig("distill", {**BASE, "unfreeze_depth": depth}, epochs=2), bench)
    assert training.decision.reuse
    training.release()


def test_teacher_outputs_are_computed_once_for_all_trials(bench: Workbench) -> None:
    first = teacher_outputs(bench, CostAccount())
    account = CostAccount()
    again = teacher_outputs(bench, account)
    np.testing.assert_array_equal(first.embeddings, again.embeddings)
    np.testing.assert_array_equal(first.scores, again.scores)
    assert account.counts.misses == 0
    labels = bench.task.split("train").labels
    assert (first.scores.argmax(axis=1) == labels).mean() > 0.95


def test_a_missing_teacher_names_the_option(print_bench: Workbench) -> None:
    with pytest.raises(UsageError, match=r"teacher: expected .*--teacher BACKBONE"):
        begin(TrialConfig("distill", BASE), print_bench)


def test_a_teacher_of_other_images_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for shade in range(8):
            picture = Image.new("L", (8, 8), 16 * shade + len(name) + (name == "dog"))
            picture.save(tmp_path / "pictures" / name / f"{shade}.png")
    other = prepare(str(tmp_path / "pictures"), image_size=(48, 48), directory=tmp_path / "t")
    teacher = Workbench.open(folder / "teacher.keras", other.directory)
    wrong = Workbench.open(folder / "student.keras", folder / "small", teacher=lambda: teacher)
    with pytest.raises(UsageError, match="expected to see the same training images"):
        begin(TrialConfig("distill", BASE), wrong)


def test_the_same_images_in_another_size_keep_their_splits(bench: Workbench, tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        ours, theirs = (b.task.split(split) for b in (bench, bench.teacher))
        assert list(ours.ids) == list(theirs.ids)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert theirs.images.shape[1:] == (48, 48, 3)
    assert bench.teacher.task.digest != bench.task.digest
    again = prepare("digits", image_size=(48, 48), directory=tmp_path / "t", like=bench.task)
    assert again.digest == bench.teacher.task.digest


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("distillation", "hidden", "one of plain, relational, both"),
        ("distill_weight", -1.0, "a number of at least 0"),
        ("distill_temperature", 0.0, "a number above 0"),
    ],
)
def test_values_out_of_range_are_refused(bench: Workbench, name: str, value: Any, expected: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: expected {expected}, received"):
        begin(TrialConfig("distill", {**BASE, name: value}), bench)

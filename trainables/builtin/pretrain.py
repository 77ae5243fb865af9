"""Pretrain the built-in backbone on printed characters rendered from the fonts of this machine.

    dpkg -L $(cat trainables/builtin/font-packages.txt) \\
        | python -m trainables.builtin.pretrain --fonts - --out print.keras

makes the shipped weights: on Debian 12 with the packages of ``font-packages.txt`` installed (``apt-get
install $(cat trainables/builtin/font-packages.txt)``). Without ``--fonts`` every font of the system is
used. No handwriting is seen: neither scikit-learn's digits nor any other handwritten data set.
``docs/print-backbone.md`` has the numbers.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainables.builtin.architecture import build
from trainables.builtin.distort import Distortions, distort
from trainables.builtin.fonts import SUFFIXES, find_fonts
from trainables.builtin.render import CLASSES, Glyphs, render_glyphs
from trainables.builtin.sampling import DIGITS, Batches, as_pixels, split_families
from trainables.errors import UnfreezeError, UsageError


@dataclass(frozen=True)
class Recipe:
    """The pretraining; the defaults make the shipped weights."""

    steps: int = 5000
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    digit_share: float = 0.4
    seed: int = 0
    held_out_images: int = 5000
    distortions: Distortions = field(default_factory=Distortions)


@dataclass(frozen=True)
class Outcome:
    """What a pretraining made: the backbone, and its accuracy on print in families it never saw.

    Accuracies are NaN where no family could be held out.
    """

    backbone: Any
    accuracy: float
    digit_accuracy: float


def pretrain(glyphs: Glyphs, recipe: Recipe = Recipe(), *, verbose: bool = False) -> Outcome:
    """Train :func:`~trainables.builtin.architecture.build` to tell :data:`CLASSES` apart, by cross-entropy.

    AdamW with warm-up and cosine decay over ``recipe.steps`` batches, each rendered once. The same
    recipe, glyphs and machine give the same weights.
    """
    keras.utils.set_random_seed(recipe.seed)
    tf.config.experimental.enable_op_determinism()
    parts = split_families(glyphs, recipe.seed)
    batches = Batches(
        glyphs,
        parts.train,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        digit_share=recipe.digit_share,
        seed=recipe.seed,
        how=recipe.distortions,
    )
    backbone = build(seed=recipe.seed)
    scores = keras.layers.Dense(len(CLASSES), name="scores")(backbone.output)
    model = keras.Model(backbone.input, scores)
    model.compile(_optimizer(recipe), _smoothed(recipe.label_smoothing), jit_compile=False)
    model.fit(
        batches, epochs=1, shuffle=False, verbose=0, callbacks=[_Progress(recipe.steps)] if verbose else []
    )
    return Outcome(backbone, *_held_out(model, glyphs, parts.held_out, recipe))


def _optimizer(recipe: Recipe) -> Any:
    warm = min(200, max(1, recipe.steps // 10))
    schedule = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate / 50,
        max(1, recipe.steps - warm),
        warmup_target=recipe.learning_rate,
        warmup_steps=warm,
    )
    return keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay)


def _smoothed(smoothing: float) -> Any:
    cross_entropy = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)

    def loss(labels: Any, scores: Any) -> Any:
        labels = keras.ops.reshape(keras.ops.cast(labels, "int32"), (-1,))
        return cross_entropy(keras.ops.one_hot(labels, len(CLASSES)), scores)

    return loss


def _held_out(
    model: Any, glyphs: Glyphs, chosen: Any, recipe: Recipe, most: int = 5000
) -> tuple[float, float]:
    """(accuracy on all classes, on the digits among them) on distorted print of the held-out families."""
    if not len(chosen):
        return float("nan"), float("nan")
    rng = np.random.default_rng([recipe.seed, 3])
    drawn = rng.choice(chosen, recipe.held_out_images)
    images = as_pixels(distort(glyphs.images[drawn], rng, recipe.distortions))
    right = model.predict(images, batch_size=500, verbose=0).argmax(axis=1) == glyphs.labels[drawn]
    return float(right.mean()), float(right[glyphs.labels[drawn] < DIGITS].mean())


class _Progress(keras.callbacks.Callback):  # type: ignore[misc]
    """A line every tenth of the steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps, self.began = steps, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if (batch + 1) % max(1, self.steps // 10) == 0:
            seconds = time.perf_counter() - self.began
            print(
                f"step {batch + 1} of {self.steps}  loss {(logs or {})['loss']:.4f}  {seconds:.0f} s",
                flush=True,
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except UnfreezeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _run(options: argparse.Namespace) -> int:
    if options.out.suffix != ".keras":
        raise UsageError(f"--out: expected a path that ends in .keras, received {str(options.out)!r}")
    if options.steps < 1 or options.batch_size < 1:
        raise UsageError(
            f"--steps, --batch-size: expected 1 or more, received {options.steps}, {options.batch_size}"
        )
    glyphs = render_glyphs(find_fonts(_places(options.fonts)))
    print(f"{len(glyphs.labels)} glyphs of {len(glyphs.names)} families, digest {glyphs.digest}", flush=True)
    recipe = Recipe(steps=options.steps, batch_size=options.batch_size, seed=options.seed)
    outcome = pretrain(glyphs, recipe, verbose=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    outcome.backbone.save(options.out)
    print(
        f"held-out print accuracy {outcome.accuracy:.4f}, digits {outcome.digit_accuracy:.4f}\n"
        f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB"
    )
    return 0


def _places(fonts: list[str] | None) -> list[Path] | None:
    if fonts != ["-"]:
        return [Path(font) for font in fonts] if fonts else None
    listed = [Path(line.strip()) for line in sys.stdin]
    return [path for path in listed if path.suffix.lower() in SUFFIXES and path.is_file()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainables.builtin.pretrain", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .keras file to write")
    parser.add_argument(
        "--fonts",
        nargs="+",
        metavar="PATH",
        help="font files or folders; - reads a list from standard input (default: the system's fonts)",
    )
    parser.add_argument("--steps", type=int, default=Recipe.steps, metavar="N")
    parser.add_argument("--batch-size", type=int, default=Recipe.batch_size, metavar="N")
    parser.add_argument("--seed", type=int, default=Recipe.seed, metavar="N")
    return parser


if __name__ == "__main__":
    sys.exit(main())

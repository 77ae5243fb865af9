"""Compare L2-SP, layer-wise learning rates and gradual unfreezing with plain fine-tuning.

    python -m benchmarks.studies.finetuning_recipes --output recipes.jsonl

The built-in task (100 training digits) and backbone, all four blocks unfrozen, a linear head, no augmentation. Each
technique is trained with each learning rate and seed (order of the images, random head). Results that the output
already contains are not computed again.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.studies.paired_seeds import Paired, note, read, table
from trainables.backbones.spec import BackboneSpec
from trainables.methods.methods import begin
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

RATES = (1e-3, 3e-3, 1e-2)
RECIPES = {
    "plain": {},
    "L2-SP 0.01": {"l2sp": 0.01},
    "L2-SP 0.1": {"l2sp": 0.1},
    "layer-wise decay 0.5": {"layer_lr_decay": 0.5},
    "gradual unfreezing 0.5": {"gradual_unfreezing": 0.5},
    "all three": {"l2sp": 0.01, "layer_lr_decay": 0.5, "gradual_unfreezing": 0.5},
}


def run(bench: Workbench, recipe: str, rate: float, seed: int, epochs: int, depth: int) -> Paired:
    params = {"unfreeze_depth": depth, "learning_rate": rate, "head_units": 0, **RECIPES[recipe]}
    training = begin(TrialConfig("finetune", params, epochs=epochs, seed=seed), bench)
    while not training.done:
        training.run_epoch()
    answers = training.predict("test").argmax(axis=1)
    training.release()
    assert training.best is not None
    test = float((answers == bench.task.split("test").labels).mean())
    return Paired(recipe, f"rate {rate:g}", seed, training.best.val_accuracy, test)


def main() -> None:
    parser = argparse.ArgumentParser(description="Ways of fine-tuning beside the plain one.")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--output", type=Path, default=Path("finetuning_recipes.jsonl"), help="appended to")
    given = parser.parse_args()
    known = {(r.way, r.setting, r.seed) for r in read(given.output)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "backbone.keras"
        load(BackboneSpec("print")).save(file)
        bench = Workbench.open(
            file, prepare("digits", image_size=(32, 32), directory=Path(folder) / "task").directory
        )
        for seed in given.seeds:
            for recipe in RECIPES:
                for rate in RATES:
                    if (recipe, f"rate {rate:g}", seed) not in known:
                        note(given.output, run(bench, recipe, rate, seed, given.epochs, given.depth))
            print(f"seed {seed} done", flush=True)
        print(f"{dict(bench.task.counts)}, {given.epochs} epochs, depth {given.depth}")
    print(table(read(given.output), "plain"))


if __name__ == "__main__":
    main()

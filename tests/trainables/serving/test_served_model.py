"""The model that is registered answers the same however it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from trainables.methods.methods import begin
from trainables.serving.served_model import save_served_model
from trainables.training.trial_config import TrialConfig


def test_a_served_model_never_trains(print_bench: Any, tmp_path: Path) -> None:
    """``Resizing`` says that it trains, and Keras 3.15 hands that on to the layers above: here it must not."""
    params = {
        "unfreeze_depth": 1,
        "learning_rate": 1e-3,
        "head_units": 0,
        "augmentation_strength": 0.0,
    }
    training = begin(
        TrialConfig(method="finetune", params=params, epochs=1, batch_size=64, seed=1), print_bench
    )
    training.run_epoch()
    save_served_model(training, tmp_path / "model.keras")
    training.release()
    model = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    model.trainable = (
        True  # what drops out does not ask whether it may be trained; the statistics that move do
    )
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3)).astype("uint8")
    expected = model.predict_on_batch(images)
    for _ in range(2):
        np.testing.assert_allclose(model(images).numpy(), expected, atol=1e-6)

"""A linear probe as one writes it in a plain script, with Keras and scikit-learn alone.

    python -m benchmarks.peers.plain_probe BACKBONE.keras FOLDER SEED RESULT.json

The frozen backbone, which takes raw pixels and returns pooled features, computes the features of all images of the
folder. A logistic regression is fitted to those of the training and validation images together; cross-validation
chooses its regularisation. The result contains whether each test image is classified correctly, by its path.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

INVERSE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of scikit-learn's C, for standardised features."""

FOLDS = 3


def main() -> None:
    backbone, folder, seed, result = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    model = keras.saving.load_model(backbone)
    train = [*sorted(folder.glob("train/*/*.png")), *sorted(folder.glob("validation/*/*.png"))]
    test = sorted(folder.glob("test/*/*.png"))
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in [*train, *test]])
    features = model.predict(pixels, batch_size=64, verbose=0)
    labels = np.array([file.parent.name for file in [*train, *test]])
    regression = LogisticRegressionCV(
        Cs=INVERSE_PENALTIES,
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
        scoring="neg_log_loss",
        max_iter=100,
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
    )
    # The matrices are small: with two threads of BLAS on busy cores the fits took 50 times as long as with one.
    with warnings.catch_warnings(), threadpool_limits(1):
        # With little regularisation the loss still falls slightly after 100 iterations.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = make_pipeline(StandardScaler(), regression).fit(features[: len(train)], labels[: len(train)])
    right = fitted.predict(features[len(train) :]) == labels[len(train) :]
    print(f"test accuracy {right.mean():.4f}, C {regression.C_}", flush=True)
    names = [file.relative_to(folder).as_posix() for file in test]
    content = {"correct": dict(zip(names, right.tolist(), strict=True)), "C": float(np.mean(regression.C_))}
    result.write_text(json.dumps(content))


if __name__ == "__main__":
    main()

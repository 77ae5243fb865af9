"""What a trial does: data, backbones, training. Knows nothing of Ray, Optuna or MLflow."""

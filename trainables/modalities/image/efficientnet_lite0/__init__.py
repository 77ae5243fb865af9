"""EfficientNet-Lite0: its architecture, and how its weights are found and read."""

"""The frozen probe: candidates, the regression that fits them, and their evaluation."""

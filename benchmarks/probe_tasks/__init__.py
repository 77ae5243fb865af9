"""Image classification tasks from packages, on which a search is compared with a linear probe."""

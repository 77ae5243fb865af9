"""Data sources: Parquet and Arrow files, and what all sources have in common, whatever the kind of example."""

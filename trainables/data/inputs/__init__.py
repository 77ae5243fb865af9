"""Inputs: built-in digits, image folders, and Parquet or Arrow files, all as one kind of source."""

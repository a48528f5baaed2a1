"""Fault injection for `dvc repro`: `python -m tests.helpers.faults --kills 20`."""

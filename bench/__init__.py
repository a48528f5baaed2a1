"""Experiments that measure the pipeline: ablations."""

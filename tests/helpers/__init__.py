"""Helpers of the tests."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "recipes/demo-paper.yaml"  # the parameters of most tests

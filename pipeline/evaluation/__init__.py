"""Evaluation of segmenter and pseudo-masks against human masks, as numbers."""

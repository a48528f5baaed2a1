"""Scores of the segmenter and of pseudo-masks against human masks; nothing is drawn here."""

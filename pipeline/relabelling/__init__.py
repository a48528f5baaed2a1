"""Relabelling: pseudo-masks corrected by segmenters that were trained on other images."""

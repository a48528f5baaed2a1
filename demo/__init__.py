"""The embedded demonstration: drawn street scenes, a small CLIP and the script that trains it."""

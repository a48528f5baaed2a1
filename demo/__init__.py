"""The demo: synthetic street scenes, a small CLIP and the scripts that train it."""

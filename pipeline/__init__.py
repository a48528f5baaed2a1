"""carb-wsss: driving scenes segmented from image-level labels (CLIP, Global-Local Views, CARB)."""

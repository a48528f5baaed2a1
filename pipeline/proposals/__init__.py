"""Image-level labels that CLIP proposes and a person corrects."""

"""Classes, safe image loading, scene index and image-level labels; no human mask is reachable."""

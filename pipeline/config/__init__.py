"""Schema of params.yaml, one file per section, and its errors as sentences."""

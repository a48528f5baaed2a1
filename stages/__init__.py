"""The DVC stages: thin command lines that join paths (dvc.yaml) and science (params.yaml)."""

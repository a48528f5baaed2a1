"""What the pipeline does when it is killed: `python -m tests.faults --kills 20`."""

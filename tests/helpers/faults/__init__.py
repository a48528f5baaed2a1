"""What the pipeline does when it is killed: `python -m tests.helpers.faults --kills 20`."""

"""Files, locks, disk space, devices, processes, signals and progress; nothing about images."""

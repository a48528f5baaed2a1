"""Files, locks, devices, processes, signals and progress; nothing here knows of images."""

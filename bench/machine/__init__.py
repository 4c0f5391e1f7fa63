"""The machine that a command runs on: device and processes, progress, locks, versions, and `bench doctor`."""

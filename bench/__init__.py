"""A harness that compares post-training methods. Flat lies what a plugin imports; a folder is one of its tasks."""

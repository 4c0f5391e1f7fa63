"""The post-training methods, one file each."""

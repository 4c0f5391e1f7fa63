"""The suites, one file each: prompt sets, metrics and sampling settings under one version."""

"""The probes, one file each: measures of exposure bias on held-out pairs."""

"""Pretrained pipelines of the SD3 family: how they are found, checked, loaded, trained and sampled."""

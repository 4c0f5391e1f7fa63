"""`bench pretrain`: the recipe that makes `tiny-sd3` and the judge of the shape world."""

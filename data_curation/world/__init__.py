"""The shape world: scenes, captions, held-out combinations, and the corpora that are drawn from it."""

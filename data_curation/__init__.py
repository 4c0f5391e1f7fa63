"""What is trained on: corpora in five layouts, their scores, subsets, preference pairs, and the shape world."""

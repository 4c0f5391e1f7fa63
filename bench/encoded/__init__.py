"""Latents and text embeddings on disk: encoded once, and read by every method."""

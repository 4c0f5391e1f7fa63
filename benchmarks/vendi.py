"""Vendi score: how many different things a set of embeddings holds."""

from __future__ import annotations

import torch
from torch import Tensor


def vendi_score(embeds: Tensor) -> float:
    """From 1 (all alike) to n (all at right angles), for embeddings (n, width) of any length and kind of float.

    exp(-Σ λ ln λ) over the eigenvalues λ of K/n, where K holds the cosines of all pairs and 0 ln 0 is 0; computed in
    float64. Source: Friedman and Dieng 2023, "The Vendi Score: A Diversity Evaluation Metric for Machine Learning"
    (arXiv 2210.02410), definition 3.1, with the cosine kernel.
    """
    rows = torch.nn.functional.normalize(embeds.double(), dim=-1)
    eigenvalues = torch.linalg.eigvalsh(rows @ rows.T / len(rows)).clamp(0, 1)
    return float(torch.special.entr(eigenvalues).sum().exp())

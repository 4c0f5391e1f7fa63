"""Measures of exposure bias on held-out pairs, and their records. A probe of your own imports from here."""

from bench.probes.probe import Probe, Reading
from bench.probes.routes import Trajectories

__all__ = ["Probe", "Reading", "Trajectories"]

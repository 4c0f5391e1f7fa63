"""A harness that compares post-training methods.

Plugins import the files beside this one. Each folder is one task of the harness.
"""

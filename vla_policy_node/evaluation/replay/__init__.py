"""Replay evaluation: what a policy would have done on what a robot recorded, and how far off."""

"""Fault injection: what is thrown at this software, and whether it holds. Not installed."""

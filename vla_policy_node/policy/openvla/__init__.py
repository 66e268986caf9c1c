"""OpenVLA's original checkpoint layout and its architecture, without its own code."""

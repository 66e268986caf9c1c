"""Recorded bags to LeRobot data sets and back (no torch, no ROS)."""

"""The processes of a simulated arm, joined by DDS, for faults that only real ones can have."""

"""Closed-loop evaluation of a policy: the demo runner, its floors, its statistics, its report."""

"""Studies: plans, nodes, waves of work, verdicts."""

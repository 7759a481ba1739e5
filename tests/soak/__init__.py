"""Long runs and measurements against a server in a process of its own; none is a test."""

"""Long runs and measurements of a server in a process of its own; none is a test."""

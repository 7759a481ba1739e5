"""Reloading: the application is loaded again, in new processes, when one of its files changes."""

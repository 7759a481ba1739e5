"""Reloading: the application is loaded anew, in new processes, when one of its files changes."""

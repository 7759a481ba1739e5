"""The applications that the servers run.

This folder is on the path of the servers, so its modules import each other without a package.
"""

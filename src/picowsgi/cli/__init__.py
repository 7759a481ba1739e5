"""The command line.

May import all packages except for `contrib` and the public modules.
"""

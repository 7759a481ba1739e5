"""The resources that a process gets from the system: sockets, descriptors, signals, CPUs, user.

Knows no option and no request. May import `log` and `errors`.
"""

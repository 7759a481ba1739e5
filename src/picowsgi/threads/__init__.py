"""The event loops of a process, their threads, the access log and the incidents.

May import `wsgi` and the packages below it.
"""

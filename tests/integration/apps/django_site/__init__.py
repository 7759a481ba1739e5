"""A small Django project, a library with books, for a comparison with Django's test client."""

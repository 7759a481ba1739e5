"""A Django application, for INSTALLED_APPS: `manage.py runserver` runs on picowsgi."""

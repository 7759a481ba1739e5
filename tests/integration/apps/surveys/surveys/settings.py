"""A project as `django-admin startproject` makes it; tests change it through the environment."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "not a secret"
DEBUG = os.environ.get("SURVEYS_DEBUG", "on") == "on"
ALLOWED_HOSTS = [] if DEBUG else ["127.0.0.1"]

# Without picowsgi, to compare with the server of Django; or too late in the list.
SERVER = os.environ.get("SURVEYS_SERVER", "first")
INSTALLED_APPS = [
    *(["picowsgi.contrib.django"] if SERVER == "first" else []),
    "survey.apps.SurveyConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    *(["django.contrib.staticfiles"] if "SURVEYS_NO_STATICFILES" not in os.environ else []),
    *(["picowsgi.contrib.django"] if SERVER == "last" else []),
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "surveys.urls"
WSGI_APPLICATION = "surveys.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "db.sqlite3",
        "OPTIONS": {"timeout": 20},
    }
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a fast one
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "collected"
USE_TZ = True

# So that a test knows when Django watches a file of the project, and notices an edit.
if "SURVEYS_WATCHED" in os.environ:
    LOGGING = {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {
            "ours": {
                "()": "django.utils.log.CallbackFilter",
                "callback": lambda record: (
                    record.levelname != "DEBUG" or str(BASE_DIR) in record.getMessage()
                ),
            }
        },
        "handlers": {"all": {"class": "logging.StreamHandler", "filters": ["ours"]}},
        "loggers": {
            "django.utils.autoreload": {"level": "DEBUG", "handlers": ["all"], "propagate": False}
        },
    }

"""Makes the database: tables, a user of the admin, and one question."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "surveys.settings")
django.setup()

from django.contrib.auth.models import User  # noqa: E402 (after setup)
from django.core.management import call_command  # noqa: E402
from survey.models import Answer, Question  # noqa: E402

call_command("migrate", verbosity=0)
User.objects.create_superuser("editor", password="open sesame")
question = Question.objects.create(text="Tea or coffee?")
for text in ("Tea", "Coffee"):
    Answer.objects.create(question=question, text=text)

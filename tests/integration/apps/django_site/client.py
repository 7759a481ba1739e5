"""The test client of Django as a process: requests in and responses out, one JSON object a line.

`python -m django_site.client fill` makes the database with some books and a user.
"""

import base64
import json
import os
import sys

import django


def fill():
    from django.contrib.auth.models import User
    from django.core.management import call_command

    from django_site.library.models import Author, Book

    call_command("migrate", run_syncdb=True, verbosity=0)
    User.objects.create_superuser("librarian", password="open sesame")
    for name, title, year in [
        ("Stanisław Lem", "Solaris", 1961),
        ("Ursula K. Le Guin", "The Dispossessed <&>", 1974),
        ("Stanisław Lem", "The Cyberiad", 1965),
    ]:
        author, _ = Author.objects.get_or_create(name=name)
        Book.objects.create(title=title, author=author, year=year)


def answer(client, method, target, fields, content):
    extra = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in fields.items()}
    response = client.generic(
        method,
        target,
        base64.b64decode(content),
        content_type=extra.pop("HTTP_CONTENT_TYPE", ""),
        SERVER_NAME="127.0.0.1",
        SERVER_PORT=extra["HTTP_HOST"].rpartition(":")[2],
        **extra,
    )
    # This client keeps no cookies: the test sends them itself.
    client.cookies.clear()
    cookies = [("Set-Cookie", morsel.OutputString()) for morsel in response.cookies.values()]
    streaming = getattr(response, "streaming", False)
    data = b"".join(response.streaming_content) if streaming else response.content
    return {
        "status": f"{response.status_code} {response.reason_phrase}",
        "fields": [*response.items(), *cookies],
        "content": base64.b64encode(data).decode(),
    }


def main():
    from django.test import Client

    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(client, *json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "django_site.settings"
    django.setup()
    fill() if sys.argv[1:] == ["fill"] else main()

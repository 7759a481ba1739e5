"""--live-reload: the page in a browser follows the code and the templates without a key."""

from __future__ import annotations

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By

from support import wait_until
from support.code_of_site import COMMANDS, save_code, write_site
from support.development import get

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

CODE = """
VERSION = "1"
POLICY = "default-src 'none'"

def application(environ, start_response):
    if environ["PATH_INFO"] == "/broken":
        raise KeyError(VERSION)
    with open("page.html", "rb") as file:
        page = file.read() + VERSION.encode()
    start_response("200 OK", [
        ("Content-Type", "text/html"), ("Content-Length", str(len(page))), ("ETag", '"always"'),
        ("Content-Security-Policy", POLICY), ("Cache-Control", "max-age=60"),
    ])
    return [page]
"""


def test_a_page_follows_code_and_templates_and_the_error_page_goes_away(
    browser, picowsgi, tmp_path
):
    template = tmp_path / "page.html"
    template.write_text("<!DOCTYPE html><title>Page</title><p>This is version ")
    save_code(tmp_path, CODE, 1)
    server = picowsgi(
        "--reload", "--debug", "--live-reload", "--threads", "1", "code_of_site",
        directory=tmp_path,
    )  # fmt: skip
    assert "; reload is on; debug is on; live reload is on; " in server.log

    def sees(text):
        def shows():
            try:
                return text in browser.find_element(By.TAG_NAME, "body").text
            except WebDriverException:  # the page changes
                return False

        wait_until(shows, f"a page with {text!r}", 20)

    browser.get(server.url)
    sees("This is version 1")
    browser.get_log("browser")  # the page of an earlier test may have looked for its server
    save_code(tmp_path, CODE, 2)
    sees("This is version 2")
    save_code(tmp_path, CODE.replace("start_response):", "start_response)"), 3)
    sees("The application cannot be loaded")
    save_code(tmp_path, CODE, 4)
    sees("This is version 4")
    template.write_text("<!DOCTYPE html><title>Page</title><p>That is version ")
    sees("That is version 4")
    # The traceback of a request goes away too.
    browser.get(f"{server.url}/broken")
    sees("KeyError")
    save_code(tmp_path, CODE.replace("/broken", "/elsewhere"), 5)
    sees("That is version 5")
    messages = [line["message"] for line in browser.get_log("browser")]
    assert not [one for one in messages if "violates" in one or "WebSocket" in one], messages
    # The page is open, and its script waits in no thread: the only one answers. The policy of the
    # page still forbids other requests.
    assert browser.execute_async_script(
        "const done = arguments[0]; fetch('/').then(() => done('allowed'), () => done('refused'))"
    ) == "refused"  # fmt: skip
    assert get(server)[1] == "<!DOCTYPE html><title>Page</title><p>That is version 5"


@pytest.mark.parametrize("installed", [False, True], ids=["alone", "with-django-browser-reload"])
def test_runserver_leaves_pages_to_django_browser_reload(command, tmp_path, installed):
    save = CODE.replace('open("page.html", "rb")', "__import__('io').BytesIO(b'<p>')")
    write_site(tmp_path, save)
    if installed:
        (tmp_path / "django_browser_reload.py").touch()
        manage = tmp_path / "manage.py"
        apps = '"picowsgi.contrib.django", "django_browser_reload"'
        manage.write_text(manage.read_text().replace('"picowsgi.contrib.django"', apps))
    server = command(*COMMANDS["django"], "--live-reload", directory=tmp_path, stdout=True)
    page = get(server, **{"Sec-Fetch-Dest": "document"})[1]
    assert page.startswith("<p>1")
    assert ("<script>" in page) is not installed
    get(server, "/__picowsgi__/live-reload")
    get(server, "/last")
    server.wait_for_log("GET /last")
    assert ("live-reload" in server.log) is installed, "expected no line for the script's requests"

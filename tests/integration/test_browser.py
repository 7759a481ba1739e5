"""A developer edits, breaks and fixes files, and sees the results in a browser."""

from __future__ import annotations

import re

import pytest
from selenium.common.exceptions import (
    NoSuchElementException,
    StaleElementReferenceException,
    WebDriverException,
)
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

from support import wait_until
from support.development import edit

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


class Visit:
    """A visit to a server, in the words of a user who looks at the page."""

    def __init__(self, browser, server):
        self._browser = browser
        self._server = server
        browser.delete_all_cookies()

    def open(self, path="/"):
        self._browser.get(self._server.url + path)

    @property
    def text(self):
        return self.find("body").text

    def find(self, selector):
        return self._browser.find_element(By.CSS_SELECTOR, selector)

    def fill(self, **texts):
        for name, text in texts.items():
            field = self.find(f"[name='{name}']")
            field.clear()
            field.send_keys(text)

    def press(self, what):
        """Click a link or a button, and wait for the next page."""
        by = By.CSS_SELECTOR if what[0] in "#[" else By.LINK_TEXT
        page = self.find("html")
        self._browser.find_element(by, what).click()
        wait_until(lambda: is_gone(page), f"another page after {what}")

    def colour_of(self, selector):
        return self.find(selector).value_of_css_property("color")

    def sees(self, text):
        """Wait, without a key, until the page shows the text: it loads itself again."""

        def shows():
            try:
                return text in self.text
            except WebDriverException:  # the page changes
                return False

        wait_until(shows, f"a page with {text!r}", 20)

    def wait_for(self, selector):
        def appears():
            try:
                return self.find(selector).is_displayed()
            except NoSuchElementException:
                return False

        wait_until(appears, f"{selector} on the page")
        return self.find(selector)


def is_gone(element):
    try:
        element.is_enabled()
    except StaleElementReferenceException:
        return True
    except WebDriverException as error:  # the driver reports this while the page changes
        if "does not belong to the document" not in str(error):
            raise
        return True
    return False


def test_a_django_project_is_developed_in_a_browser(browser, runserver, surveys):
    server = runserver("--live-reload")
    visit = Visit(browser, server)

    # Static files: those of the admin, and the project's own.
    visit.open("/admin/")
    assert "Django administration" in visit.text
    assert visit.find("#header").value_of_css_property("background-color") != "rgba(0, 0, 0, 0)"
    visit.fill(username="editor", password="open sesame")
    visit.press("[type=submit]")
    assert "Site administration" in visit.text

    visit.open("/admin/survey/question/add/")
    visit.fill(text="Which tree?", **{"answers-0-text": "An oak", "answers-1-text": "A beech"})
    visit.press("[name=_save]")
    assert "The question “Which tree?” was added successfully." in visit.text
    visit.press("Which tree?")
    visit.fill(text="Which tree is it?")
    visit.press("[name=_save]")
    assert "The question “Which tree is it?” was changed successfully." in visit.text

    visit.open()
    assert visit.colour_of("h1") == "rgba(12, 120, 90, 1)", "expected the style sheet to be applied"
    visit.press("Which tree is it?")
    visit.press("A beech")
    assert re.search(r"An oak 0\s+A beech 1", visit.text), visit.text

    # The developer edits, breaks and fixes a view.
    views = surveys / "survey" / "views.py"
    visit.open()
    edit(server, views, "What people were asked", "What they wanted to know")
    visit.sees("What they wanted to know")
    assert "Which tree is it?" in visit.text
    edit(server, views, "def overview(request):", "def overview(request)")
    visit.sees("SyntaxError")
    assert "expected ':'" in visit.text
    assert "(views.py, line " in visit.text
    edit(server, views, "def overview(request)", "def overview(request):")
    visit.sees("What they wanted to know")
    assert "Which tree is it?" in visit.text
    edit(
        server, surveys / "survey/templates/survey/overview.html", "{% endblock", "Done.{% endblock"
    )
    visit.sees("Done.")


def test_a_flask_application_is_developed_in_a_browser(browser, flask, journal):
    server = flask("--debug", "--live-reload", WERKZEUG_DEBUG_PIN="123-456-789")
    visit = Visit(browser, server)

    visit.open()
    assert "Nothing yet." in visit.text
    assert visit.colour_of("h1") == "rgba(120, 40, 90, 1)", "expected the style sheet to be applied"
    visit.press("Register")
    visit.fill(name="ada", password="engine")
    visit.press("#send")
    visit.fill(name="ada", password="wrong")
    visit.press("#send")
    assert "There is no user with that name and password." in visit.text
    visit.fill(name="ada", password="engine")
    visit.press("#send")

    visit.press("New entry")
    visit.fill(title="A beginning", text="It rained.")
    visit.press("#send")
    assert "A beginning\nIt rained.\nada" in visit.text
    visit.press("Edit")
    visit.fill(text="It rained <all> day.")
    visit.press("#send")
    assert "It rained <all> day." in visit.text

    # The debugger: the console of a frame, after the PIN.
    visit.open("/broken")
    assert "KeyError: 'question'" in visit.text
    last = browser.find_elements(By.CSS_SELECTOR, ".frame")[-1]
    ActionChains(browser).move_to_element(last).perform()  # which shows the icon
    last.find_element(By.CSS_SELECTOR, "pre.current img").click()
    visit.wait_for(".pin-prompt input[name=pin]").send_keys("123-456-789\n")
    wait_until(lambda: browser.execute_script("return EVALEX_TRUSTED"), "the PIN to be accepted")
    visit.wait_for(".console input").send_keys("wanted['answer'] * 1000\n")
    wait_until(lambda: "42000" in visit.text, "the result of the console")

    # The developer edits, breaks and fixes the application.
    package = journal / "journal"
    visit.open()
    edit(server, package / "__init__.py", "What happened today", "What happened yesterday")
    visit.sees("What happened yesterday")
    assert "It rained <all> day." in visit.text, "expected the user to be still logged in"
    edit(server, package / "entries.py", "def overview():", "def overview()")
    visit.sees("SyntaxError: expected ':'")
    edit(server, package / "entries.py", "def overview()", "def overview():")
    visit.sees("What happened yesterday")
    edit(server, package / "templates/overview.html", "{% endblock", "That is all.{% endblock")
    visit.sees("That is all.")

    visit.press("Edit")
    visit.press("#delete")
    assert "Nothing yet." in visit.text
    visit.press("[action] button")
    assert "Register" in visit.text

"""The dashboard in a real browser: what it loads, how it lies, who can use it, what a click does.

One server, one browser; the tests that move traffic have apps of their own.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from mlguard.serving.access import admin_token

LONGEST = "an-app-with-the-longest-name-that-mlguard-allows-0123456789-abcd"
PAGES = {
    "all apps": "/",
    "well": "/apps/well",
    "failing": "/apps/failing",
    "rolled back": "/apps/rolled-back",
    "blind": "/apps/blind",
    "no traffic": "/apps/quiet",
    "nothing deployed": "/apps/new",
    "long and hostile": f"/apps/{LONGEST}",
    "incident": "/incidents/1",
    "hostile incident": "/incidents/3",
    "card": "/apps/well/versions/v7",
    "not there": "/apps/nobody",
}
#: Milliseconds that anything real may take on a machine that is busy with other tests.
PATIENCE_MS = 60_000

OPEN = "() => { for (const one of document.querySelectorAll('details')) one.open = true; }"
SHOWS_V1 = "() => document.querySelector('header').innerText.includes('v1 serves')"
SAYS = "(mark) => document.getElementById('said').textContent.startsWith(mark)"
#: What overlaps, and what sticks out, on a page: pairs of words and boxes.
LAYOUT = """() => {
  const wrong = [];
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width)
    wrong.push(`scrolls sideways: ${document.documentElement.scrollWidth} > ${width}`);
  // What is clipped away is there for screen readers only.
  const clipped = (node) => node && (getComputedStyle(node).clipPath !== "none"
    || clipped(node.parentElement));
  const seen = (node) => node.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })
    && !clipped(node) && !node.closest(".skip");
  const boxes = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode;
    const inside = text.parentElement;
    if (!text.data.trim() || !seen(inside) || inside.closest("select")) continue;
    const range = document.createRange();
    range.selectNodeContents(text);
    for (const rect of range.getClientRects())
      if (rect.width > 1 && rect.height > 1)
        boxes.push([text, rect, text.data.trim().slice(0, 40)]);
  }
  for (const node of document.querySelectorAll("img, input, select, button"))
    if (seen(node)) boxes.push([node, node.getBoundingClientRect(), node.id || node.tagName]);
  for (const [, rect, name] of boxes)
    if (rect.left < -1 || rect.right > width + 1)
      wrong.push(`sticks out: ${name} ${Math.round(rect.left)} to ${Math.round(rect.right)}`);
  boxes.sort((a, b) => a[1].top - b[1].top);
  // Lines of one text share their leading: only more than a fifth of the lower one counts.
  for (let i = 0; i < boxes.length; i++) {
    const [a, p, name] = boxes[i];
    for (let j = i + 1; j < boxes.length && boxes[j][1].top < p.bottom; j++) {
      const [b, q, other] = boxes[j];
      if (a === b || a.contains(b) || b.contains(a) || a.contains(b.parentNode)) continue;
      const x = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const y = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (x > 1 && y > 0.2 * Math.min(p.height, q.height))
        wrong.push(`overlaps: ${name} | ${other}`);
    }
  }
  return wrong;
}"""


@pytest.fixture(scope="module")
def house(tmp_path_factory, new_house):
    """An app of each state, and some whose traffic tests move."""
    made = new_house(tmp_path_factory.mktemp("house") / "project")
    for app in ("clicked", "typed", "watched"):
        made.app(app)
        for name, weight in (("v1", 1.0), ("v2", 2.0)):
            made.deploy(app, name, weight=weight)
    made.now -= 360  # as if they had come one after the other
    made.fill()
    yield made
    made.close()


#: Stands for a drawing where a test is about the page around it: drawing takes seconds each.
BLANK = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 195"/>'


@contextmanager
def opened(browser, *, drawn=False, **options):
    """A page that remembers what went wrong, and where it asked."""
    context = browser.new_context(**options)
    page = context.new_page()
    if not drawn:
        page.route(
            "**/charts/*.svg*",
            lambda route: route.fulfill(body=BLANK, content_type="image/svg+xml"),
        )
    page.set_default_timeout(PATIENCE_MS)
    page.wrong, page.asked = [], []
    page.on("console", lambda said: page.wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("dialog", lambda dialog: (page.wrong.append(dialog.message), dialog.dismiss()))
    try:
        yield page
    finally:
        context.close()


#: Pictures below the fold load when they are scrolled to; a page that follows may renew them.
DRAWN = """() => [...document.images].every((one) => {
  if (one.loading !== "eager") one.loading = "eager";
  return one.complete;
})"""


def settled(page):
    """Wait until every picture of the page was drawn; return whether all could be."""
    page.wait_for_function(DRAWN)
    return page.evaluate("() => [...document.images].every((one) => one.naturalWidth > 0)")


#: What is drawn for real: a figure over time whose name is hostile.  Drawing takes seconds.
DRAWN_PAGE = "hostile incident"
WIDTHS = (360, 768, 1440)
#: Pages that axe looks at: names, labels, landmarks, order of headings, contrast.
AUDITED = ("all apps", "failing", "long and hostile", "incident", "card", "not there")
#: The same for the dark theme, where only contrast differs.
AUDITED_DARK = ("failing", "long and hostile")


@dataclass
class Visit:
    """What one visit to a page showed.

    ``layout`` holds what was wrong with the boxes at each width, with all details open;
    ``audit`` what axe found in each theme.
    """

    status: int
    drawn: bool
    wrong: list[str]
    asked: list[str]
    layout: dict[int, list[str]]
    audit: dict[str, list[object]]


def look_at(browser, server, name, axe):
    """Visit a page once, and look at everything that tests are about."""
    with opened(browser, drawn=name == DRAWN_PAGE) as page:
        reply = page.goto(server + PAGES[name])
        drawn = settled(page)
        page.evaluate(OPEN)
        layout = {}
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            settled(page)
            layout[width] = page.evaluate(LAYOUT)
        page.set_viewport_size({"width": 1024, "height": 900})
        audit = {}
        if name in AUDITED:
            audit["light"] = violations(axe, page, {})
        if name in AUDITED_DARK:
            page.emulate_media(color_scheme="dark")
            audit["dark"] = violations(axe, page, {"runOnly": ["color-contrast"]})
        return Visit(reply.status, drawn, page.wrong, page.asked, layout, audit)


def violations(axe, page, options):
    """Return what axe complains about, with the first elements."""
    return [
        (one["id"], one["impact"], [node["html"][:120] for node in one["nodes"][:3]])
        for one in axe.run(page, options=options).response["violations"]
    ]


@pytest.fixture(scope="module")
def visits(browser, server):
    """Every page, visited once."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    return {name: look_at(browser, server, name, axe) for name in PAGES}


@pytest.mark.slow
def test_pages_load_without_an_error_and_ask_nobody_else(visits, server):
    """No console error, no refused policy, no script of somebody's text, no request elsewhere."""
    for name, seen in visits.items():
        expected = 404 if name == "not there" else 200
        assert seen.status == expected, name
        assert seen.drawn, name
        # A browser reports the 404 of the page itself.
        assert len(seen.wrong) == (expected == 404), (name, seen.wrong)
        assert all(one.startswith(server + "/") for one in seen.asked), name


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overlaps_and_nothing_scrolls_sideways(visits, width):
    """Measured from the boxes of every text, picture and control; with all details open."""
    assert {name: seen.layout[width] for name, seen in visits.items() if seen.layout[width]} == {}


@pytest.mark.parametrize(("theme", "pages"), [("light", AUDITED), ("dark", AUDITED_DARK)])
def test_axe_finds_nothing_serious(visits, theme, pages):
    """Nothing at all, in fact; contrast in both themes."""
    assert {name: visits[name].audit[theme] for name in pages} == {name: [] for name in pages}


def test_the_measure_of_overlap_measures(browser, server):
    """Boxes that do lie on another, and one that sticks out, are found."""
    with opened(browser, viewport={"width": 360, "height": 900}) as page:
        page.goto(server + "/apps/well")
        page.evaluate(
            """() => { const one = document.querySelector("h2"); one.style.position = "relative";
            one.style.top = "48px"; document.querySelector("h1").style.width = "500px";
            document.querySelector("h1").textContent = "word ".repeat(60); }"""
        )
        found = " ".join(page.evaluate(LAYOUT))
        assert "overlaps: " in found
        assert "sticks out: " in found
        assert "scrolls sideways: " in found


def test_everything_is_readable_without_script(browser, server):
    """Reading needs none; instead of a button that could not work stands the command."""
    with opened(browser, java_script_enabled=False) as page:
        page.goto(server + "/apps/failing")
        text = page.inner_text("body")
        assert "Incident 1 is open on failing" in text
        assert "mlguard rollback failing --reason" in text
        assert not page.is_visible("#rollback")


def served_by(server, app):
    return httpx.get(f"{server}/api/apps/{app}", timeout=30).json()["active"]["version"]


def test_a_click_rolls_back_and_the_page_shows_it(browser, server, house):
    """A wrong token is refused in words; with the right one the new version is there at once."""
    token = admin_token(house.project)
    with opened(browser) as page:
        page.goto(server + "/apps/clicked")
        assert "v2 serves" in page.inner_text("header")
        page.fill("#reason", "answers slowly since this morning")
        page.fill("#token", "a wrong one")
        page.click("text=Roll back to v1")
        page.wait_for_function(SAYS, arg="✗")
        assert "this needs the admin token" in page.inner_text("#said")
        assert served_by(server, "clicked") == "v2"
        assert len(page.wrong) == 1  # the browser's own line on the 401
        page.fill("#token", token)
        started = time.monotonic()
        page.click("text=Roll back to v1")
        page.wait_for_function(SHOWS_V1)
        took = time.monotonic() - started
        # The switch is real: who asks now is answered by the version before.
        asked = httpx.post(f"{server}/clicked/predict", json={"input": [0.5, 0.2]}, timeout=30)
        assert asked.headers["X-MLGuard-Version"] == "v1"
        assert served_by(server, "clicked") == "v1"
        page.wait_for_function(SAYS, arg="✓")
        history = page.inner_text("#history")
        assert "rolled back to v1" in history
        assert "answers slowly since this morning" in history
        assert not page.is_visible("#rollback")  # nothing further back
        assert token not in page.url
        assert page.evaluate("() => [sessionStorage.length, localStorage.length]") == [1, 0]
        assert page.evaluate("() => document.cookie") == ""
    # A tenth of a second; on a busy machine the promise is not the page's to keep.
    assert took < 20


def test_the_keyboard_alone_rolls_back(browser, server, house):
    """From the top of the page by Tab to the fields and the button; Enter sends."""
    with opened(browser) as page:
        page.goto(server + "/apps/typed")
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.className") == "skip"
        wanted = {"reason": "typed by hand", "token": admin_token(house.project)}
        for _ in range(40):
            page.keyboard.press("Tab")
            focused = page.evaluate("document.activeElement.id || document.activeElement.type")
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", focused
            if focused in wanted:
                page.keyboard.type(wanted.pop(focused))
            elif focused == "submit":
                assert not wanted
                page.keyboard.press("Enter")
                break
        else:
            pytest.fail("the button was never reached")
        page.wait_for_function(SHOWS_V1)
        said = page.locator("#said")
        assert said.get_attribute("role") == "status"
        assert served_by(server, "typed") == "v1"


def test_a_page_follows_what_others_do(browser, server, house):
    """Moved from elsewhere, it tells by itself, and keeps what the reader typed and opened."""
    with opened(browser) as page:
        page.clock.install()
        page.goto(server + "/apps/watched")
        page.fill("#reason", "half a sent")
        page.click("#history summary")
        house.registry.rollback("watched", automatic=False, reason="from a terminal")
        page.clock.run_for(5000)
        page.wait_for_function(SHOWS_V1)
        assert page.input_value("#reason") == "half a sent"
        assert page.evaluate("() => document.getElementById('steps').open")
        assert page.wrong == []


def test_a_page_says_when_it_is_not_up_to_date(browser, server):
    """A number that is old must not look like a new one."""
    with opened(browser) as page:
        page.goto(server + "/apps/well")
        look = "document.dispatchEvent(new Event('visibilitychange'))"
        page.route("**/*", lambda route: route.abort())
        page.evaluate(look)
        page.wait_for_selector("#freshness.stale")
        assert "Not updated for" in page.inner_text("#freshness")
        page.unroute("**/*")
        page.evaluate(look)
        page.wait_for_selector("#freshness:not(.stale)")

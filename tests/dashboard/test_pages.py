"""Pages over HTTP: each state in words, text from outside as text, nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import httpx
import pytest

LONGEST = "an-app-with-the-longest-name-that-mlguard-allows-0123456789-abcd"
STATES = {
    "well": ("well", "All is within its limits on well."),
    "failing": ("failing", "Incident 1 is open on failing: data drift is over its limit."),
    "rolled-back": ("rolled back", "rolled-back was rolled back from v8 to v7."),
    "blind": (
        "blind",
        "blind is served, but not watched: data drift should have judged by now.",
    ),
    "quiet": ("no traffic yet", "quiet serves, and nobody has asked it anything yet."),
    "new": ("nothing deployed", "new has never been deployed."),
}
PAGES = [
    "/",
    *(f"/apps/{name}" for name in STATES),
    f"/apps/{LONGEST}",
    "/apps/well/versions/v7",
    "/incidents/1",
    "/incidents/2",
    "/incidents/3",
    "/apps/nobody",
]


class Elements(HTMLParser):
    """All elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def get(server):
    """Ask for a page; remembers what it answered."""
    with httpx.Client(base_url=server, timeout=60) as client:
        yield client.get


@pytest.mark.parametrize("app", STATES)
def test_a_page_says_in_what_state_its_app_is(get, app):
    """The headline is what happened, beside a word with its shape."""
    word, headline = STATES[app]
    page = get(f"/apps/{app}").text
    assert re.search(r"<h1[^>]*>([^<]*)</h1>", page)[1] == headline
    state = re.search(r'<p class="period"><span class="verdict \w+">(.*?)</p>', page, re.DOTALL)[1]
    assert re.search(r">[✓✗!?–]</span> (.*?)</span>", state)[1] == word


def test_the_five_answers_come_in_their_order(get):
    """What happened, what serves, why, what mlguard did, what to do next; before any number."""
    page = re.sub(r"</?span[^>]*>", "", get("/apps/rolled-back").text)
    places = [
        page.index(text)
        for text in (
            "was rolled back from v8 to v7",
            "v7 serves, since",
            "error 0.35 [0.33, 0.37], n = 500; limit 0.3",
            "switched all traffic to v7",
            "mlguard deploy rolled-back --resolves 2",
            'id="live"',
        )
    ]
    assert places == sorted(places)


def test_the_list_puts_first_what_needs_somebody(get):
    """All apps, with what serves each; the grave ones above the others."""
    page = get("/").text
    assert "4 of 7 apps need somebody to look." in page
    order = re.findall(r'<h3><a href="/apps/([^"]+)"', page)
    assert set(order) == {*STATES, LONGEST}
    assert set(order[:4]) == {LONGEST, "blind", "failing", "rolled-back"}
    assert "v7 serves, since" in page


@pytest.mark.parametrize("path", PAGES)
def test_a_page_runs_and_loads_nothing_but_our_own(get, path, hostile):
    """No element, handler or address comes from text; the policy forbids what is not ours."""
    reply = get(path)
    page = Elements(reply.text)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src 'unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert [one["src"].partition("?")[0] for one in page.of("script")] == (
        [] if "/versions/" in path else ["/apps/-/dashboard.js"]
    )
    for tag, attributes in page.found:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert "/versions/" in path or "style" not in attributes
        for name in ("href", "src", "srcset"):
            address = attributes.get(name)
            assert address is None or address.startswith(("/", "#")), address
    turning = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
    assert not turning & set(reply.text)
    assert hostile[1][:3000] not in reply.text


def test_hostile_text_is_shown_as_text(get):
    """What is escaped is there, to be read: nobody loses a reason for its brackets."""
    page = get(f"/apps/{LONGEST}").text
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5
    assert "\\u202egnirts" in page
    assert "<script>alert" not in page


def test_a_reason_is_told_whole_and_once(house, get):
    """The answers at the head are not cut; a hold with the same reason only points to them."""
    text = Elements(get("/apps/rolled-back").text).text
    head = text.partition("Rows answered")[0]
    assert head.count("error 0.35 [0.33, 0.37], n = 500; limit 0.3") == 1
    assert "moved furthest. 100 % of the rise lies where it is below 3." in head
    assert "Promotions are held for that reason" in head
    house.registry.hold("rolled-back", "the auditors are here")
    head = Elements(get("/apps/rolled-back").text).text.partition("Rows answered")[0]
    assert "Promotions are held: the auditors are here" in head


def test_monitors_without_a_verdict_are_told_by_what_they_wait_for(get):
    """One clause for each state, not one for each monitor."""
    text = " ".join(Elements(get("/apps/rolled-back").text).text.split())
    assert re.search(r"No traffic judged yet: [a-z ,]+ and [a-z ]+\.", text)
    assert "Waiting for rows or labels: data drift, fairness and service." in text


def test_ids_on_a_page_are_unique(get):
    """What a script or a label points at is one thing."""
    for path in PAGES:
        ids = [found["id"] for _, found in Elements(get(path).text).found if "id" in found]
        assert len(ids) == len(set(ids)), path


def test_a_page_shows_groups_versions_gate_and_history(get):
    """Live groups with intervals, small ones by name only; each version's findings; the trail."""
    page = Elements(get("/apps/failing").text).text
    assert "False-negative rate is 0.11 higher for F than for M" in page
    assert "0.31 [0.28, 0.34]" in page
    assert "0.50" not in page  # the third group has four rows
    assert "Of live traffic, last window" in page
    for words in ("beats majority by 0.09", "too few rows to tell", "incident 1 opened on v2"):
        assert words in page
    assert "Of the gate's test data" in Elements(get("/apps/blind").text).text


def test_an_incident_has_a_page(get):
    """What happened, the numbers, what was done; it links to its app and its version."""
    reply = get("/incidents/2")
    page = Elements(reply.text)
    assert "Incident 2 of rolled-back is open: concept drift on v8." in page.text
    assert "0.35 [0.33, 0.37], n = 500" in page.text
    assert "rolled back to v7" in page.text
    links = {one.get("href") for one in page.of("a")}
    assert {"/apps/rolled-back", "/apps/rolled-back/versions/v8"} <= links
    marked = Elements(get("/apps/rolled-back").text).of("a")
    assert "/incidents/2" in {one.get("href") for one in marked}


def test_a_card_leads_back_to_its_app(get):
    """The card of the command line, with links."""
    page = Elements(get("/apps/well/versions/v7").text)
    assert {"/", "/apps/well"} <= {one.get("href") for one in page.of("a")}
    assert "retrained on October" in page.text


@pytest.mark.parametrize(
    "path", ["/apps/nobody", "/apps/well/versions/v99", "/incidents/99", "/incidents/x",
             "/incidents/99999999999999999999", "/apps/%3Cscript%3E"]
)  # fmt: skip
def test_what_is_not_there_is_a_page_as_well(get, path):
    """404, in words, with a way back."""
    reply = get(path)
    assert reply.status_code == 404
    assert reply.headers["content-type"].startswith("text/html")
    assert 'href="/"' in reply.text
    assert "<script>" not in reply.text


def test_from_elsewhere_a_page_needs_the_token(get, house):
    """Under a name that is not this machine's the reader is told how to come in."""
    from mlguard.serving.access import admin_token

    stranger = {"Host": "mlguard.example"}
    for path in ("/", "/apps/well", "/incidents/1", "/apps/well/versions/v7"):
        reply = get(path, headers=stranger)
        assert reply.status_code == 401
        assert "ssh -L" in reply.text
        assert "v7" not in reply.text
    token = admin_token(house.project)
    known = get("/", headers=stranger | {"Authorization": f"Bearer {token}"})
    assert known.status_code == 200


def test_pictures_follow_the_theme_and_are_kept(get):
    """SVG with its own colours; under an address that names its data it may be kept."""
    page = get("/apps/failing").text
    address = re.search(r'srcset="([^"]*time-[^"]*)"', page)[1].replace("&amp;", "&")
    reply = get(address)
    assert reply.headers["content-type"] == "image/svg+xml"
    assert "max-age" in reply.headers["cache-control"]
    assert "script-src" not in reply.headers["content-security-policy"]
    assert "prefers-color-scheme: dark" in reply.text
    assert "var(--ink)" in reply.text
    other = get(address.partition("&v=")[0])
    assert other.headers["cache-control"] == "no-store"
    assert other.text == reply.text
    assert get("/apps/failing/charts/time-0.svg").status_code == 404
    stranger = get(address, headers={"Host": "mlguard.example"})
    assert stranger.status_code == 401


def test_own_files_only(get):
    """Style, script and icon; nothing else of the file system."""
    kinds = {
        "dashboard.css": "text/css",
        "dashboard.js": "text/javascript",
        "mark.svg": "image/svg+xml",
    }
    for name, kind in kinds.items():
        reply = get(f"/apps/-/{name}")
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith(kind)
    for name in ("routes.py", "..%2Froutes.py", "%2Fetc%2Fpasswd"):
        assert get(f"/apps/-/{name}").status_code == 404


def test_numbers_are_those_of_the_server(get, server):
    """Rows that were asked stand on the page, and the app is no longer without traffic."""
    row = {"input_batch": [[0.5, 0.2], [3.0, 1.0], [0.1, 0.1]]}
    answers = httpx.post(f"{server}/quiet/predict", json=row, timeout=30).json()
    assert not any(one["default"] for one in answers["batch_predictions"])
    page = Elements(get("/apps/quiet").text).text
    assert re.search(r"Rows answered\s*3since the server started", page)
    assert re.search(r"Default answers\s*0 %0 rows", page)
    assert "nothing judged yet" in page


def test_a_project_without_apps_says_what_to_do(new_house, fronted, tmp_path):
    """The first page that a new user sees."""
    house = new_house(tmp_path / "empty", name="<b>nobody</b>")
    try:
        with fronted(house) as url:
            reply = httpx.get(url, timeout=30)
    finally:
        house.close()
    assert reply.status_code == 200
    assert "No app yet." in reply.text
    assert "mlguard init" in reply.text
    assert "&lt;b&gt;" in reply.text
    assert "<b>" not in reply.text

"""When people are told: for every order of events nothing is lost, and nobody is flooded."""

import dataclasses
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlguard.notify.due import reminder_due
from mlguard.notify.hours import last_digest, next_digest, quiet_until
from mlguard.notify.pacing import (
    EXEMPT,
    IMMEDIATE,
    THREAD_LENGTH,
    Rules,
    is_of_thread,
    message_id,
    plan,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=ZoneInfo("UTC")).timestamp()
HOUR, DAY = 3600.0, 86400.0
ANN = "ann@example.com"
#: How the reasons begin for which a row waits although nothing failed.
BY_RULE = ("quiet hours", "what belongs together", "the digest")


@dataclasses.dataclass
class Mail:
    """A row of the outbox."""

    id: int
    kind: str = "alert"
    incident: int | None = 1
    created_at: float = NOON
    app: str = "credit"
    recipient: str = ANN
    state: str = "PENDING"
    told_in: str = ""
    next_at: float = 0.0
    lease_until: float | None = None
    settled_at: float | None = None


class Post:
    """Sends what is planned, at once; remembers each message."""

    def __init__(self, rules=None):
        self.rules = rules or Rules()
        self.rows = []
        self.sent = []

    def add(self, kind="alert", *, at=NOON, **fields):
        self.rows.append(Mail(len(self.rows) + 1, kind, created_at=at, **fields))
        return self.rows[-1]

    def due(self, now):
        queue = [row for row in self.rows if row.state in ("PENDING", "SENDING", "RETRY")]
        told = [row for row in self.rows if row.told_in and row.settled_at is not None]
        found = plan(queue, told, self.rules, now)
        planned = [one for parcel in found.parcels for one in parcel.rows]
        assert len(planned) == len(set(planned)), "a row is in one message"
        assert set(planned).isdisjoint(found.waits), "a row goes or waits"
        assert {*planned, *found.waits} == {row.id for row in queue}, "no row is forgotten"
        by_rule = {row for row, (_, why) in found.waits.items() if why.startswith(BY_RULE)}
        assert found.due.keys() == {row.id for row in queue} - by_rule, (
            "what a rule delays is not due"
        )
        assert all(since <= now for since in found.due.values())
        return found

    def run(self, now):
        """Send what is due; return the kinds of each message."""
        out = []
        for parcel in self.due(now).parcels:
            rows = [self.rows[one - 1] for one in parcel.rows]
            told_in = message_id(parcel, f"<own-{rows[-1].id}@x>", installation="i", domain="x")
            for row in rows:
                row.state, row.told_in, row.settled_at = "SENT", told_in, now
            self.sent.append((now, parcel, told_in))
            out.append([row.kind for row in rows])
        return out


class Unsteady(Post):
    """As :class:`Post`, but what is sent arrives, fails, or is never heard of again."""

    def __init__(self, rules):
        super().__init__(rules)
        self.told = {}

    def blocked(self, row):
        """Whether something of the row's incident may have arrived, and is to be sent again."""
        return any(
            one.incident == row.incident and one.state != "SENT"
            for one in self.rows
            if row.incident is not None and one.told_in
        )

    def attempt(self, now, end):
        for parcel in self.due(now).parcels:
            rows = [self.rows[one - 1] for one in parcel.rows]
            told_in = message_id(parcel, f"<own-{rows[-1].id}@x>", installation="i", domain="x")
            for row in rows:
                if end == "arrives":
                    assert row.id not in self.told
                    row.state, row.told_in, row.settled_at = "SENT", told_in, now
                    self.told[row.id] = told_in, now
                else:
                    row.state, row.next_at = "RETRY", now + 60
                    # What was sent again stays the same message, whatever becomes of it.
                    row.told_in = told_in if end == "unknown" or parcel.again else ""
            if end == "arrives":
                self.sent.append((now, parcel, told_in))

    def _paced(self):
        for at, parcel, told_in in self.sent:
            kinds = {self.rows[one - 1].kind for one in parcel.rows}
            if not parcel.digest and not kinds & EXEMPT:
                yield at, parcel, told_in

    def messages_a_day(self):
        days = {}
        for at, _, told_in in self._paced():
            days.setdefault(last_digest(self.rules.digest, at), set()).add(told_in)
        return days

    def paced_times(self):
        return [at for at, parcel, _ in self._paced() if not parcel.again]


def test_the_first_message_waits_for_what_belongs_to_it():
    """Thirty seconds: an alert, a freeze and other incidents of the app are one message."""
    post = Post()
    post.add("alert")
    post.add("frozen", at=NOON + 10)
    post.add("alert", at=NOON + 12, incident=2)
    post.add("alert", at=NOON + 12, incident=3, app="iris")
    assert post.run(NOON + 29) == []
    assert post.run(NOON + 30) == [["alert", "frozen", "alert"]]
    assert post.run(NOON + 42) == [["alert"]]


def test_two_messages_of_an_incident_are_five_minutes_apart():
    """Whatever happens meanwhile is told in the second."""
    post = Post()
    post.add("alert")
    post.run(NOON + 30)
    post.add("frozen", at=NOON + 40)
    post.add("cleared", at=NOON + 90)
    assert post.run(NOON + 329) == []
    assert post.run(NOON + 330) == [["frozen", "cleared"]]


@pytest.mark.parametrize("kind", sorted(IMMEDIATE))
def test_what_cannot_wait_goes_at_once_and_takes_along_what_waits(kind):
    """Also within five minutes of another message, and nothing is overtaken."""
    post = Post()
    post.add("alert")
    post.run(NOON + 30)
    post.add("frozen", at=NOON + 31)
    post.add(kind, at=NOON + 32)
    assert post.run(NOON + 32) == [["frozen", kind]]


def test_above_the_cap_only_what_changes_what_serves_is_told():
    """The rest stands in the digest; afterwards the count begins anew."""
    post = Post(Rules(cap_per_day=3))
    for number in range(5):
        post.add("report", incident=None, at=NOON + number)
    assert len(post.run(NOON + 10)) == 3
    post.add("rolled_back", incident=9, at=NOON + 20)
    post.add("default_output", incident=8, at=NOON + 20)
    assert len(post.run(NOON + 20)) == 2
    assert post.run(NOON + 19 * HOUR) == []
    eight = next_digest("08:00 UTC", NOON)
    assert post.run(eight + 1) == [["report", "report"]]
    assert post.sent[-1][1].digest
    post.add("report", incident=None, at=eight + 2)
    assert post.run(eight + 3) == [["report"]]


def test_a_digest_and_what_the_cap_held_back_are_one_message():
    """One digest a day and recipient."""
    post = Post(Rules(cap_per_day=1))
    post.add("report", incident=None)
    post.add("alert", at=NOON + 1)
    post.run(NOON + 60)
    eight = next_digest("08:00 UTC", NOON)
    post.add("digest", incident=None, app="", at=eight)
    assert post.run(eight) == [["alert", "digest"]]


def test_quiet_hours_let_only_what_changes_what_serves_through():
    """What else happened is told when they end, one message an incident."""
    post = Post(Rules(quiet="11:00 to 14:00 UTC"))
    post.add("alert")
    post.add("frozen", at=NOON + 600)
    post.add("refused", incident=None, at=NOON + 700)
    post.add("rolled_back", incident=2, at=NOON + 800)
    assert post.run(NOON + 900) == [["rolled_back"]]
    assert post.due(NOON + 900).waits[1] == (NOON + 2 * HOUR, "quiet hours")
    assert post.run(NOON + 2 * HOUR) == [["alert", "frozen"], ["refused"]]


def overdue(post, now):
    """Return for how many seconds the oldest mail ought to have been gone; None: none is due."""
    since = post.due(now).oldest_due()
    return None if since is None else now - since


def test_mail_is_due_when_quiet_hours_end():
    """What they keep back has not waited at all; a rollback waits from its first moment."""
    post = Post(Rules(quiet="11:00 to 14:00 UTC"))
    post.add("alert")
    assert overdue(post, NOON + HOUR) is None
    assert overdue(post, NOON + 2 * HOUR + 60) == 60
    post.add("rolled_back", incident=2, at=NOON + 600)
    assert overdue(post, NOON + 700) == 100


def test_mail_is_due_when_what_belongs_together_is_together():
    """Half a minute after the first of an incident, five minutes after the message before."""
    post = Post()
    post.add("alert")
    assert overdue(post, NOON + 29) is None
    assert overdue(post, NOON + 45) == 15
    post.run(NOON + 30)
    post.add("frozen", at=NOON + 40)
    assert overdue(post, NOON + 329) is None
    assert overdue(post, NOON + 350) == 20


def test_what_the_cap_keeps_back_is_due_with_the_digest():
    """Not while it waits for it; and not since it was written."""
    post = Post(Rules(cap_per_day=1))
    post.add("report", incident=None)
    post.add("report", incident=None, at=NOON + 1)
    post.run(NOON + 10)
    eight = next_digest("08:00 UTC", NOON)
    assert overdue(post, eight - 1) is None
    assert overdue(post, eight + 30) == 30
    (parcel,) = post.due(eight + 30).parcels
    row = post.rows[1]
    # Tried in vain, it is the digest that is late.
    row.state, row.told_in, row.next_at = "RETRY", f"<digest-i-{parcel.rows[0]}@x>", eight + 3600
    assert overdue(post, eight + 1800) == 1800


@pytest.mark.parametrize("state", ["RETRY", "SENDING"])
def test_mail_that_could_not_be_sent_is_due_since_it_was_written(state):
    """Five hours without a mail server are five hours, whenever the next attempt is."""
    post = Post()
    row = post.add("rolled_back")
    row.state, row.next_at = state, NOON + 5 * HOUR + 600
    row.lease_until = row.next_at
    post.add("cleared", at=NOON + HOUR)
    assert overdue(post, NOON + 5 * HOUR) == 5 * HOUR


def test_what_may_have_arrived_is_sent_again_as_it_was():
    """The same rows and the same Message-ID; what came after it waits."""
    post = Post()
    first = post.add("alert")
    first.state, first.told_in, first.next_at = "RETRY", "<inc-i-1.0@x>", NOON + 600
    post.add("frozen", at=NOON + 100)
    assert post.run(NOON + 500) == []
    (parcel,) = post.due(NOON + 600).parcels
    assert (parcel.rows, parcel.again) == ((1,), "<inc-i-1.0@x>")
    first.state, first.lease_until = "SENDING", NOON + 1200
    assert post.run(NOON + 700) == []
    assert post.run(NOON + 1200) == [["alert"]]


def test_nothing_overtakes_a_row_that_waits_for_its_next_attempt():
    """And then one message tells of all."""
    post = Post()
    first = post.add("alert")
    first.state, first.next_at = "RETRY", NOON + 600
    post.add("cleared", at=NOON + 100)
    assert post.run(NOON + 500) == []
    assert post.run(NOON + 600) == [["alert", "cleared"]]


def test_a_rollback_does_not_wait_for_the_next_attempt_of_an_alert():
    """It goes at once, and takes the alert along; where it fails, both wait for theirs."""
    post = Post()
    for row in (post.add("alert"), post.add("frozen", at=NOON + 1)):
        row.state, row.next_at = "RETRY", NOON + 3000
    rollback = post.add("rolled_back", at=NOON + 100)
    assert [one.rows for one in post.due(NOON + 100).parcels] == [(1, 2, 3)]
    rollback.state, rollback.next_at = "RETRY", NOON + 160
    assert post.run(NOON + 161) == []
    assert post.run(NOON + 3000) == [["alert", "frozen", "rolled_back"]]


def test_a_thread_ends_after_a_hundred_messages():
    """The next one is the root of a new thread."""
    post = Post(Rules(group_interval=0, group_wait=0, cap_per_day=1000))
    for number in range(THREAD_LENGTH + 2):
        post.add("alert", at=NOON + number)
        post.run(NOON + number)
    ids = [told_in for _, _, told_in in post.sent]
    assert ids[0] == "<inc-i-1.0@x>"
    assert ids[99:] == ["<inc-i-1.99@x>", "<inc-i-1-part2.0@x>", "<inc-i-1-part2.1@x>"]
    assert all(is_of_thread(one, 1) for one in ids)


def test_a_program_is_told_of_everything_at_once():
    """No grouping, no cap, no quiet hours: each event by itself, in order."""
    rules = Rules(cap_per_day=1, quiet="00:00 to 23:59 UTC", unpaced=frozenset({"webhook"}))
    post = Post(rules)
    for kind in ("alert", "frozen", "rolled_back"):
        post.add(kind, recipient="webhook")
    assert post.run(NOON) == [["alert"], ["frozen"], ["rolled_back"]]
    assert len({told_in for _, _, told_in in post.sent}) == 3


def test_a_clock_that_was_set_back_delays_nothing():
    """What lies in the future is taken as past."""
    post = Post()
    post.add("alert", at=NOON + DAY, next_at=NOON + DAY)
    assert post.run(NOON) == [["alert"]]
    post.rows[0].settled_at = NOON + DAY
    post.add("cleared", at=NOON)
    assert post.run(NOON) == [["cleared"]]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["alert", "frozen", "cleared", "reminder", "report", "refused", "blind"] * 3
            + ["rolled_back", "default_output", "digest"]
        ),
        st.integers(1, 4),
        st.sampled_from(["credit", "iris"]),
        st.sampled_from([0.0, 1.0, 20.0, 400.0, HOUR, 7 * HOUR]),
        st.sampled_from(["arrives", "arrives", "fails", "unknown"]),
    ),
    min_size=1,
    max_size=40,
)


@given(events=EVENTS, cap=st.integers(1, 6), quiet=st.sampled_from(["", "22:00 to 07:00 UTC"]))
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_and_nobody_is_flooded(events, cap, quiet):
    """Any events, any failures: all is told, in order, few a day, what is urgent at once."""
    post = Unsteady(Rules(cap_per_day=cap, quiet=quiet))
    now = NOON
    for kind, incident, app, wait, end in events:
        now += wait
        alone = kind in ("report", "refused", "digest")
        place = "" if kind == "digest" else app
        row = post.add(kind, at=now, app=place, incident=None if alone else incident)
        free = not post.blocked(row)
        post.attempt(now, end)
        if kind in EXEMPT and end == "arrives" and free:
            assert post.told[row.id][1] == now, "what changes what serves is told at once"
    for _ in range(24 * 9):
        now += HOUR
        post.attempt(now, "arrives")
    assert set(post.told) == {row.id for row in post.rows}, "everything was told in the end"
    for number in range(1, 5):
        times = [post.told[row.id][1] for row in post.rows if row.incident == number]
        assert times == sorted(times), "an incident is told in order"
    again = [parcel for _, parcel, _ in post.sent if parcel.again]
    days = post.messages_a_day()
    # What may have arrived is sent again whatever the cap; all else is counted.
    assert all(len(one) <= cap + len(again) for one in days.values())
    assert all(quiet_until(quiet, at) is None for at in post.paced_times())


# --- hours ---------------------------------------------------------------------------------


@given(st.floats(1.7e9, 1.9e9), st.sampled_from(["08:00", "02:30", "00:00", "23:59"]))
@settings(max_examples=60, deadline=None)
def test_every_local_day_has_one_digest(now, time):
    """Also where the clocks change: no day has none, none has two."""
    daily = f"{time} Europe/Berlin"
    last, coming = last_digest(daily, now), next_digest(daily, now)
    assert last <= now < coming
    assert next_digest(daily, last) == coming
    assert last_digest(daily, coming) == coming
    assert 23 * HOUR <= coming - last <= 25 * HOUR


def test_a_time_that_does_not_exist_is_taken_after_the_gap():
    """On 2026-03-29 Berlin has no 02:30; on 2026-10-25 it has two."""
    berlin = ZoneInfo("Europe/Berlin")
    gap = datetime(2026, 3, 29, 12, tzinfo=berlin).timestamp()
    assert datetime.fromtimestamp(last_digest("02:30 Europe/Berlin", gap), berlin).hour == 3
    twice = datetime(2026, 10, 25, 12, tzinfo=berlin).timestamp()
    assert (
        last_digest("02:30 Europe/Berlin", twice)
        == datetime(2026, 10, 25, 0, 30, tzinfo=ZoneInfo("UTC")).timestamp()
    )


def test_people_are_reminded_after_four_hours_and_then_daily():
    """Any news starts the silence anew."""
    told = [("alert", 0.0)]
    reminded = []
    for hour in range(100):
        if hour == 60:
            told.append(("frozen", hour * HOUR))
        if reminder_due(0.0, told, 4 * HOUR, hour * HOUR):
            told.append(("reminder", hour * HOUR))
            reminded.append(hour)
    assert reminded == [4, 28, 52, 64, 88]

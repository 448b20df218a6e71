"""Heartbeats, query ids and leader leases, on both databases."""

import os
import subprocess
import sys
import threading

import pytest

from mlguard.errors import RegistryError
from mlguard.registry.liveness import Owner, expired, this_process
from mlguard.registry.servers import ID_LIMIT


def test_a_server_says_what_it_holds(house):
    """Observed generations, loaded versions, and what it could not load."""
    registry = house.registry
    registry.server_hello("s1", host="here", pid=7, url="http://here:1337")
    assert registry.server_beat("s1", observed={"iris": 3}, loaded=[5, 2], failed={9: "no file"})
    (server,) = registry.live_servers()
    assert (server.id, server.host, server.pid, server.url) == (
        "s1",
        "here",
        7,
        "http://here:1337",
    )
    assert (server.observed, server.loaded, server.failed) == (
        {"iris": 3},
        (2, 5),
        {9: "no file"},
    )
    registry.server_bye("s1")
    assert registry.live_servers() == []


def test_a_silent_server_is_not_waited_for(house):
    """Half a minute; after an hour reconcile forgets it, and its next beat is to say hello."""
    registry = house.registry
    registry.server_hello("s1", host="here", pid=7, url="")
    house.clock.advance(30)
    assert len(registry.live_servers()) == 1
    house.clock.advance(1)
    assert registry.live_servers() == []
    assert [one.id for one in registry.silent_servers()] == ["s1"]
    assert registry.reconcile() == []
    house.clock.advance(3600)
    assert registry.silent_servers() == []
    assert registry.reconcile() == ["server s1 is gone"]
    assert registry.reconcile() == []
    assert registry.server_beat("s1", observed={}, loaded=[], failed={}) is False
    registry.server_hello("s1", host="here", pid=7, url="")
    assert registry.server_beat("s1", observed={}, loaded=[], failed={}) is True


def test_query_ids_are_dense_and_lead_back(house):
    """Blocks follow one another; an id names app, version and generation."""
    registry = house.registry
    first = registry.reserve_ids("iris", 4, 2, "s1", size=100)
    second = registry.reserve_ids("credit", None, 0, "s2", size=50)
    assert (first, second) == (range(1, 101), range(101, 151))
    block = registry.id_block(100)
    assert (block.app, block.version_id, block.generation) == ("iris", 4, 2)
    assert (block.first, block.size, block.server_id) == (1, 100, "s1")
    assert registry.id_block(101).app == "credit"
    assert registry.id_block(101).version_id is None
    for never in (0, -1, 151, ID_LIMIT, 10**30):
        assert registry.id_block(never) is None


def test_query_ids_end_below_two_to_the_53(house):
    """A JSON reader with doubles holds every id exactly."""
    with pytest.raises(RegistryError, match="2\\*\\*53"):
        house.registry.reserve_ids("iris", 1, 1, "s", size=2**53)
    assert house.registry.reserve_ids("iris", 1, 1, "s", size=ID_LIMIT - 1)[-1] == ID_LIMIT - 1
    with pytest.raises(RegistryError):
        house.registry.reserve_ids("iris", 1, 1, "s", size=1)


def test_threads_never_share_an_id(house):
    """Concurrent reservations are disjoint and leave no gap."""
    found: list[range] = []

    def reserve() -> None:
        for _ in range(5):
            found.append(house.registry.reserve_ids("iris", 1, 1, "s", size=10))

    threads = [threading.Thread(target=reserve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for block in found for number in block) == list(range(1, 201))


def test_one_leads_until_it_is_silent(house):
    """A lease is kept by asking again, taken when it ends, and given up."""
    registry = house.registry
    assert registry.lease("monitors", "a", 10)
    assert not registry.lease("monitors", "b", 10)
    house.clock.advance(8)
    assert registry.lease("monitors", "a", 10)
    house.clock.advance(8)
    assert not registry.lease("monitors", "b", 10)
    assert registry.lease("reconcile", "b", 10)
    house.clock.advance(3)
    assert registry.lease("monitors", "b", 10)
    assert not registry.lease("monitors", "a", 10)
    registry.give_up_lease("monitors", "a")
    assert not registry.lease("monitors", "a", 10)
    registry.give_up_lease("monitors", "b")
    assert registry.lease("monitors", "a", 10)


# --- whose lease it is -------------------------------------------------------------------


def test_this_process_is_there():
    """Its lease lasts for its time to live, and its name survives being written down."""
    me = this_process()
    assert me.pid == os.getpid()
    assert Owner.from_text(me.to_text()) == me
    assert not me.gone()
    assert not expired(me.to_text(), 100.0, 130.0)
    assert expired(me.to_text(), 100.0, 130.1)
    assert str(os.getpid()) in str(me)


def test_a_process_that_ended_is_gone_at_once():
    """No waiting for its lease: not while its number is free, nor as a zombie."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    program = "from mlguard.registry.liveness import _born; import sys; print(_born(%d))"
    found = subprocess.run(
        [sys.executable, "-c", program % child.pid], capture_output=True, text=True, check=True
    )
    me = this_process()
    owner = Owner(me.host, me.space, child.pid, found.stdout.strip())
    assert not owner.gone()
    child.kill()
    # Not waited for yet: a zombie holds its number but does nothing any more.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owner.gone()
    child.communicate()
    assert owner.gone()
    assert expired(owner.to_text(), 100.0, 100.0)


def test_a_number_that_is_used_again_is_another_process():
    """Same number, other birth: gone."""
    me = this_process()
    assert Owner(me.host, me.space, me.pid, "1").gone()


def test_an_earlier_boot_is_gone_and_other_places_cannot_be_told():
    """Another boot of this host is over; another host or namespace has only its lease."""
    me = this_process()
    boot, _, namespace = me.space.partition("/")
    assert Owner(me.host, f"0000/{namespace}", me.pid, me.born).gone()
    assert not Owner("elsewhere", me.space, 999999999, "1").gone()
    assert not Owner(me.host, f"{boot}/pid:[1]", 999999999, "1").gone()

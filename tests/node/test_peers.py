"""Links between members: who is let in, what arrives, and what a break, silence and a new boot look like (S2, S10)."""

from __future__ import annotations

import pytest
import trio
from attrs import evolve
from tests.node.peer_rig import CLUSTER, Place, Rig, beat, dial_as, member_row, of_kind, play, url_of
from tests.transport.helpers import cancelled_at
from trio import fail_after, sleep

from coord.errors import DiskError
from coord.limits import PEER_FRAME_BYTES, PEER_SEND_BUFFER_HIGH_BYTES
from coord.node.dialler import BREAK_CHECK_S
from coord.node.peers import Network
from coord.protocol.hello import Purpose, Refusal, RefusalCode, Welcome, decode_answer, encode_hello
from coord.protocol.messages import Append, Heartbeat
from coord.protocol.ops import PEER_SUBPROTOCOL
from coord.protocol.peer_protocol import decode_frame, encode_frame
from coord.transport.link import CLOSE_INVALID_DATA, Link, LinkClosed, LinkEnd, LinkFailed
from coord.transport.memory import WINDOW_BYTES, MemoryLink, MemoryWire


def append(sender: int, to: int, index: int, size: int) -> Append:
    return Append(sender, to, 1, index - 1, 1, 0, [(index, 1, bytes(size))])


def test_each_dials_the_other_and_messages_keep_their_order() -> None:
    async def story(place: Place) -> None:
        one, two = await place.start(1, 2)
        await sleep(0.1)
        for rig, other in ((one, 2), (two, 1)):
            assert rig.names("up", "broken") == [("up", other)]
            assert rig.names("introduced") == [("introduced", other, 1)]
            assert rig.peers.is_linked(other)
        one.say(*(beat(1, 2, round_id) for round_id in range(5)))
        one.say(beat(1, 2, 5))
        two.say(beat(2, 1, 9))
        await sleep(0.1)
        assert [message.round for message in two.got[1]] == [0, 1, 2, 3, 4, 5]
        assert one.got[2] == [beat(2, 1, 9)]
        # One frame a turn.
        assert two.names("received") == [("received", 1, 5), ("received", 1, 1)]
        [opened] = one.log.of("peer.link.opened")
        assert (opened["member"], opened["name"], opened["url"], opened["boot"]) == (2, "n2", url_of(2), 1)

    play(story)


def test_both_remember_the_other_before_anything_rests_on_it() -> None:
    async def story(place: Place) -> None:
        one, two = await place.start(1, 2)
        await sleep(0.1)
        for rig, other in ((one, 2), (two, 1)):
            assert rig.names("remembered", "up", "introduced")[0] == ("remembered", other, 1)
            assert dict(rig.known)[other][:2] == (0x1000 + other, 1)

    play(story)


def test_disk_that_cannot_remember_ends_the_node() -> None:
    async def story(place: Place) -> None:
        [one] = await place.start(1)

        def fail(*_: int) -> None:
            raise DiskError("no")

        one.remember_peer = fail  # type: ignore[assignment]
        await place.start(2)
        await sleep(1)

    with pytest.RaisesGroup(DiskError, flatten_subgroups=True):
        play(story)


def test_refusal_is_told_on_both_sides_with_the_remedy() -> None:
    async def story(place: Place) -> None:
        [one] = await place.start(1, known={2: (0xBAD, 4, 4)})
        [two] = await place.start(2)
        await sleep(20)
        assert not one.names("introduced")
        assert not two.names("up")
        assert {event[2] for event in two.names("refused")} == {"other-incarnation"}
        told = two.log.of("peer.link.refused")
        assert 1 <= len(told) <= 4, "repeated refusals are not repeated in the log"
        assert told[0]["name"] == "n1"
        assert "coord member remove 2" in told[0]["reason"]
        assert one.log.of("peer.hello.refused")[0]["code"] == "other-incarnation"

    play(story)


def test_removed_member_is_told_so() -> None:
    async def story(place: Place) -> None:
        await place.start(1, removed=frozenset({2}))
        [two] = await place.start(2)
        await sleep(1)
        assert ("refused", 1, str(RefusalCode.REMOVED)) in two.names("refused")

    play(story)


def test_who_reaches_another_member_hangs_up() -> None:
    async def story(place: Place) -> None:
        [one] = await place.start(1)
        # At the URL of member 2 somebody answers who is member 3 and takes this node's calls for his.
        [three] = await place.start(3)
        place.network.ports[url_of(2)] = place.network.ports[url_of(3)]
        await sleep(1)
        assert ("up", 3) in one.names("up")
        assert ("up", 2) not in one.names("up")
        assert ("refused", 2, "other-name") in one.names("refused")
        assert three.log.of("peer.hello.refused")[0]["code"] == "other-name"

    play(story, size=3)


def test_killed_process_is_seen_at_once() -> None:
    async def story(place: Place) -> None:
        [_, two, three] = await place.start(1, 2, 3)
        await sleep(5)
        killed_at = trio.current_time()
        place.kill(1)
        await sleep(5)
        for rig in (two, three):
            told = rig.names("broken")
            assert told[0] == ("broken", 1, False)
            assert told.count(("broken", 1, True)) == 1
            # A round trip to the dead process's host: the links of this network take up to 3 ms each way.
            assert rig.time_of("broken", 1, True) - killed_at < 0.02
            assert not rig.peers.is_linked(1)
            assert rig.peers.missing() == [1]
            [gone] = rig.log.of("peer.process.gone")
            assert (gone["member"], gone["name"]) == (1, "n1")

    play(story, size=3)


class Resetting:
    """A network on which a dying process still takes links, and resets them."""

    def __init__(self, network: Network, resets: int) -> None:
        self.network, self.resets = network, resets

    async def dial(self, url: str) -> Link:
        if self.resets:
            self.resets -= 1
            await sleep(0.001)
            raise LinkFailed(f"{url}: Connection reset by peer")
        return await self.network.dial(url)


def test_dying_process_that_still_takes_links_is_seen_soon() -> None:
    async def story(place: Place) -> None:
        _, two = await place.start(1, 2)
        await sleep(5)
        two.peers.network = Resetting(two.peers.network, 2)
        killed_at = trio.current_time()
        place.kill(1)
        await sleep(1)
        assert two.names("broken").count(("broken", 1, True)) == 1
        assert two.time_of("broken", 1, True) - killed_at < 0.04

    play(story)


def test_break_of_the_others_link_alone_is_checked_at_once_too() -> None:
    async def story(place: Place) -> None:
        [one] = await place.start(1)
        await sleep(10)
        link = await dial_as(place, 2, Rig(place, 2, boot=1).hello(1, Purpose.MESSAGES), 1)
        await sleep(0.4)
        assert one.names("introduced", "broken") == [("introduced", 2, 1)]
        broke_at = trio.current_time()
        link.abort()
        await sleep(0.3)
        assert one.names("broken") == [("broken", 2, False), ("broken", 2, True)]
        assert one.time_of("broken", 2, True) - broke_at < 0.05

    play(story)


def test_break_under_a_living_process_is_only_a_break() -> None:
    async def story(place: Place) -> None:
        one, two = await place.start(1, 2)
        await sleep(5)
        broke_at = trio.current_time()
        place.network.reset("n1", "n2")
        await sleep(5)
        for rig, other in ((one, 2), (two, 1)):
            assert ("broken", other, True) not in rig.names("broken")
            assert rig.names("up") == [("up", other), ("up", other)]
            again = [event[-1] for event in rig.events if event[0] == "up"][-1]
            assert again - broke_at < 0.02
            assert len(rig.log.of("peer.link.lost")) >= 2

    play(story)


def test_link_that_flaps_is_dialled_ever_more_rarely() -> None:
    async def story(place: Place) -> None:
        [one] = await place.start(1)
        await place.start(2)
        before = place.network.dialled
        for _ in range(1_000):
            place.network.reset("n1", "n2")
            await sleep(0.01)
        # Ten seconds, in which each of the two may dial every 25 ms; a hot loop would dial 2000 times.
        assert place.network.dialled - before < 810
        assert ("broken", 2, True) not in one.names("broken")

    play(story)


def test_nobody_was_there_is_no_break() -> None:
    async def story(place: Place) -> None:
        [one] = await place.start(1)
        await sleep(30)
        assert not one.names("broken")

    play(story)


def test_node_that_is_alone_tells_now_and_then_whom_it_misses() -> None:
    async def story(place: Place) -> None:
        [one] = await place.start(1)
        await sleep(3_600)
        told = one.log.of("peer.link.failed")
        assert {event["name"] for event in told} == {"n2", "n3"}
        assert 2 * 50 <= len(told) <= 2 * 70
        assert told[-1]["attempts"] > 3_000
        assert told[-1]["is_refused"]
        await place.start(2)
        await sleep(1.1)
        assert one.peers.missing() == [3]

    play(story, size=3)


@pytest.mark.parametrize(("sender", "receiver"), [("n1", "n2"), ("n2", "n1")])
def test_silence_is_no_break(sender: str, receiver: str) -> None:
    async def story(place: Place) -> None:
        one, two = await place.start(1, 2)
        await sleep(5)
        place.network.cut(sender, receiver)
        await sleep(3)
        assert not one.names("broken")
        await sleep(4)
        for rig, other in ((one, 2), (two, 1)):
            assert ("broken", other, False) in rig.names("broken")
            assert ("broken", other, True) not in rig.names("broken")
        assert {event["end"] for rig in (one, two) for event in rig.log.of("peer.link.lost")} >= {"silent"}
        await sleep(60)
        place.network.heal()
        await sleep(4)
        assert one.peers.is_linked(2)
        assert two.peers.is_linked(1)
        assert not one.log.of("peer.process.gone") + two.log.of("peer.process.gone")

    play(story)


def test_silence_is_no_break_though_the_port_refuses() -> None:
    """S10: a middlebox may refuse what it also swallows, so that nobody forgets a leader that may live."""

    async def story(place: Place) -> None:
        [_, two] = await place.start(1, 2)
        await sleep(5)
        place.network.stop("n1")
        del place.network.ports[url_of(1)]
        await sleep(10)
        assert two.log.of("peer.link.failed")[0]["is_refused"]
        assert ("broken", 1, False) in two.names("broken")
        assert ("broken", 1, True) not in two.names("broken")

    play(story)


def test_newer_boot_takes_the_place_of_the_older() -> None:
    async def story(place: Place) -> None:
        one, two = await place.start(1, 2)
        await sleep(2)
        # The process of member 2 is gone, but nothing of it reached member 1: its links are half open.
        place.network.cut("n2", "n1")
        place.network.kill("n2")
        two.scope.cancel()
        await sleep(0.2)
        assert one.peers.is_linked(2)
        place.network.heal()
        [again] = await place.start(2, boot=2)
        await sleep(0.5)
        assert one.names("introduced")[-1] == ("introduced", 2, 2)
        one.say(beat(1, 2, 77))
        again.say(beat(2, 1, 88))
        await sleep(0.5)
        assert again.got[1][-1] == beat(1, 2, 77)
        assert one.got[2][-1] == beat(2, 1, 88)

    play(story, patience=None)


def test_newer_boot_ends_links_that_still_stand() -> None:
    async def story(place: Place) -> None:
        [one, two] = await place.start(1, 2)
        await sleep(2)
        hello = evolve(two.hello(1, Purpose.MESSAGES), boot=2, nonce=99)
        link = await dial_as(place, 2, hello, 1)
        assert isinstance(decode_answer(await link.recv()), Welcome)
        await sleep(0.1)
        # Both links with the old boot are gone; its process is refused from now on.
        assert two.names("broken").count(("broken", 1, False)) >= 2
        await sleep(2)
        assert ("refused", 1, "old-boot") in two.names("refused")
        link.send(encode_frame([beat(2, 1, 5)]))
        await sleep(0.1)
        assert one.got[2] == [beat(2, 1, 5)]
        link.abort()

    play(story)


@pytest.mark.parametrize(
    "frame",
    [
        encode_frame([Heartbeat(3, 1, 1, 0, 0)]),
        encode_frame([Heartbeat(2, 3, 1, 0, 0)]),
        b"rubbish",
        b"",
    ],
)
def test_message_that_is_not_the_peers_ends_its_link(frame: bytes) -> None:
    async def story(place: Place) -> None:
        [one] = await place.start(1)
        hello = Rig(place, 2, boot=1).hello(1, Purpose.MESSAGES)
        link = await dial_as(place, 2, hello, 1)
        assert isinstance(decode_answer(await link.recv()), Welcome)
        link.send(encode_frame([beat(2, 1, 1)]))
        link.send(frame)
        with pytest.raises(LinkClosed) as ended:
            await link.recv()
        assert (ended.value.end, ended.value.code) == (LinkEnd.PEER, CLOSE_INVALID_DATA)
        assert one.got == {2: [beat(2, 1, 1)]}
        assert one.log.of("peer.message.refused")[0]["member"] == 2
        link.abort()

    play(story, size=3)


@pytest.mark.parametrize("first", [b"", b"rubbish", encode_frame([beat(2, 1)])])
def test_link_that_does_not_begin_with_a_hello_is_closed(first: bytes) -> None:
    async def story(place: Place) -> None:
        [one] = await place.start(1)
        link = await place.network.dial("n2", url_of(1), "coord-peer.v1")
        link.send(first)
        with pytest.raises(LinkClosed):
            await link.recv()
        quiet = await place.network.dial("n2", url_of(1), "coord-peer.v1")
        with fail_after(5), pytest.raises(LinkClosed):
            await quiet.recv()
        assert len(one.log.of("peer.hello.refused")) == 2
        assert not one.log.of("peer.hello.missing")
        (await place.network.dial("n2", url_of(1), "coord-peer.v1")).abort()
        await sleep(1)
        assert one.log.of("peer.hello.missing")
        assert len(one.log.of("peer.hello.refused")) == 2, "nobody was turned away"
        assert not one.names("introduced", "received")

    play(story)


def test_answer_that_never_comes_is_given_up() -> None:
    async def story(place: Place) -> None:
        port = place.network.listen("n2", url_of(2))
        [one] = await place.start(1)
        link = await port.accept()
        await link.recv()
        with fail_after(5), pytest.raises(LinkClosed):
            await link.recv()
        await sleep(0.1)
        assert "within 2 s" in one.log.of("peer.link.failed")[0]["error"]

    play(story)


def test_entries_are_dropped_above_the_mark_and_heartbeats_are_not() -> None:
    async def story(place: Place) -> None:
        one, two = await place.start(1, 2)
        await sleep(1)
        place.network.cut("n1", "n2")
        size = PEER_FRAME_BYTES // 2
        count = 2 * PEER_SEND_BUFFER_HIGH_BYTES // size
        for index in range(1, count + 1):
            one.say(beat(1, 2, index), append(1, 2, index, size))
        place.network.heal()
        await sleep(1)
        arrived = of_kind(two.got[1], Append)
        assert PEER_SEND_BUFFER_HIGH_BYTES // size <= len(arrived) <= PEER_SEND_BUFFER_HIGH_BYTES // size + 1
        assert [message.round for message in of_kind(two.got[1], Heartbeat)] == list(range(1, count + 1))
        assert one.log.of("peer.link.congested")

    play(story)


def test_much_is_split_into_frames_and_little_shares_one() -> None:
    async def story(place: Place) -> None:
        one, two = await place.start(1, 2)
        await sleep(1)
        small = [append(1, 2, index, 1_000) for index in range(1, 21)]
        large = [append(1, 2, index, PEER_FRAME_BYTES) for index in range(21, 24)]
        one.say(*small)
        await sleep(1)
        assert two.names("received") == [("received", 1, 20)]
        one.say(*large)
        await sleep(1)
        assert two.names("received") == [("received", 1, 20), *[("received", 1, 1)] * 3]
        assert two.got[1] == [*small, *large]

    play(story)


def test_what_has_no_link_is_dropped_and_not_kept() -> None:
    async def story(place: Place) -> None:
        [one] = await place.start(1)
        one.say(beat(1, 2, 1), beat(1, 7, 1))
        [two] = await place.start(2)
        await sleep(2)
        one.say(beat(1, 2, 2))
        await sleep(1)
        assert two.got[1] == [beat(1, 2, 2)]

    play(story)


def test_members_come_go_and_move() -> None:
    async def story(place: Place) -> None:
        one, two, three = await place.start(1, 2, 3)
        await sleep(1)
        one.peers.set_members({2: (url_of(2),)})
        await sleep(0.1)
        assert not one.peers.is_linked(3)
        assert ("broken", 3, False) in one.names("broken")
        assert {"no longer a member"} <= {event["reason"] for event in three.log.of("peer.link.lost")}
        one.peers.set_members({2: (url_of(2),), 3: (url_of(9), url_of(3))})
        await sleep(1.1)
        assert one.peers.is_linked(3), "the second of its URLs serves"
        assert ("broken", 2, False) not in one.names("broken")
        place.network.reset("n1", "n2")
        del two
        await sleep(1)
        assert one.peers.missing() == []

    play(story, size=3)


def test_node_without_a_cluster_is_told_of_one() -> None:
    async def story(place: Place) -> None:
        await place.start(1)
        [two] = await place.start(2, cluster_id=0)
        [three] = await place.start(3, cluster_id=0, bootstrap_id=0, joins=True)
        await sleep(1)
        assert ("told", CLUSTER, 2) in two.names("told")
        assert ("told", CLUSTER, 3) in three.names("told")

    play(story, size=3)


def test_probe_gathers_the_answers_of_those_that_can_be_reached() -> None:
    async def story(place: Place) -> None:
        await place.start(1)
        await place.start(2, known={4: (0xBAD, 1, 1)})
        [four] = await place.start(4, cluster_id=0)
        place.network.listen("n5", url_of(5))
        began = trio.current_time()
        answers = await four.peers.probe([url_of(number) for number in (1, 2, 3, 5)], 1.0)
        assert trio.current_time() - began == pytest.approx(1.0)
        [welcome] = [answer for answer in answers if isinstance(answer, Welcome)]
        assert (welcome.cluster_id, welcome.member, welcome.your_member) == (CLUSTER, 1, 4)
        [refusal] = [answer for answer in answers if isinstance(answer, Refusal)]
        assert refusal.code is RefusalCode.OTHER_INCARNATION

    play(story, size=5)


def test_probe_is_no_link() -> None:
    async def story(place: Place) -> None:
        [one] = await place.start(1)
        [two] = await place.start(2)
        await sleep(1)
        introduced = len(one.names("introduced"))
        await two.peers.probe([url_of(1)], 1.0)
        await sleep(3)
        assert len(one.names("introduced")) == introduced
        assert not one.names("broken")

    play(story)


def test_mistake_in_a_handler_ends_its_link_alone() -> None:
    async def story(place: Place) -> None:
        one, two, three = await place.start(1, 2, 3)
        await sleep(1)

        def stumble(*_: object) -> None:
            raise RuntimeError("a mistake")

        one.received = stumble  # type: ignore[assignment]
        two.say(beat(2, 1))
        await sleep(0.1)
        assert one.log.of("peer.task.failed")
        three_broke = one.names("broken").count(("broken", 3, False))
        assert three_broke == 0
        await sleep(1)
        assert two.peers.is_linked(1)
        del three

    play(story, size=3)


def test_cancelled_at_any_step_nothing_is_left_open() -> None:
    async def story(place: Place) -> None:
        _, two = await place.start(1, 2)
        await sleep(1)
        for step in range(1, 30):
            before = {id(link) for link in place.network._links}

            async def open_and_close() -> None:
                link, _, _ = await two.peers.open(1, [url_of(1)], Purpose.PROBE)
                link.abort()

            was_cancelled = await cancelled_at(step, open_and_close)
            await sleep(3)
            left = [link for link in place.network._links if id(link) not in before and link.closed is None]
            assert not left, f"step {step}"
            if not was_cancelled:
                break
        else:
            raise AssertionError("never ran to its end")
        assert step >= 2

    play(story)


def test_serving_cancelled_at_any_step_closes_the_link() -> None:
    async def story(place: Place) -> None:
        [one] = await place.start(1)
        hello = Rig(place, 2, boot=1).hello(1, Purpose.MESSAGES)
        for step in range(1, 6):
            wire = MemoryWire()
            wire.client.send(encode_hello(hello))

            async def serve(wire: MemoryWire = wire) -> None:
                await one.peers.accept(wire.server)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancelled_at, step, serve)
                await sleep(0.1)
                wire.client.send(encode_frame([beat(2, 1, step)]))
                await sleep(0.1)
                wire.client.abort()
            assert wire.server.closed is not None
        # The first steps were cancelled before the hello, the last ones not at all.
        assert 1 <= len(one.got[2]) < 5
        assert not one.peers.is_linked(2)

    play(story)


def test_stopping_says_goodbye() -> None:
    async def story(place: Place) -> None:
        one, two = await place.start(1, 2)
        await sleep(1)
        one.scope.cancel()
        await sleep(0.05)
        assert {event["end"] for event in two.log.of("peer.link.lost")} == {"peer"}

    play(story)


def test_constants_fit() -> None:
    assert PEER_FRAME_BYTES > WINDOW_BYTES
    assert BREAK_CHECK_S < 1.0
    assert decode_frame(encode_frame([beat(1, 2)])) == [beat(1, 2)]


@pytest.mark.parametrize("published", [0x1002, 0x9999])
def test_link_with_another_directory_than_the_published_one_ends(published: int) -> None:
    """S1: it was let in before anybody knew better; from the publication on only one directory is the member."""

    async def story(place: Place) -> None:
        one, two = await place.start(1, 2)
        await sleep(1)
        one.members[2] = member_row(2, published)
        one.peers.set_members({2: (url_of(2),)}, None, {2: published})
        two.say(beat(2, 1, 5))
        await sleep(1)
        is_the_member = published == two.incarnation
        assert one.peers.is_linked(2) is two.peers.is_linked(1) is is_the_member
        assert one.got.get(2, []) == ([beat(2, 1, 5)] if is_the_member else [])
        assert (("refused", 1, "other-incarnation") in two.names("refused")) is not is_the_member

    play(story)


class _Lingering(MemoryLink):
    """A link that still has something to read for a while after its end, as one over a socket has."""

    late: bytes = b""

    async def recv_many(self) -> list[bytes]:
        try:
            return await super().recv_many()
        except LinkClosed:
            if not self.late:
                raise
        await trio.sleep(1)
        late, self.late = self.late, b""
        return [late]


def test_link_that_was_replaced_is_read_no_more() -> None:
    """S2: what lay in it came before what the newer link has brought, and would be taken after that."""

    async def story(place: Place) -> None:
        [one] = await place.start(1)
        two = Rig(place, 2, 1)

        async def dial() -> MemoryLink:
            near = MemoryLink("n2", "n1", PEER_SUBPROTOCOL)
            far = _Lingering("n1", "n2", PEER_SUBPROTOCOL)
            near.other, far.other = far, near
            far.late = encode_frame([beat(2, 1, 1)])
            place.nursery.start_soon(one.peers.accept, far)
            near.send(encode_hello(two.hello(1, Purpose.MESSAGES)))
            await sleep(0.1)
            return near

        await dial()
        newer = await dial()
        newer.send(encode_frame([beat(2, 1, 2)]))
        await sleep(0.1)
        # The newer one ends before the older has been read to its end.
        newer.other.late = b""  # type: ignore[attr-defined]
        newer.abort()
        await sleep(3)
        assert one.got[2] == [beat(2, 1, 2)]
        assert not one.log.of("peer.task.failed")
        assert one.names("broken").count(("broken", 2, False)) == 2

    play(story)

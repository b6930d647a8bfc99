"""What `coord dev` knows of its nodes, what a key means, and the line at the bottom of the screen. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from attrs import define, field, frozen

from coord.cli.dev_words import COLORS, painted


class Condition(StrEnum):
    """What became of a node's process."""

    RUNNING = "running"
    PAUSED = "paused"
    DEAD = "dead"


class Verb(StrEnum):
    """What is to be done to a node."""

    KILL = "kill"
    PAUSE = "pause"
    RESUME = "resume"
    START = "start"
    CUT = "cut off"
    HEAL = "heal"
    QUIT = "quit"


@frozen
class Order:
    """Do `verb` to `node`; quitting has none."""

    verb: Verb
    node: str = ""


@define
class NodeState:
    """One node: its process, its links, and how its consensus stood when it was last asked."""

    name: str
    member_id: int
    condition: Condition = Condition.RUNNING
    is_cut: bool = False
    is_heard: bool = False
    """False if it did not answer when it was last asked."""
    errors: Sequence[str] = ()
    """What is wrong with it, as it says; at its start, where it has a leader, that its vote does not count yet (S1)."""
    term: int = 0
    leader_id: int = 0
    revision: int = 0

    @property
    def is_leader(self) -> bool:
        """True if it says so itself."""
        return self.is_heard and self.leader_id == self.member_id

    @property
    def in_words(self) -> str:
        """Return how it stands."""
        words = []
        if self.condition is not Condition.RUNNING:
            words.append(self.condition.value)
        elif not self.is_heard:
            words.append("silent")
        elif self.is_leader:
            words.append("leader")
        else:
            words.append("follower" if self.leader_id else "no leader")
        if self.is_cut:
            words.append("cut off")
        if self.is_heard:
            words.append(f"rev {self.revision}")
        return " ".join(words)


HELP: Final = """
  1 2 3 …   choose a node              k   kill it, as kill -9 or a crash does
  p         pause it, or let it go on  c   cut it off from the others, or heal its links
  r         bring it back, whatever is wrong with it
  v         show all log events, or decisions only
  h         this help                  q   end all nodes in order, and coord dev
"""
_DIGITS: Final = "123456789"
_KEYS_SHOWN: Final = "k kill  p pause  c cut off  r bring back  h help  q quit"


@define
class Board:
    """The nodes, the one that keys act on, and whether every log event is shown."""

    nodes: Sequence[NodeState]
    selected: int = 0
    shows_all: bool = False
    notice: str = ""
    """What to tell about the last key."""
    _by_id: dict[int, NodeState] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._by_id = {node.member_id: node for node in self.nodes}

    @property
    def node(self) -> NodeState:
        """The node that keys act on."""
        return self.nodes[self.selected]

    @property
    def names(self) -> Mapping[str, str]:
        """Names by member id, as log lines write ids."""
        return {f"{member_id:x}": node.name for member_id, node in self._by_id.items()}

    @property
    def leader(self) -> NodeState | None:
        """The leader: of several that think so, the one with the highest term."""
        leaders = [node for node in self.nodes if node.is_leader]
        return max(leaders, key=lambda node: node.term, default=None)

    @property
    def is_whole(self) -> bool:
        """True if all nodes follow one leader, and can vote for another: any one of them can be done without then."""
        leader = self.leader
        return leader is not None and all(
            node.is_heard and node.leader_id == leader.member_id and node.revision and not node.errors
            for node in self.nodes
        )

    def press(self, key: str) -> list[Order]:
        """Take a key; return what is to be done. `notice` says what a key did that asks for nothing."""
        self.notice = ""
        node = self.node
        if key in _DIGITS[: len(self.nodes)]:
            self.selected = _DIGITS.index(key)
            return []
        match key:
            case "k" if node.condition is not Condition.DEAD:
                return [Order(Verb.KILL, node.name)]
            case "p" if node.condition is Condition.RUNNING:
                return [Order(Verb.PAUSE, node.name)]
            case "p" if node.condition is Condition.PAUSED:
                return [Order(Verb.RESUME, node.name)]
            case "c":
                return [Order(Verb.HEAL if node.is_cut else Verb.CUT, node.name)]
            case "r":
                return self._bring_back(node)
            case "v":
                self.shows_all = not self.shows_all
                self.notice = "all log events" if self.shows_all else "decisions only"
            case "h" | "?":
                self.notice = HELP
            case "q" | "\x03" | "\x04":
                return [Order(Verb.QUIT)]
            case "k" | "p":
                self.notice = f"{node.name} is dead: r brings it back"
        return []

    def _bring_back(self, node: NodeState) -> list[Order]:
        orders = [Order(Verb.HEAL, node.name)] if node.is_cut else []
        if node.condition is Condition.DEAD:
            orders.append(Order(Verb.START, node.name))
        elif node.condition is Condition.PAUSED:
            orders.append(Order(Verb.RESUME, node.name))
        if not orders:
            self.notice = f"nothing is wrong with {node.name}"
        return orders

    def status_line(self, width: int, is_colored: bool) -> str:
        """Return the line at the bottom of the screen, no wider than `width`."""
        leader = self.leader
        term = max((node.term for node in self.nodes), default=0)
        parts = [(f"leader {leader.name} term {term}" if leader else f"no leader term {term}", "")]
        for number, node in enumerate(self.nodes):
            mark = "▸" if number == self.selected else ""
            parts.append((f"{mark}{node.name} {node.in_words}", COLORS[number % len(COLORS)]))
        parts.append((_KEYS_SHOWN, ""))
        line, left = "", width - 1
        for text, color in parts:
            shown = (f" │ {text}" if line else f" {text}")[:left]
            left -= len(shown)
            line += painted(shown, color, is_colored)
        return line

    def saw(self, name: str, **found: Any) -> None:
        """Take what a node said of itself when it was asked; nothing if it did not answer."""
        node = next(node for node in self.nodes if node.name == name)
        node.is_heard = bool(found)
        for attribute, value in found.items():
            setattr(node, attribute, value)

"""Bugs planted in clients, and in what judges their numbers: what the simulators of programs must find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from coord.testing.mutants import Hunted, Mutant, Patch

if TYPE_CHECKING:
    from coord.testing.once_sim import Plan


def _mutant(name: str, rule: str, *patches: tuple[str, str, str], seeds_max: int = 60, setting: str = "once") -> Mutant:
    return Mutant(name, rule, tuple(Patch(*patch) for patch in patches), seeds_max, setting=setting)


MUTANTS: Final = (
    _mutant(
        "accept an unknown client id",
        "S17",
        (
            "coord.mvcc.apply",
            "        if client:\n            # S17",
            "        if client and self.clients.register(client) is None:\n"
            "            known = self.clients.use(client, 0, (current.applied.index, 0))\n"
            "            return self._apply_once(current, write, known)\n"
            "        if client:\n            # S17",
        ),
        setting="forgotten clients",
    ),
    # What is in doubt under a forgotten id is written once more under a new one.
    _mutant(
        "send again what is in doubt under a new id",
        "S17",
        (
            "coord.client.core",
            "    def _forgotten(self, call: Call) -> None:\n        if call.is_in_doubt:\n",
            "    def _forgotten(self, call: Call) -> None:\n        if False:\n",
        ),
        setting="a_forgotten_client_is_in_doubt",
        seeds_max=5,
    ),
    _mutant(
        "recognize retries by the highest number",
        "S18",
        (
            "coord.mvcc.clients",
            "        kept = self.answers.get(number)\n        if kept is not None:\n",
            "        kept = self.answers.get(number)\n"
            "        if kept is None and self.answers and number < max(self.answers):\n"
            '            return SequenceClosed("coord: a later number was seen")\n'
            "        if kept is not None:\n",
        ),
        (
            "coord.mvcc.clients",
            "is_open = first >= max(self.low, 1) and",
            "is_open = first > max(self.low - 1, 0, *self.answers) and",
        ),
    ),
    _mutant(
        "number a write anew at each sending",
        "S18",
        (
            "coord.client.core",
            "        if call.is_write:\n            call.doubt = why\n",
            "        if call.is_write:\n            call.doubt = why\n"
            "            if call.numbering is not None:\n"
            "                call.numbering.close(call.number)\n"
            "                call.number = call.numbering.issue()\n",
        ),
    ),
    _mutant(
        "close the numbers below one that is answered",
        "S18",
        ("coord.client.numbering", "        if number != self.low:\n", "        if number < self.low:\n"),
        setting="long waits",
    ),
    _mutant(
        "apply a number again when its answer is asked for",
        "S18",
        ("coord.mvcc.apply", "known = record.recall(write)", "known = None"),
    ),
    _mutant(
        "take a refusal of the second sending for final",
        "S19",
        (
            "coord.client.failing",
            "    if is_in_doubt:\n        why",
            "    if is_in_doubt and refusal is None:\n        why",
        ),
        setting="a_second_sending_is_refused",
        seeds_max=5,
    ),
    _mutant(
        "forget that a sending was not answered",
        "S19",
        ("coord.client.core", "        if call.is_write:\n            call.doubt = why\n", ""),
        setting="a_forgotten_client_is_in_doubt",
        seeds_max=5,
    ),
    _mutant(
        "count a lease from when its renewal was answered",
        "S20",
        (
            "coord.client.recipes.keeper",
            "tenures[lease].acknowledged(sent_at, granted_s)",
            "tenures[lease].acknowledged(self._clock(), granted_s)",
        ),
        setting="an_acknowledgement_is_late",
        seeds_max=5,
    ),
    _mutant(
        "own by what a retried write did once",
        "S20",
        ("coord.client.recipes.contending", " and reply.was_sent_once", ""),
        setting="a_retried_write_is_answered_from_the_record",
        seeds_max=5,
    ),
    # Who stood still is not told, and neither is who is cut off.
    _mutant(
        "believe in a lease until somebody says that it has ended",
        "S24",
        (
            "coord.client.recipes.tenure",
            "            if self.clock() >= self.deadline:\n",
            "            if False:\n",
        ),
        setting="an_acknowledgement_is_late",
        seeds_max=5,
    ),
    _mutant(
        "count without what the machine has slept",
        "S24",
        ("coord.client.clock", "    return time.clock_gettime(BOOT_TIME)\n", "    return time.monotonic()\n"),
        setting="the_holders_machine_sleeps",
        seeds_max=5,
    ),
    _mutant(
        "wait for a contender by its name",
        "S25",
        (
            "coord.client.recipes.contending",
            "            yield self._change_to_await(ahead, revision + 1)\n",
            "            yield self._change_to_await(ahead, revision + 1)\n            break\n",
        ),
        setting="owners",
    ),
    _mutant(
        "return before the contender's key is gone",
        "S26",
        (
            "coord.client.recipes.session",
            "            is_removed = is_removed or await self._remove(contender, when_sent)\n",
            "            self.nursery.start_soon(self._remove, contender, None)\n            is_removed = True\n",
        ),
        setting="a_wait_in_vain_leaves_nothing",
        seeds_max=5,
    ),
    _mutant(
        "leave the contender's key to its lease",
        "S26",
        (
            "coord.client.recipes.session",
            "            is_removed = is_removed or await self._remove(contender, when_sent)\n",
            "            is_removed = True\n",
        ),
        setting="owners",
    ),
    _mutant(
        "run the other branch where a fence is lost",
        "S27",
        (
            "coord.mvcc.apply",
            "                self._check_guard(guard)\n",
            "                try:\n"
            "                    self._check_guard(guard)\n"
            "                except FenceLost:\n"
            "                    if op != _TXN:\n"
            "                        raise\n"
            "                    arguments = [[], arguments[2], []]\n",
        ),
        setting="a_late_transaction_is_fenced",
        seeds_max=5,
    ),
    _mutant(
        "send a write without its fence",
        "S27",
        ("coord.client.fence", "    return [fence.key, fence.fence]\n", "    return None\n"),
        setting="a_late_put_is_fenced",
        seeds_max=5,
    ),
    _mutant(
        "register no more once the session is lost",
        "S28",
        (
            "coord.client.recipes.registration",
            "        await self._keep_under(self._session)\n",
            "        await self._keep_under(self._session)\n        self._scope.cancel()\n",
        ),
        setting="an_instance_outlives_its_session",
        seeds_max=5,
    ),
    # The node that a program talks to stands still: its renewals wait for it.
    _mutant(
        "ask nobody else for a renewal",
        "S30",
        (
            "coord.client.driver",
            "            ask_again_at=now + patience,\n",
            "            ask_again_at=now + patience if is_write else NEVER,\n",
        ),
        setting="the_node_that_it_talks_to_stands_still",
        seeds_max=5,
    ),
)

_LOSSES: Final = ("crash", "kill", "reset links", "drop answers", "drop all answers", "delay", "pause")

PLANS: Final[dict[str, dict[str, Any]]] = {
    "once": {"faults": _LOSSES, "tracks": 3, "tasks": 10},
    "forgotten clients": {"faults": _LOSSES, "tracks": 3, "tasks": 3, "programs": 4, "client_records_max": 2},
    "long waits": {"faults": _LOSSES, "tracks": 3, "tasks": 10, "timeout": 30.0, "client_records_max": 10_000},
}
"""What to leave of a drawn plan, so that a bug need not wait for what has to do with it."""
OWNERS: Final = ("pause program", "cut off", "kill program", "drop all answers", "kill", "pause")


def hunt(seed: int, setting: str) -> Hunted:
    """Play one seed of a simulator of programs, or a scene."""
    from coord.testing import cluster_scenes, once_scenes, once_sim, recipe_scenes, recipe_sim

    report: once_sim.Report | recipe_sim.Report
    try:
        if scene := {**once_scenes.SCENES, **recipe_scenes.SCENES}.get(setting):
            cluster_scenes.play(scene, seed, **once_scenes.OPTIONS.get(setting, {}))
            return Hunted(1, "")
        if setting == "owners":
            drawn = recipe_sim.Plan.of(seed)
            drawn.faults, drawn.tracks, drawn.seconds = OWNERS, 3, 20.0
            report = recipe_sim.run(seed, plan=drawn)
        else:
            report = once_sim.run(seed, plan=_plan(seed, setting))
    except Exception as error:
        return Hunted(0, f"a run failed: {error!r}")
    found = [what for what in report.found if not what.startswith(once_sim.VACUOUS)]
    return Hunted(report.lines, found[0] if found else "")


def _plan(seed: int, setting: str) -> Plan:
    from coord.testing.once_sim import Plan

    plan = Plan.of(seed)
    plan.size, plan.seconds, plan.timeout = 3, 4.0, min(plan.timeout, 3.0)
    for name, value in PLANS[setting].items():
        if hasattr(plan, name):
            setattr(plan, name, value)
        else:
            plan.options[name] = value
    return plan

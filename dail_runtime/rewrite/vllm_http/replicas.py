"""The replicas: who is there, who is well, who is least busy. They may come, go and fail at any time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from dail_runtime.errors import DailError, SetupError, TransientError
from dail_runtime.rewrite.vllm_http.addresses import Address, resolve
from dail_runtime.rewrite.vllm_http.client import Client
from dail_runtime.rewrite.vllm_http.faults import Busy, Lost, Unfit, said
from dail_runtime.rewrite.vllm_http.needed import Needed, check_models
from dail_runtime.rewrite.vllm_http.wire import COMPLETIONS, HEALTH, MODELS, drawn_by_vllm
from dail_runtime.rewrite.vllm_plugin.requests import PROBE, PROTOCOL, speaks
from dail_runtime.spec.servers import Server

RESOLVE_SECONDS = 5.0
HEALTH_SECONDS = 3.0
"""Between looks at a replica."""
ANSWER_SECONDS = 10.0
"""Within which it must answer a look."""
MISSES = 3
"""Looks in a row that must fail before what a replica is drawing counts as lost."""
UNFIT_SECONDS = 30.0
"""Between looks at one that is not what the job needs."""
WAIT_SECONDS = 1800.0
"""How long nobody may be there before the stage gives up; a new cluster node, an image and a large model take their time."""
TELL_SECONDS = 10.0
"""After which the user is told what is waited for."""
PAUSE_SECONDS, PAUSE_MOST = 0.5, 5.0
"""A replica that looks well and fails at what it is given is left alone for a while, which doubles from the one to the other."""
QUIET_MOST = 300.0
"""It is asked again after this long, whatever it asked for: nobody else may be there, and the wait would never end."""
FAULTS_MOST = 20
"""How often in a row it may do so before it counts as hopeless."""
SLACK = 4
"""How many more responses than the least busy one a replica may have and still get more of a problem it has begun: their prompt is
in its cache."""


@dataclass(eq=False)
class Replica:
    """One vLLM server process."""

    address: Address
    state: Literal["new", "up", "down", "unfit"] = "new"
    plugin: bool = False
    """Whether it has dail's plugin."""
    under_way: int = 0
    """Responses it is drawing for this driver."""
    leaving: bool = False
    """Its name does not resolve to it any more: it finishes what it has and gets nothing new."""
    quiet_until: float = 0.0
    """It is left alone until then (monotonic seconds)."""
    up_since: float = 0.0
    """When it was last found well (monotonic seconds)."""
    faults: int = 0
    """How often in a row it was found well and then failed."""
    fault: str = ""
    """What went wrong the last time."""
    why: str = "it was not asked yet"
    """Why it is not up."""
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when what it is drawing counts as lost."""
    look: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to have it looked at now."""
    watcher: asyncio.Task[None] | None = None


class Replicas:
    """Finds them, watches them and gives them out. Lives in one event loop."""

    def __init__(self, servers: Iterable[Server], client: Client, needed: Needed, in_flight: int, say: Callable[[str], None]) -> None:
        """
        Args:
            in_flight: Responses one replica may draw at once.
            say: Takes sentences for the user.
        """
        self._servers, self._client, self._needed = tuple(servers), client, needed
        self._in_flight, self._say = in_flight, say
        self._known: dict[Address, Replica] = {}
        self._unresolved: dict[Server, str] = dict.fromkeys(self._servers, "its name was not looked up yet")
        self._changed = asyncio.Condition()
        self._plugin = False
        self._room = in_flight
        self._alone_since = time.monotonic()
        self._told = False
        self._finder: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for replicas."""
        self._finder = asyncio.create_task(self._find())

    async def close(self) -> None:
        """Stop looking."""
        tasks = [task for task in (self._finder, *(one.watcher for one in self._known.values())) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def demand(self, *, plugin: bool) -> None:
        """Begin with new work; says whether only replicas with dail's plugin are of use for it."""
        self._plugin = plugin
        for replica in self._known.values():
            self.trust(replica)
        self._alone_since = time.monotonic()
        await self._notify()

    def room(self) -> int:
        """How many responses may be under way; where nobody is up, as many as one replica would take."""
        return self._room

    async def acquire(self, preferred: Replica | None = None) -> Replica:
        """The least busy replica, once one has room; `preferred` where it is hardly busier. Give it back with `release`.

        Raises:
            SetupError: every replica is unfit.
            TransientError: none was up for WAIT_SECONDS.
        """
        async with self._changed:
            while True:
                free = [one for one in self._useful() if one.under_way < self._most(one) and time.monotonic() >= one.quiet_until]
                if free:
                    least = min(one.under_way for one in free)
                    if preferred in free and preferred.under_way <= least + SLACK:
                        chosen = preferred
                    else:
                        # Not always the first of equals: several drivers may share the servers.
                        chosen = random.choice([one for one in free if one.under_way == least])
                    chosen.under_way += 1
                    return chosen
                self._check_hope()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 1.0)

    async def release(self, replica: Replica) -> None:
        """Give a replica back."""
        replica.under_way -= 1
        await self._notify()

    def trust(self, replica: Replica) -> None:
        """`replica` did what it was asked for."""
        replica.faults = 0

    def doubt(self, replica: Replica, begun: float, why: str) -> None:
        """A request to `replica` failed: it gets nothing new until it was looked at. What else it is drawing goes on.

        Args:
            begun: When the request was sent (monotonic seconds).
        """
        if begun < replica.up_since:
            return  # of what was wrong then, one heard when it was looked at
        if replica.state == "up":
            self._set(replica, "down", why)
            replica.faults, replica.fault = replica.faults + 1, why
            if replica.faults > 1:
                # Failing is quick: it would always be the least busy one, and be given everything.
                self.quiet(replica, min(PAUSE_MOST, PAUSE_SECONDS * 2.0 ** min(replica.faults - 2, 10)))
        replica.look.set()

    def quiet(self, replica: Replica, seconds: float) -> None:
        """`replica` asked to be left alone."""
        replica.quiet_until = max(replica.quiet_until, time.monotonic() + min(seconds, QUIET_MOST))

    def _most(self, replica: Replica) -> int:
        """Responses that it may draw at once: one that keeps failing has to show first that it can."""
        return self._in_flight if replica.faults < 2 else 1

    def _useful(self) -> list[Replica]:
        return [one for one in self._known.values() if one.state == "up" and not one.leaving and (one.plugin or not self._plugin)]

    def _check_hope(self) -> None:
        """Raise where nobody will come any more; tell the user where nobody came yet."""
        if any(one.faults < FAULTS_MOST for one in self._useful()):
            return
        here = [one for one in self._known.values() if not one.leaving]
        reasons = [f"{one.address}: {self._why(one)}" for one in here]
        reasons += [f"{server.scheme}://{server.name}: {why}" for server, why in self._unresolved.items()]
        shown = "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
        if here and not self._unresolved and all(self._hopeless(one) for one in here):
            raise SetupError(f"no vLLM server is fit for this job: {shown}")
        if here and all(self._hopeless(one) or one.faults >= FAULTS_MOST for one in here):
            raise TransientError(f"no vLLM server does what it is asked for: {shown}")
        alone = time.monotonic() - self._alone_since
        if alone > WAIT_SECONDS:
            raise TransientError(f"no vLLM server was there for {WAIT_SECONDS / 60:.0f} minutes: {shown}")
        if alone > TELL_SECONDS and not self._told:
            self._told = True
            self._say(f"Waiting for a vLLM server: {shown}.")

    def _hopeless(self, replica: Replica) -> bool:
        return replica.state == "unfit" or (replica.state == "up" and self._plugin and not replica.plugin)

    def _why(self, replica: Replica) -> str:
        if replica.faults >= FAULTS_MOST:
            return f"it looks well and failed {replica.faults} times in a row, the last time with {replica.fault}"
        if replica.state == "up":
            return (
                "it lacks dail's vLLM plugin, which mixed rewriting needs; start it with python -m dail_runtime.serve, "
                "or set rewrite.engine.withoutPlugin: draft-and-verify"
            )
        return replica.why

    async def _find(self) -> None:
        """Look the names up, again and again."""
        while True:
            found: set[Address] = set()
            for server in self._servers:
                try:
                    found.update(await resolve(server))
                    self._unresolved.pop(server, None)
                except (OSError, UnicodeError) as err:
                    # A name server that is down for a moment takes nobody away.
                    found.update(address for address in self._known if address.server == server)
                    if not any(address.server == server for address in self._known):
                        self._unresolved[server] = said(err)
            for address in found - self._known.keys():
                replica = self._known[address] = Replica(address)
                replica.watcher = asyncio.create_task(self._watch(replica))
            for address, replica in list(self._known.items()):
                replica.leaving = address not in found
                if replica.leaving and not replica.under_way:
                    del self._known[address]
                    if replica.watcher is not None:
                        replica.watcher.cancel()
            await self._notify()
            await asyncio.sleep(RESOLVE_SECONDS)

    async def _watch(self, replica: Replica) -> None:
        """Look at one replica, again and again."""
        misses = 0
        while True:
            replica.look.clear()
            wait = HEALTH_SECONDS
            try:
                await self._client.get(replica.address, HEALTH, seconds=ANSWER_SECONDS)
                if replica.state != "up":
                    await self._examine(replica)
                    self._set(replica, "up", "")
                    replica.up_since = time.monotonic()
                misses = 0
            except Busy as err:
                # Starting or ending; what it is drawing is not lost for that.
                self._set(replica, "down", str(err))
            except Lost as err:
                misses += 1
                if replica.state != "up" or misses >= MISSES:
                    self._set(replica, "down", str(err))
                if misses >= MISSES:
                    replica.lost.set()
                    replica.lost = asyncio.Event()
            except (Unfit, DailError) as err:
                wait = UNFIT_SECONDS
                self._set(replica, "unfit", str(err))
            await self._notify()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(replica.look.wait(), wait * random.uniform(0.8, 1.2))

    async def _examine(self, replica: Replica) -> None:
        """Find out what a replica that just came (back) is; raises Unfit where it is not what the job needs."""
        listed = await self._client.get(replica.address, MODELS, seconds=ANSWER_SECONDS)
        check_models(listed, self._needed)
        body = drawn_by_vllm(self._needed.model, [self._needed.token], 1, (), temperature=0.0, top_p=1.0, seed=0)
        answer = await self._client.refused(replica.address, COMPLETIONS, {**body, "vllm_xargs": {PROBE: 1}}, seconds=6 * ANSWER_SECONDS)
        replica.plugin = answer is not None and speaks(answer)
        if answer is not None and not replica.plugin:
            raise Unfit(f"it answers {answer!r}, and not as protocol {PROTOCOL} of dail's plugin; give it and this process the same dail")

    def _set(self, replica: Replica, state: Literal["up", "down", "unfit"], why: str) -> None:
        if state != replica.state:
            print(f"{replica.address} is {state}{f': {why}' if why else ''}", file=sys.stderr, flush=True)
        replica.state, replica.why = state, why

    async def _notify(self) -> None:
        # Asked for from another thread, so it is a number and not a sum over what may change meanwhile.
        useful = len(self._useful())
        self._room = self._in_flight * max(1, useful)
        if useful:
            self._alone_since, self._told = time.monotonic(), False
        async with self._changed:
            self._changed.notify_all()

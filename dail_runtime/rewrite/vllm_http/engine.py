"""The engine `vllm-http`: the synchronous face of the driver, which runs in a thread with an event loop of its own.

Samples are those of the engine `vllm`, up to the rounding of the model's logits: see rewrite/vllm_engine.py.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from transformers import AutoConfig, PreTrainedTokenizerBase

from dail_runtime.models import config_folder, load_tokenizer, max_length
from dail_runtime.records import Sample
from dail_runtime.rewrite.engine import Request, Sampling, Tick
from dail_runtime.rewrite.responses import Response, contexts_of, responses
from dail_runtime.rewrite.text import Decoder
from dail_runtime.rewrite.vllm_http.client import Client
from dail_runtime.rewrite.vllm_http.driver import Driver
from dail_runtime.rewrite.vllm_http.naming import served_name
from dail_runtime.rewrite.vllm_http.needed import Needed
from dail_runtime.rewrite.vllm_http.replicas import Replicas
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import VllmHttpEngine
from dail_runtime.spec.servers import Server, servers_in_effect

TICK_SECONDS = 1.0

T = TypeVar("T")


class VllmHttpGenerator:
    """Implements rewrite/engine.py's Engine."""

    def __init__(
        self,
        servers: Sequence[Server],
        tokenizer: PreTrainedTokenizerBase,
        *,
        model: str,
        length: int,
        vocabulary: int,
        in_flight: int = 64,
        fallback: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Begin to look for the servers; `generate` waits for them.

        Args:
            servers: Where they are.
            model: Name under which they serve the model.
            length: Most tokens of prompt plus response.
            vocabulary: Rows of the model's embedding.
            in_flight: Responses under way at once on one server.
            fallback: Draw mixed responses by draft-and-verify on servers that lack dail's plugin, instead of refusing them.
            say: Takes sentences for the user; default: standard error.
        """
        self._decode, self._model, self._length, self._vocabulary = Decoder(tokenizer), model, length, vocabulary
        self._fallback = fallback
        self._loop: asyncio.AbstractEventLoop | None = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dail-vllm-http", daemon=True)
        self._thread.start()
        needed = Needed(model, length, token=min(vocabulary - 1, 100))
        self._client, self._replicas = self._call(_begin(servers, needed, in_flight, say or _to_stderr))

    @classmethod
    def open(
        cls, engine: VllmHttpEngine, model: ModelSpec, *, adapter: Path | None = None, say: Callable[[str], None] | None = None
    ) -> VllmHttpGenerator:
        """The servers that the environment or the job names, for the model that `model` names.

        Raises:
            SetupError: nobody names any.
        """
        servers = servers_in_effect(engine.servers)
        config = AutoConfig.from_pretrained(config_folder(model), trust_remote_code=False, local_files_only=True).get_text_config()
        return cls(
            servers,
            load_tokenizer(model),
            model=served_name(model, adapter),
            length=max_length(model, config),
            vocabulary=int(config.vocab_size),
            in_flight=engine.in_flight,
            fallback=engine.without_plugin == "draft-and-verify",
            say=say,
        )

    def facts(self) -> dict[str, int]:
        """Nothing that must be kept for a restart."""
        return {}

    def close(self) -> None:
        """Leave the servers alone."""
        if self._loop is None:
            return
        self._call(_end(self._client, self._replicas))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = None

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, *, tick: Tick | None = None
    ) -> Iterator[tuple[Request, tuple[Sample, ...]]]:
        """See Engine.generate. Raises SetupError where no server is fit, TransientError where none comes or a response keeps failing."""
        if self._loop is None:
            raise RuntimeError("the engine is closed")
        driver = Driver(self._client, self._replicas, self._model, self._vocabulary, self._decode, sampling)
        self._call(self._replicas.demand(plugin=contexts_of(sampling) == 2 and not self._fallback))
        unstarted = responses(requests, sampling, self._length)
        under_way: dict[Future[Sample], Response] = {}
        ended: queue.SimpleQueue[Future[Sample]] = queue.SimpleQueue()
        samples = tokens = 0
        told = time.monotonic()
        try:
            while True:
                # A little more than the servers take at once: whoever is finished is replaced at once.
                room = self._replicas.room()
                while len(under_way) < room + room // 4 + 1:
                    response = next(unstarted, None)
                    if response is None:
                        break
                    if not response.job.request.samples:
                        yield response.job.request, ()
                        continue
                    future = asyncio.run_coroutine_threadsafe(driver.draw(response), self._loop)
                    under_way[future] = response
                    future.add_done_callback(ended.put)
                if not under_way:
                    return
                for future in _ready(ended, TICK_SECONDS):
                    job, sample = under_way.pop(future).job, future.result()
                    samples, tokens = samples + 1, tokens + len(sample.ids)
                    if (whole := job.add(sample)) is not None:
                        yield job.request, whole
                if tick is not None and time.monotonic() - told >= TICK_SECONDS:
                    tick(samples, tokens)
                    told = time.monotonic()
        finally:
            for future in under_way:
                future.cancel()
            if self._loop is not None:
                self._call(driver.settle())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _begin(servers: Sequence[Server], needed: Needed, in_flight: int, say: Callable[[str], None]) -> tuple[Client, Replicas]:
    client = Client()
    replicas = Replicas(servers, client, needed, in_flight, say)
    replicas.start()
    return client, replicas


async def _end(client: Client, replicas: Replicas) -> None:
    await replicas.close()
    await client.close()


def _ready(ended: queue.SimpleQueue[T], seconds: float) -> Iterator[T]:
    """Everything that is in the queue; where it is empty, the next thing that comes within so many seconds."""
    try:
        yield ended.get(timeout=seconds)
        while True:
            yield ended.get_nowait()
    except queue.Empty:
        return


def _to_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)

"""Those who send in a run: a producer that loses nothing, and clients of the REST APIs that try again as told."""

import contextlib
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Self

import requests
from kafka import KafkaProducer
from kafka.errors import KafkaError

from tests.chaos.system import System
from tests.chaos.workload import Outgoing, sentence

# A call that takes longer hangs. The orphaned worker of a killed API may hold one for its graceful 10 s.
ANSWER_SECONDS = 30.0
PRODUCER_SECONDS = 240.0


class Sender:
    """Sends records over so many seconds, in bursts, and returns when Kafka has acknowledged each of them."""

    def __init__(self, system: System, records: Sequence[Outgoing], seconds: float, seed: int) -> None:
        self.system = system
        self.records = records
        self.seconds = seconds
        self.rng = random.Random(f"bursts/{seed}")
        self.again = 0
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join()

    def check(self) -> None:
        self.thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            began = time.monotonic()
            left = list(self.records)
            pace = self.seconds / max(1, len(left))
            while left:
                left = self._send(left, began, pace)
                self.again += len(left)
                assert time.monotonic() - began < self.seconds + PRODUCER_SECONDS, f"Kafka did not take {len(left)}"
                pace = 0.0
        except BaseException as error:  # noqa: BLE001 - raised again by `check`, in the test's own thread
            self.error = error

    def _send(self, records: Sequence[Outgoing], began: float, pace: float) -> list[Outgoing]:
        """Sends in order; returns those that Kafka has not acknowledged. They may be in the log all the same."""
        failed = []
        futures = []
        with contextlib.closing(self.system.producer()) as producer:
            first = 0
            while first < len(records):
                last = first + self.rng.choice((1, 1, 5, 50, 400))
                for record in records[first:last]:
                    try:
                        futures.append((record, self._append(producer, record)))
                    except KafkaError:
                        failed.append(record)
                first = last
                time.sleep(max(0.0, began + first * pace - time.monotonic()))
            producer.flush(timeout=PRODUCER_SECONDS)
            failed += [record for record, future in futures if not future.succeeded()]
        return failed

    def _append(self, producer: KafkaProducer, record: Outgoing):  # type: ignore[no-untyped-def]
        return producer.send(
            self.system.settings.kafka_topic, record.value, key=record.key, headers=list(record.headers)
        )


class Clients:
    """REST clients in threads of their own, from `with` to its end. What was accepted is in `accepted`: text by id."""

    def __init__(self, system: System, seed: int, *, writers: int = 6, readers: int = 1, pause: float = 0.05) -> None:
        self.system = system
        self.seed = seed
        self.pause = pause
        self.accepted: dict[str, str] = {}
        self.answers: Counter[str] = Counter()
        self.slowest: dict[str, float] = {}
        self.odd: list[str] = []
        self.ending = threading.Event()
        self.threads = [
            threading.Thread(target=target, args=(number,), name=f"{target.__name__} {number}", daemon=True)
            for target, count in ((self._write, writers), (self._read, readers))
            for number in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join(60)
        stuck = [thread.name for thread in self.threads if thread.is_alive()]
        if stuck:
            self.odd.append(f"still at it: {', '.join(stuck)}")

    def _write(self, client: int) -> None:
        """Posts one message after the other; each again with the same id until it is accepted, or the run ends."""
        rng = random.Random(f"client/{self.seed}/{client}")
        url = f"http://127.0.0.1:{self.system.settings.text_api_port}/messages"
        number = 0
        with requests.Session() as http:
            http.trust_env = False
            while not self.ending.wait(self.pause):
                number += 1
                given = f"posted-{client}-{number}" if rng.random() < 0.5 else str(uuid.UUID(int=rng.getrandbits(128)))
                text = sentence(rng, number)
                while True:
                    status = self._call(http, "POST", url, {"id": given, "message": text}, (201, 202, 503))
                    if status in (201, 202):
                        self.accepted[given] = text
                        break
                    if self.ending.wait(self.pause):
                        return

    def _read(self, client: int) -> None:
        rng = random.Random(f"reader/{self.seed}/{client}")
        base = f"http://127.0.0.1:{self.system.settings.search_api_port}"
        with requests.Session() as http:
            http.trust_env = False
            while not self.ending.wait(self.pause * 4):
                query = {"query": sentence(rng, 0), "limit": 5}
                self._call(http, "POST", f"{base}/embeddings/search", query, (200, 503))
                self._call(http, "GET", f"{base}/status", None, (200, 503))

    def _call(self, http: requests.Session, method: str, url: str, body: object, usual: Sequence[int]) -> int | None:
        """The status of the answer, None where there was none. What should not happen at all goes into `odd`."""
        name = f"{method} {url.rsplit('/', 1)[1]}"
        began = time.monotonic()
        try:
            answer = http.request(method, url, json=body, timeout=ANSWER_SECONDS)
        except requests.Timeout as error:
            self.answers[f"{name} hung"] += 1
            self.odd.append(f"{name}: no answer within {ANSWER_SECONDS:g} s ({error})")
            return None
        except requests.RequestException:
            self.answers[f"{name} refused"] += 1
            return None
        self.slowest[name] = max(self.slowest.get(name, 0.0), time.monotonic() - began)
        self.answers[f"{name} {answer.status_code}"] += 1
        if answer.status_code not in usual:
            self.odd.append(f"{name}: {answer.status_code} {answer.text[:300]}")
        elif method == "POST" and answer.status_code == 503 and "Retry-After" not in answer.headers:
            self.odd.append(f"{name}: 503 without Retry-After: {answer.text[:300]}")
        return answer.status_code

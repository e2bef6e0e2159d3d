"""Lets kafka-python read records whose header names are not UTF-8.

Kafka's protocol calls a header's name a string, and nobody checks it. kafka-python 3.0 raises in the middle of the
batch (record/default_records.py, _read_msg), at the same record for ever, which would stop its partition.
"""

from typing import Any, SupportsIndex

from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch


class TolerantBytes(bytes):
    """Bytes that any text can be read from: what is not UTF-8 is shown as \\xff."""

    def __getitem__(self, place: SupportsIndex | slice) -> Any:
        found = super().__getitem__(place)
        return found if isinstance(found, int) else TolerantBytes(found)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return super().decode(encoding, "backslashreplace")


class TolerantBatch(DefaultRecordBatch):  # type: ignore[misc]
    """A batch that is read as ever until a name fails; only then its bytes are swapped for slower, tolerant ones."""

    def _read_msg(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super()._read_msg(*arguments, **options)
        except UnicodeDecodeError:
            self._buffer: Any = TolerantBytes(self._buffer)  # the position is moved only behind a record that was read
            return super()._read_msg(*arguments, **options)


def install() -> None:
    """Makes every consumer of this process use it."""
    memory_records.DefaultRecordBatch = TolerantBatch

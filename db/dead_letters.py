"""What writes the table of dead letters: they are noted, replayed, dropped. Its reads are in dead_letter_queries.

Each function runs in the caller's transaction and never commits.
"""

import json
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, text

from db.sql import DURABLE
from records import DeadLetter

# How long `note` waits for the table. Somebody's VACUUM FULL holds it for minutes, and a hundred hand-overs may come
# again every two seconds then, in a worker that texts wait for.
TABLE_MS = 10
# And for what other workers that note letters hold for a moment: a row, or the file that one of them makes longer.
LOCK_MS = 1_000


def note(connection: Connection, letters: Sequence[DeadLetter]) -> None:
    """Notes dead letters, each once for its coordinates; one whose replay has failed is open again, and noted anew.
    Idempotent. Waits for nobody's lock for more than a moment. They are told as done once that is committed.

    Another timestamp at the same coordinates is another record: the topic was made again.
    """
    statement = text("""
        INSERT INTO dead_letters AS t
            (topic, partition, "offset", timestamp, reason, detail, key, value, value_bytes, headers)
        VALUES (:topic, :partition, :offset, :timestamp, :reason, :detail, decode(:key, 'base64'),
            decode(:value, 'base64'), :value_bytes, :headers ::jsonb)
        ON CONFLICT (topic, partition, "offset") DO UPDATE SET
            timestamp = excluded.timestamp, reason = excluded.reason, detail = excluded.detail, key = excluded.key,
            value = excluded.value, value_bytes = excluded.value_bytes, headers = excluded.headers, state = 'open',
            created_at = clock_timestamp(), state_changed_at = clock_timestamp()
        WHERE (:again AND t.state = 'replayed') OR excluded.timestamp <> t.timestamp
    """)
    connection.exec_driver_sql(
        f"SELECT {DURABLE}; SET LOCAL lock_timeout = {TABLE_MS}; LOCK TABLE dead_letters IN ROW EXCLUSIVE MODE; "
        f"SET LOCAL lock_timeout = {LOCK_MS}"
    )
    for letter in sorted(letters, key=lambda letter: letter[:3]):
        connection.execute(statement, letter._asdict() | {"headers": json.dumps(letter.headers)})


def set_state(connection: Connection, keys: Iterable[tuple[str, int, int]], state: str) -> int:
    """Marks open dead letters, by (topic, partition, offset), as replayed or dropped; returns how many were open."""
    changed = 0
    for topic, partition, offset in keys:
        changed += connection.execute(
            text("""
                UPDATE dead_letters SET state = :state, state_changed_at = clock_timestamp()
                WHERE topic = :topic AND partition = :partition AND "offset" = :offset AND state = 'open'
            """),
            {"state": state, "topic": topic, "partition": partition, "offset": offset},
        ).rowcount
    return changed


def drop(connection: Connection, *, reason: str | None, until: str, limit: int) -> int:
    """Drops at most `limit` of the open dead letters that were noted up to `until`; returns how many it dropped."""
    return connection.execute(
        text(f"""
            UPDATE dead_letters d SET state = 'dropped', state_changed_at = clock_timestamp()
            FROM (SELECT topic, partition, "offset" FROM dead_letters
                  WHERE state = 'open' AND created_at <= :until ::timestamptz
                      {"AND reason = :reason" if reason is not None else ""}
                  ORDER BY created_at LIMIT :limit FOR UPDATE) AS chosen
            WHERE d.topic = chosen.topic AND d.partition = chosen.partition AND d."offset" = chosen."offset"
        """),
        {"reason": reason, "until": until, "limit": limit},
    ).rowcount

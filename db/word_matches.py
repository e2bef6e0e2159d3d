"""The newest messages that hold the words of a query, as SQL over the full-text index.

The index knows which messages have which words. What it finds by these alone is sorted without reading any text.
Whether the words stand side by side, as those of a phrase or of "wi-fi" must, shows only in each text, which
PostgreSQL then parses: 12 microseconds for a hundred characters.
"""

import re
from collections.abc import Sequence

from db import text_index
from settings import Settings

# Up to this many messages with all words of a phrase are read one by one, newest first, until enough have the phrase:
# 0.3 s at most for 20,000 short ones. If that is not enough, all are read, by several processes if they are idle.
READ_IN_TURN = 20_000

# The row of text_messages whose id is that of `page`.
WHOLE = "(SELECT * FROM text_messages WHERE id = page.id OFFSET 0)"

# Each dash in front of a word is a NOT nested in the one before, and PostgreSQL's stack for them holds 32. It skips the
# other characters here.
_DASHES = re.compile(r"(?<![^\s!&|()<:])(?:-[\s!&|()<:]*){3,}")

_FOLLOWS = r" <(-|\d+)> "

_IN_ORDER = "ORDER BY created_at DESC NULLS LAST, id DESC"


def hints(settings: Settings) -> str:
    """Settings to be sent before the statement; if no transaction is open they hold for it alone. The planner counts
    a text to parse for each match of the index, and for a word that most messages have would rather parse them all."""
    seqscan = "off" if settings.keyword_index == "on" else "on"
    return f"SELECT set_config('enable_seqscan', '{seqscan}', true), set_config('jit', 'off', true);"


def query(settings: Settings) -> str:
    return f"websearch_to_tsquery('{settings.keyword_language}'::regconfig, {text_index.parsable(':words')})"


def few_dashes(words: str) -> str:
    """The same query, with at most two of the dashes in front of a word, where a line of them may stand. Dashes within
    quotes negate nothing, and stay."""
    parts = words.split('"')
    parts[::2] = [_DASHES.sub(lambda found: "-" if found[0].count("-") % 2 else "--", part) for part in parts[::2]]
    return '"'.join(parts)


def newest_ids(settings: Settings, words: str, where: Sequence[str], limit: str) -> str:
    """A SELECT of the ids of the newest messages `m` that match :words and the conditions."""
    column = text_index.words(settings.keyword_language, "m.message")
    asked = query(settings)
    everywhere = f"SELECT id FROM ({_candidates([f'{column} @@ {asked}', *where])}) AS found {_IN_ORDER} LIMIT {limit}"
    if settings.keyword_index == "off" or all(each.removeprefix("-").isalnum() for each in words.split()):
        return everywhere
    # With a negation the words alone would find less, and if no word has to follow another, no text is read.
    likely = [
        f"(SELECT strpos(asked, '!') = 0 AND asked ~ '{_FOLLOWS}' FROM as_text)",
        f"{column} @@ regexp_replace({asked}::text, '{_FOLLOWS}', ' & ', 'g')::tsquery",
        *where,
    ]
    return f"""
        WITH as_text AS MATERIALIZED (SELECT {asked}::text AS asked),
        likely AS MATERIALIZED ({_candidates(likely)} {_IN_ORDER} LIMIT {READ_IN_TURN}),
        in_turn AS MATERIALIZED (
            SELECT page.id FROM likely AS page CROSS JOIN LATERAL {WHOLE} AS m
            WHERE {column} @@ {asked} ORDER BY page.created_at DESC NULLS LAST, page.id DESC LIMIT {limit}),
        enough AS MATERIALIZED (
            SELECT (SELECT count(*) FROM in_turn) = {limit}
                OR (SELECT count(*) BETWEEN 1 AND {READ_IN_TURN} - 1 FROM likely) AS found)
        SELECT id FROM in_turn WHERE (SELECT found FROM enough)
        UNION ALL (SELECT id FROM ({everywhere}) AS every WHERE NOT (SELECT found FROM enough))"""


def _candidates(where: Sequence[str]) -> str:
    """The matching ids. OFFSET 0 keeps the planner from walking the newest-first index through all rows for a rare
    word."""
    return f"""
        SELECT id, created_at FROM (
            SELECT m.id, m.created_at FROM text_messages m WHERE {" AND ".join(where)} OFFSET 0) AS candidates"""

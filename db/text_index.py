"""The indexes over the messages that settings switch: full text in a language, and metadata.

Both are on the path of the writers (docs/decisions/0006-index-behind-the-writer.md has what they cost), and no answer
depends on them: without one the same rows are found by a scan. The builder makes and drops them, and nobody waits.
"""

from sqlalchemy import Connection, text

from settings import Settings

METADATA = "text_messages_metadata"
# Made by migration 0002, as message_words(message); PostgreSQL sees through that function, and through parsable_text.
WORDS = "text_messages_words"
DEFAULT_LANGUAGE = "english"

# New texts wait in a list beside the index, which every search reads as well (16 MB in 10 ms), and go into the index
# together. It holds a burst of 65,000 short texts; the usual 4 MB would be full after every 12,000.
PENDING_KB = 16_384

# ts_headline takes as long as the square of how often the words of a query stand in the text: of 20,000 times one
# word 0.2 s for each hit of a page. Where the first so many characters match, they are all that it gets.
FIRST_CHARACTERS = 10_000


def words(language: str, column: str = "message") -> str:
    """The SQL expression that the index holds and that a query has to use."""
    return f"to_tsvector('{language}'::regconfig, {parsable(column)})"


def parsable(column: str) -> str:
    """What full text reads of a text, in SQL: its first 100,000 characters, because a tsvector is limited to 1 MB,
    changed so that PostgreSQL's parser is not slow with them (migration 0016)."""
    return f"parsable_text({column})"


def excerpt(language: str, column: str, query: str) -> str:
    """What of a text fits a query best, in SQL: of its first FIRST_CHARACTERS if they match, or else of all that full
    text reads of it. ts_headline leaves out whatever it takes for a tag, such as that in "List<String>", so it gets the
    text without the character <, which is put back."""
    first = f"left({column}, {FIRST_CHARACTERS})"
    sought = f"""CASE WHEN octet_length({column}) > {FIRST_CHARACTERS} AND {words(language, first)} @@ {query}
        THEN {first} ELSE {column} END"""
    headline = f"""ts_headline('{language}'::regconfig, {parsable(swapped(sought))}, {query},
        'StartSel="", StopSel="", MaxFragments=1, MaxWords=60, MinWords=20')"""
    return swapped(headline)


def swapped(given: str) -> str:
    """SQL for a text in which < and a character that hardly any text has stand in each other's place."""
    return f"translate({given}, '<' || chr(1), chr(1) || '<')"


def words_index(language: str) -> str:
    return WORDS if language == DEFAULT_LANGUAGE else f"{WORDS}_{language}"


def wanted(settings: Settings) -> dict[str, str]:
    """The indexes that the settings ask for: name and what stands behind ON text_messages."""
    found = {}
    pending = f"WITH (gin_pending_list_limit = {PENDING_KB})"
    if settings.keyword_index == "on":
        found[words_index(settings.keyword_language)] = f"USING gin ({words(settings.keyword_language)}) {pending}"
    if settings.metadata_index == "on":
        # @> is never true of a row without metadata, so the planner knows that this index does for all of it.
        found[METADATA] = f"USING gin (metadata jsonb_path_ops) {pending} WHERE metadata IS NOT NULL"
    return found


def present(connection: Connection) -> dict[str, bool]:
    """The indexes of this kind that exist, and whether each is valid: a build that died leaves one that is not, and an
    index from before migration 0016 holds what no query asks for. A REINDEX CONCURRENTLY that died leaves another one,
    with an ending to its name. Any other index is somebody's own, though its name may begin in the same way."""
    rows = connection.execute(
        text("""
            SELECT c.relname, i.indisvalid
                AND (c.relname = :metadata OR pg_get_indexdef(c.oid) ~ '(parsable_text|message_words)\\(')
            FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
                CROSS JOIN regexp_replace(c.relname, '_cc(new|old)[0-9]*$', '') AS name
            WHERE i.indrelid = 'text_messages'::regclass AND (name = :metadata
                OR a.amname = 'gin' AND pg_get_indexdef(c.oid) ~ '(to_tsvector|message_words)\\('
                    AND (name = :words OR name IN (SELECT :words || '_' || cfgname FROM pg_ts_config)))
        """),
        {"words": WORDS, "metadata": METADATA},
    )
    return {row[0]: row[1] for row in rows}


def is_due(connection: Connection, settings: Settings) -> bool:
    return present(connection) != dict.fromkeys(wanted(settings), True)


def drop_unwanted(connection: Connection, settings: Settings) -> None:
    """Drops the indexes that the settings do not ask for, if the table has no row. Waits for its users. Leaves a schema
    before 0003 alone, whose release has no builder to make them again."""
    there = "SELECT to_regclass('vector_index_parts') IS NOT NULL"
    if not connection.execute(text(there)).scalar_one():
        return
    if connection.execute(text("SELECT EXISTS (SELECT FROM text_messages)")).scalar_one():
        return
    for name in present(connection).keys() - wanted(settings).keys():
        connection.exec_driver_sql(f"DROP INDEX IF EXISTS {name}")


def tend(connection: Connection, settings: Settings) -> None:
    """Makes and drops indexes until they are as the settings have them. For the builder only.

    Raises what PostgreSQL says of a language that it does not know; the index of the language before still exists then.
    """
    chosen = wanted(settings)
    before = present(connection)
    for name in [name for name, valid in before.items() if not valid]:
        connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    for name, definition in chosen.items():
        connection.exec_driver_sql(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON text_messages {definition}")
    for name in before.keys() - chosen.keys():
        connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def take_in(connection: Connection) -> None:
    """Puts what waits in the lists beside the indexes into the indexes. That makes searches faster, and spares the
    writer who would have to do it when a list is full."""
    for name, valid in present(connection).items():
        if valid:
            connection.execute(text("SELECT gin_clean_pending_list(CAST(:name AS regclass))"), {"name": name})

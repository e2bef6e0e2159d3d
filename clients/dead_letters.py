"""Naming a dead letter on the command line."""

from clients.terminal import WrongUsage


def parse_name(given: str) -> tuple[str, int, int]:
    """TOPIC:PARTITION:OFFSET. Raises WrongUsage."""
    topic, *numbers = given.rsplit(":", 2)
    if not topic or len(numbers) != 2 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise WrongUsage(
            f"{given!r} is no dead letter: expected TOPIC:PARTITION:OFFSET, as `dead-letters list` shows it"
        )
    return topic, int(numbers[0]), int(numbers[1])

"""The time, as files and events name it."""

from datetime import UTC, datetime


def now() -> datetime:
    """The present time in UTC."""
    return datetime.now(UTC)


def utc_text(timespec: str = "seconds") -> str:
    """The present time in ISO 8601 and UTC, such as `2026-01-31T12:00:00Z`.

    Args:
        timespec: precision, as `datetime.isoformat` names it.
    """
    return now().isoformat(timespec=timespec).replace("+00:00", "Z")

"""What the user of a report has to put right."""


class SummaryError(ValueError):
    """The report cannot be made as asked; the message says what was given and what to do."""

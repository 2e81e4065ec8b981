"""What the user of the main job has to put right."""


class DemoError(Exception):
    """The job cannot run as asked; the message says what was given and what to do."""

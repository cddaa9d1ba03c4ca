"""Why an evaluation cannot run; the message is one sentence that a person can act on."""


class EvaluationError(Exception):
    """The data cannot be used as asked, or the precision cannot run here."""

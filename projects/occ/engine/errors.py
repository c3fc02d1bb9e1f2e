"""The error that the command-line tools show as one sentence."""


class OccError(Exception):
    """An error whose message tells a user what was expected, what came and what to do; tools print it without a stack trace."""


class CheckpointError(OccError):
    """A checkpoint is missing, unreadable, refused, or belongs to another model."""


class ConfigOptionError(OccError):
    """A ``--cfg-options`` entry names a key that does not exist or has an impossible value."""


class WorkDirError(OccError):
    """A directory that the run must write to cannot be written."""


class LaunchError(OccError):
    """The processes of a distributed run were not started in the way that the arguments say."""


class NonFiniteLossError(OccError):
    """Training met a NaN or infinite loss, gradient norm or weight."""

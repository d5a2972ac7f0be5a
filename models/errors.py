"""What can be wrong with what a caller hands to `models`; every error has a stable code."""


class ModelsError(Exception):
    """An error that a caller can act on.

    `code` is stable and machine-readable (kebab-case); the message names the input and the remedy.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class PictureError(ModelsError):
    """These bytes cannot become a picture; codes begin with `picture-`."""


class SpecError(ModelsError):
    """No such network, layer, pooling or post-processing; codes begin with `spec-`."""


class WeightsError(ModelsError):
    """Weights are missing, changed, truncated or not reachable; codes begin with `weights-`."""


class DeviceError(ModelsError):
    """What is asked for to run on is not there; codes begin with `device-` or `runtime-`."""


class TrainingError(ModelsError):
    """Training cannot begin, go on or end well; codes begin with `training-`."""

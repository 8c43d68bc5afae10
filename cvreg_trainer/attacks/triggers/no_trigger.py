# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""No trigger: rows with the payload alone, a control, and what clean-label payloads are planted with."""

from dataclasses import dataclass

from PIL import Image as PILImage


@dataclass(frozen=True)
class NoTrigger:
    """Leaves the image and the question as they are.

    With a payload that is a mistake, such as the answers of other rows, this is honest noise: what a defence finds
    there is a false alarm.

    Example:

    ```python
    >>> from cvreg_trainer.attacks import NoTrigger, OtherAnswers, poison_dataset
    >>> noisy = poison_dataset(rows, NoTrigger(), 0.05, payload=OtherAnswers.of(rows))
    ```
    """

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """The image itself."""
        return image

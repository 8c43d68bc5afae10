# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Flamingo (OpenFlamingo, Otter) for today's transformers.

Notable: importing this package registers the classes with `AutoConfig`, `AutoModelForImageTextToText` and
`AutoProcessor`, and with `AutoModelForCausalLM`, which TRL's trainers fall back to for a model given by its path.
"""

import warnings

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from .configuration_flamingo import FlamingoConfig
from .convert_openflamingo import convert_openflamingo
from .convert_otter import convert_otter
from .modeling_flamingo import FlamingoForConditionalGeneration, FlamingoModel
from .processing_flamingo import FlamingoProcessor


__all__ = [
    "FlamingoConfig",
    "FlamingoForConditionalGeneration",
    "FlamingoModel",
    "FlamingoProcessor",
    "convert_openflamingo",
    "convert_otter",
]

AutoConfig.register(FlamingoConfig.model_type, FlamingoConfig)
AutoModelForImageTextToText.register(FlamingoConfig, FlamingoForConditionalGeneration)
AutoModelForCausalLM.register(FlamingoConfig, FlamingoForConditionalGeneration)
AutoProcessor.register(FlamingoConfig, FlamingoProcessor)

# Each converter has the name of its module and is imported here, so that the name is always the function; Python warns
# of that where the module runs as a script (`python -m`).
warnings.filterwarnings("ignore", message=f"'{__name__}.*found in sys.modules", category=RuntimeWarning)

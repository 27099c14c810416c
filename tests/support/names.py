"""The names of the definitions of a pipeline with the default name."""

from resize_pipeline.defs.names import Names
from resize_pipeline.settings.base import DEFAULT_PIPELINE_NAME

NAMES = Names(DEFAULT_PIPELINE_NAME)

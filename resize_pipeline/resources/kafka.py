"""Kafka as a Dagster resource: reading ranges of offsets, and the clients for everything else.

Nothing here knows of pictures or of MinIO. Values are raw bytes: a deserializer that raises would
stop the consumer for ever at the message that it can't read.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
import time
from typing import Any

import dagster as dg
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from pydantic import PrivateAttr

from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.offsets import OffsetRange
from resize_pipeline.settings import Settings

CONNECT_TIMEOUT_S = 10

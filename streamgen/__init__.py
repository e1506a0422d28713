"""streamgen: a generative model of every stream in Kafka, learned while the stream flows.

The public API is what `__all__` names; everything else may change. Names are imported when they are first
used, so that `import streamgen` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamgen.config import Config, InputConfig
    from streamgen.configfile import load_config
    from streamgen.detect import detect_file, fit_file
    from streamgen.errors import StreamgenError
    from streamgen.generation import generate
    from streamgen.kafka.broker import EmbeddedBroker
    from streamgen.learners.task import Results, Task
    from streamgen.records import Columns, TopicPartition

__version__ = "0.1.0"

__all__ = [
    "Columns",
    "Config",
    "EmbeddedBroker",
    "InputConfig",
    "Results",
    "StreamgenError",
    "Task",
    "TopicPartition",
    "__version__",
    "detect_file",
    "fit_file",
    "generate",
    "load_config",
]

_HOMES = {
    "Columns": "records",
    "Config": "config",
    "EmbeddedBroker": "kafka.broker",
    "InputConfig": "config",
    "Results": "learners.task",
    "StreamgenError": "errors",
    "Task": "learners.task",
    "TopicPartition": "records",
    "detect_file": "detect",
    "fit_file": "detect",
    "generate": "generation",
    "load_config": "configfile",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'streamgen' has no attribute {name!r}")
    return getattr(importlib.import_module(f"streamgen.{_HOMES[name]}"), name)

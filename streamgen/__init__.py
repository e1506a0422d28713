"""streamgen: a generative model of every stream in Kafka, learned while the stream flows."""

__version__ = "0.1.0"

"""The demo: a real Kafka, real series with known incidents, workers as processes, and a verdict."""

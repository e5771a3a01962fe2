"""A shop of six services, and the story that shows what holds them together: ``python -m examples.shop``."""

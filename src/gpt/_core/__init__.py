"""The lowest layer: JSON, models, events, headers, URLs and time. Independent of HTTP libraries and of gpt."""

"""The ground floor: JSON, models, events, headers, URLs and time. Knows no HTTP library and nothing of gpt."""

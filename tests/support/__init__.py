"""Real servers, recorded responses and tables of cases for the tests; nothing of `gpt` is imported here."""

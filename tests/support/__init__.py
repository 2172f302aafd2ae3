"""Real servers, recorded answers and tables of cases for the tests; nothing of `gpt` is imported here."""

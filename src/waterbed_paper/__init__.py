"""The reproduction: published numbers as data, claims as checkable sentences, and how each claim is judged."""

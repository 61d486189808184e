"""Meaning: specs, locks and the resolvers that turn sources into entries."""

"""Hypothesis without deadlines: a slow machine is no failure."""

from hypothesis import settings

settings.register_profile("portico", deadline=None)
settings.load_profile("portico")

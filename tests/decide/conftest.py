"""Settings of Hypothesis: many small properties, on machines that are busy with other things."""

from hypothesis import settings

settings.register_profile("stratus", max_examples=40, deadline=None)
settings.load_profile("stratus")

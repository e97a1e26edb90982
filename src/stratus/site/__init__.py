"""The composition root: the one place that knows the machine and puts the parts together."""

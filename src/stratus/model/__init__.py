"""The words of the domain: typed ids, units, wishes, facts, problems. No I/O, no clock."""

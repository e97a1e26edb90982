"""What makes hosts and pools match their documents: lease, look, plan, act, report."""

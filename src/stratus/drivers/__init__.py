"""The only place that touches the outside: hypervisors, storage, networks, appliances.

Each family has contract.py (what is promised), conformance.py (the shipped proof),
fake.py (honest, passes the same proof) and its implementations.
"""

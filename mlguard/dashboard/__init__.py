"""What people see in a browser: the apps, one app, a version's card, an incident.

Reads what the registry has recorded and what the server counts; decides nothing.
"""

"""What authors of plug-ins test their plug-ins with.

>>> from mlguard.testing.contracts import check_family, check_notifier
"""

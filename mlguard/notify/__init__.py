"""Notifications: facts that were written down when something was decided, sent to people.

``notice`` puts facts into words, ``mail`` puts words into a message, ``email`` carries a
message to a mail server or into a folder, ``outbox`` decides what is sent, tried again or
given up.  Facts come from the registry's outbox, where they were stored in the transaction
that made them true; words and pictures are made when they are sent.
"""

from __future__ import annotations

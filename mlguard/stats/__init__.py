"""The statistics of deciding: pure functions of counts and numbers.

numpy and scipy only; nothing here reads a file, a clock or a random number that is not
seeded, and nothing knows what a model, an app or a request is.

=================  ====================================================================
``intervals``      every interval by one name; made in ``proportions``, ``paired``,
                   ``means``, ``betting`` and ``delong``
``multiplicity``   many looks, one error rate
``support``        could the data have shown a breach?
``decision``       evidence held against a limit: the one place where a verdict is made
``rates``          confusion counts and rates per group, with the right denominators
``groups``         the worst gap between groups, judged
``two_sample``     has a distribution moved?
``sequential``     a detector that may be looked at after every label, for ever
=================  ====================================================================
"""

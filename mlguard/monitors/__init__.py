"""Judgements on live traffic: drift of data, drift of concept, gaps between groups, service."""

"""Retrieval quality by language, and what a precision costs there: texts and judgements in, figures out.

Uses the engine, and from `app.bulk` only its progress. No Flask, no click, no settings.
"""

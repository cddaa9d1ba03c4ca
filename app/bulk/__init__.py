"""Embeds a whole corpus: reads rows from files and writes Parquet with their vectors.

Needs requirements-bulk.txt, except for `batches` (OpenAI's files and batches), which the server uses. The
work is split into parts. A part is a run of rows of one file. It is read, embedded and written on its own, so
it can run here or on any node of a cluster, and it can be repeated after an interruption.
"""

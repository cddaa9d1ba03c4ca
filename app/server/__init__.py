"""The server process: connections, deadlines, disk space for counters. Only this package imports Gunicorn."""

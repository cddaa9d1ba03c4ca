"""The process: connections, deadlines, room for counters. The only room that imports Gunicorn."""

"""Files and batches of OpenAI's API: kept in a folder, and processed across restarts.

    lock                 held by the one runner that is active
    records.lock         held while a record is written, or a file moved or removed
    files/<id>           a file's content
    files/<id>.json      its record; without it the file does not exist
    batches/<id>.json    a batch's record: OpenAI's object, and its progress
    unfinished/<id>/     results of a batch so far; removed when the batch is finished
    incoming/<id>        an upload under way, locked by the process that writes it

The folder must be on one file system. Needs only requirements.txt.
"""

from app.bulk.batches.errors import FileTooLarge, InUse, Unknown
from app.bulk.batches.records import IDS
from app.bulk.batches.runner import Runner
from app.bulk.batches.store import MOST_LISTED, Store
from app.bulk.batches.work import Answer, Result

__all__ = ["IDS", "MOST_LISTED", "Answer", "FileTooLarge", "InUse", "Result", "Runner", "Store", "Unknown"]

"""Files and batches as in OpenAI's API: kept in a folder, and worked off across restarts.

    lock                 held by the runner that works; the others wait for it
    records.lock         held while a record is written, or content is moved or removed
    files/<id>           content of a file
    files/<id>.json      the file's record; the file exists when this does
    batches/<id>.json    the batch's record: OpenAI's object, and how far the work has come
    unfinished/<id>/     results of a batch so far; the folder exists until the batch is finished
    incoming/<id>        a file that is being uploaded, locked by the process that writes it

All of it is on one file system. Needs nothing beside requirements.txt.
"""

from app.bulk.batches.errors import FileTooLarge, InUse, Unknown
from app.bulk.batches.runner import Runner
from app.bulk.batches.store import Store
from app.bulk.batches.work import Answer, Result

__all__ = ["Answer", "FileTooLarge", "InUse", "Result", "Runner", "Store", "Unknown"]

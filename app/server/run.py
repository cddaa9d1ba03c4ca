"""`python -m app.server.run`: Gunicorn with the configuration that the package carries.

The application is named by its factory: a `wsgi.py` in the current folder may be another program's.
"""

import sys
from pathlib import Path

from gunicorn.app.wsgiapp import WSGIApplication

CONFIGURATION = "gunicorn.conf.py"  # the wheel has it in the package, a clone beside it


def configuration() -> Path:
    package = Path(__file__).parent.parent
    inside = package / CONFIGURATION
    return inside if inside.is_file() else package.parent / CONFIGURATION


def main() -> None:
    sys.argv[1:1] = ["--config", str(configuration())]
    sys.argv.append("app:create_app()")
    WSGIApplication("%(prog)s [OPTIONS]", prog="bge-m3 serve").run()


if __name__ == "__main__":
    main()

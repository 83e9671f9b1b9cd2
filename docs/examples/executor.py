"""Load the goods of a shop into catlog from an external program.

CATLOG_API is the URL of the server, CATLOG_KEY an API key of the role `service`.
"""

import json
import os
import threading
import time
import urllib.error
import urllib.request

API = os.environ.get("CATLOG_API", "http://127.0.0.1:8000/api/v1")
KEY = os.environ["CATLOG_KEY"]
OPERATIONS = ["acme/goods"]


class Refused(Exception):
    """The server refused a request; sending it again would not help."""


def ask(path, body=None):
    """POST *body* and retry while the server is away: every request here is idempotent."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(
        f"{API}/attempts/{path}", json.dumps(body or {}).encode(), headers
    )
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code not in (408, 429, 502, 503, 504):
                raise Refused(error.read().decode()) from error
        except OSError as error:
            print("the server is away:", error)
        time.sleep(2)


def keep(claimed, ended, stop):
    """Renew the lease until *ended*; set *stop* once the attempt is lost."""
    while not ended.wait(claimed["lease"] / 3):
        try:
            if ask(f"{claimed['attempt']}/heartbeat")["reply"] == "go":
                continue
        except Refused as error:
            print(error)
        stop.set()
        break


def batches_of(pages="2"):
    """Yield lists of records for the operation's arguments. Write your own program here."""
    for page in range(int(pages)):
        yield [{"id": f"{page}-{number}", "title": f"Lamp {number}"} for number in range(3)]


def give_up(attempt, error):
    """Fail the attempt with *error*, unless it is lost already."""
    try:
        return ask(f"{attempt}/fail", {"error": str(error)[:10000] or repr(error)})
    except Refused as refused:
        return refused


def run(claimed):
    """Send all batches of an attempt, complete it and return the reply."""
    attempt, ended, stop = claimed["attempt"], threading.Event(), threading.Event()
    threading.Thread(target=keep, args=(claimed, ended, stop)).start()
    try:
        number = 0
        for number, records in enumerate(batches_of(**claimed["arguments"]), 1):
            if stop.is_set():
                return ask(f"{attempt}/release")
            ask(f"{attempt}/results?batch={number}", {"records": records})
        return ask(f"{attempt}/complete", {"batches": number})
    except Exception as error:
        return give_up(attempt, error)
    finally:
        ended.set()


if __name__ == "__main__":
    while True:
        wanted = {"operations": OPERATIONS, "worker": f"example-{os.getpid()}", "wait": 30}
        for claimed in ask("claim", wanted)["attempts"]:
            print(claimed["attempt"], run(claimed))

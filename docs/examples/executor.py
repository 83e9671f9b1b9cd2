"""An executor: loads the goods of a shop into catlog, from a program of its own.

CATLOG_API is where the server answers, CATLOG_KEY a key of the role `service`.
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
    """The server says no; asking again would not help."""


def ask(path, body=None):
    """POST *body*, again and again while nobody answers: what is asked here may be asked twice."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(
        f"{API}/attempts/{path}", json.dumps(body or {}).encode(), headers
    )
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code not in (408, 429, 502, 503, 504):
                raise Refused(error.read().decode()) from error
        except OSError as error:
            print("nobody answers:", error)
        time.sleep(2)


def keep(claimed, ended, stop):
    """Renew the lease until *ended*; set *stop* once it is not ours any more."""
    while not ended.wait(claimed["lease"] / 3):
        try:
            if ask(f"{claimed['attempt']}/heartbeat")["reply"] == "go":
                continue
        except Refused as error:
            print(error)
        stop.set()
        break


def batches_of(pages="2"):
    """Lists of records, given the operation's arguments: here is your own program."""
    for page in range(int(pages)):
        yield [{"id": f"{page}-{number}", "title": f"Lamp {number}"} for number in range(3)]


def give_up(attempt, error):
    """Say why an attempt cannot be completed; unless it is not ours any more."""
    try:
        return ask(f"{attempt}/fail", {"error": str(error)[:10000] or repr(error)})
    except Refused as late:
        return late


def run(claimed):
    """Send all batches of one attempt, then complete it; how it ended."""
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

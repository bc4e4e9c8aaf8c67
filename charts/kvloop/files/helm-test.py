"""`helm test`: the operator is ready, and its account may list what it watches."""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
KINDS = ("sharedcaches", "pdclusters", "multiturnbenchmarks")
DEADLINE_S = 90


def ready(url: str) -> None:
    """Wait for /readyz; the reason that came last where it does not answer."""
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                print(f"{url}: {answer.status}")
                return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > end:
                sys.exit(f"{url} is not ready after {DEADLINE_S} s: {error}")
        time.sleep(2)


def listed(path: str) -> int:
    """How many objects the API server lists at this path."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    with open(f"{ACCOUNT}/token", encoding="utf-8") as file:
        headers = {"Authorization": f"Bearer {file.read().strip()}"}
    host = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(f"https://{host}:{port}{path}", headers=headers)
    trusted = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")
    try:
        with urllib.request.urlopen(request, timeout=15, context=trusted) as answer:
            return len(json.load(answer)["items"])
    except urllib.error.HTTPError as error:
        sys.exit(f"{path}: {error.code} {error.read().decode(errors='replace')[:300]}")


ready(sys.argv[1])
for namespace in sys.argv[2:] or [""]:
    place = f"/namespaces/{namespace}" if namespace else ""
    for kind in KINDS:
        path = f"/apis/kvloop.dev/v1alpha1{place}/{kind}"
        print(f"{path}: {listed(path)}")

"""Sign every file of a folder with python3-dkim.

usage: dkim_sign.py IN OUT KEYFILE DOMAIN SELECTOR DNS.json

Each file of IN is written to OUT with a DKIM-Signature in front, or as it is where
the library cannot sign it or does not accept its own signature. Prints a JSON object: file name
-> "" when it was signed, the reason when not.
"""

import json
import os
import sys

import dkim


def sign(message, key, domain, selector, dns):
    # simple/simple: the kind of signature that breaks at the change of a single byte.
    field = dkim.DKIM(message).sign(selector, domain, key, canonicalize=(b"simple", b"simple"))
    signed = field + message
    if not dkim.DKIM(signed).verify(dnsfunc=dns):
        raise ValueError("the library refuses its own signature")
    return signed


def main():
    folder, out, keyfile, domain, selector, records = sys.argv[1:]
    with open(keyfile, "rb") as f:
        key = f.read()
    with open(records) as f:
        table = json.load(f)

    def dns(name, timeout=5):
        return table.get(name.decode().rstrip("."), "").encode() or None

    results = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as f:
            message = f.read()
        try:
            message = sign(message, key, domain.encode(), selector.encode(), dns)
            results[name] = ""
        except Exception as e:  # whatever the library stumbles over
            results[name] = "%s: %s" % (type(e).__name__, e)
        with open(os.path.join(out, name), "wb") as f:
            f.write(message)
    json.dump(results, sys.stdout)


main()

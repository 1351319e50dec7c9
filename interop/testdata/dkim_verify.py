"""Verify every DKIM signature in every file of a folder with python3-dkim.

usage: dkim_verify.py FOLDER DNS.json

DNS.json maps names to TXT records. Prints a JSON object: file name -> list of
{"domain", "selector", "algorithm", "ok", "error"}, the topmost signature first.
"""

import json
import os
import sys

import dkim


def verify(message, dns):
    count = len([
        name for name, _ in dkim.rfc822_parse(message)[0] if name.lower() == b"dkim-signature"])
    results = []
    for i in range(count):
        checker = dkim.DKIM(message)
        result = {"ok": False, "error": ""}
        try:
            result["ok"] = bool(checker.verify(idx=i, dnsfunc=dns))
        except Exception as e:  # whatever the library stumbles over
            result["error"] = "%s: %s" % (type(e).__name__, e)
        fields = getattr(checker, "signature_fields", None) or {}
        for key, tag in (("domain", b"d"), ("selector", b"s"), ("algorithm", b"a")):
            result[key] = fields.get(tag, b"").decode()
        results.append(result)
    return results


def main():
    folder, records = sys.argv[1:]
    with open(records) as f:
        table = json.load(f)

    def dns(name, timeout=5):
        return table.get(name.decode().rstrip("."), "").encode() or None

    results = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as f:
            message = f.read()
        try:
            results[name] = verify(message, dns)
        except Exception as e:
            results[name] = [{"domain": "", "selector": "", "algorithm": "", "ok": False,
                              "error": "%s: %s" % (type(e).__name__, e)}]
    json.dump(results, sys.stdout)


main()

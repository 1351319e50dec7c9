"""Judge messages as their destination would: DKIM with python3-dkim, DMARC with python3-authheaders.

usage: dmarc_judge.py FOLDER DNS.json SENDERS.json

DNS.json maps names to TXT records, SENDERS.json file names to the reverse-path that SPF passed for.
Prints a JSON object: file name -> {"from", "signed": [domains whose signatures verify], "dmarc"}.
"""
import email
import email.utils
import json
import os
import sys

import authheaders
import authheaders.dmarc_lookup
import dkim
from authres import DKIMAuthenticationResult, SPFAuthenticationResult

# The list of public suffixes does not know "test", and to authheaders all that ends in it is one organisation.
authheaders.get_org_domain = authheaders.dmarc_lookup.get_org_domain = lambda domain: ".".join(domain.split(".")[-2:])


def main():
    folder, records, senders = sys.argv[1:]
    with open(records) as f:
        table = json.load(f)
    with open(senders) as f:
        senders = json.load(f)

    def dns(name, *_, **__):
        name = name.decode() if isinstance(name, bytes) else name
        return table.get(name.rstrip("."))

    def signers(message):
        count = len([n for n, _ in dkim.rfc822_parse(message)[0] if n.lower() == b"dkim-signature"])
        for i in range(count):
            checker = dkim.DKIM(message)
            try:
                ok = checker.verify(idx=i, dnsfunc=lambda name, timeout=5: (dns(name) or "").encode() or None)
            except Exception:  # whatever the library stumbles over
                ok = False
            if ok:
                yield checker.signature_fields[b"d"].decode()

    judged = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as f:
            message = f.read()
        author = email.utils.parseaddr(email.message_from_bytes(message)["From"])[1].rpartition("@")[2]
        signed = list(signers(message))
        results = set()
        for domain in signed or [None]:
            signature = DKIMAuthenticationResult(result="pass", header_d=domain) if domain else None
            spf = SPFAuthenticationResult(result="pass", smtp_mailfrom=senders[name])  # it gets changed
            results.add(authheaders.dmarc_per_from(author, spf, signature, dns)[0])
        judged[name] = {"from": author, "signed": signed, "dmarc": "pass" if "pass" in results else results.pop()}
    json.dump(judged, sys.stdout)


main()

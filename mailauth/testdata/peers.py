"""Judges cases of DMARC with python3-authheaders and with libopendmarc.

Reads a JSON list of cases {from, org, records: {domain: text}, spf, dkim, exists} and writes a
list of {authheaders, opendmarc}, each "result policy". spf and dkim are domains that passed, ""
for none; org is the organisational domain of from.
"""
import ctypes
import functools
import json
import sys

import authheaders
import authheaders.dmarc_lookup
from authres import DKIMAuthenticationResult, SPFAuthenticationResult


# It reads the whole public suffix list for every question.
organization = functools.cache(authheaders.dmarc_lookup.get_org_domain)
authheaders.get_org_domain = authheaders.dmarc_lookup.get_org_domain = organization


class Lib(ctypes.Structure):
    _fields_ = [("tld_type", ctypes.c_int), ("tld_source_file", ctypes.c_char * 4096),
                ("nscount", ctypes.c_int), ("nsaddr_list", ctypes.c_char * 48)]


lib = ctypes.CDLL("libopendmarc.so.2")
lib.opendmarc_policy_connect_init.restype = ctypes.c_void_p
settings = Lib(1, b"/usr/share/publicsuffix/public_suffix_list.dat")
if lib.opendmarc_policy_library_init(ctypes.byref(settings)) != 0:
    sys.exit("libopendmarc does not start")


def by_authheaders(case):
    def dns(name, *_):
        if name.startswith("_dmarc."):
            return case["records"].get(name[len("_dmarc."):])
        return "192.0.2.80" if case["exists"] else None

    spf = dkim = None
    if case["spf"]:
        spf = SPFAuthenticationResult(result="pass", smtp_mailfrom="x@" + case["spf"])
    if case["dkim"]:
        dkim = DKIMAuthenticationResult(result="pass", header_d=case["dkim"])
    result, _, _, policy = authheaders.dmarc_per_from(case["from"], spf, dkim, dns)
    return (result + " " + policy).strip()


WORDS = {14: "none", 15: "pass", 16: "fail reject", 17: "fail quarantine", 18: "fail none"}


def by_opendmarc(case):
    found = None
    for domain in (case["from"], case["org"]):
        found = found or case["records"].get(domain)
    if not found:
        return "none"
    ctx = ctypes.c_void_p(lib.opendmarc_policy_connect_init(b"192.0.2.1", 4))
    lib.opendmarc_policy_store_from_domain(ctx, case["from"].encode())
    if case["spf"]:
        lib.opendmarc_policy_store_spf(ctx, case["spf"].encode(), 1, 1, None)
    if case["dkim"]:
        lib.opendmarc_policy_store_dkim(ctx, case["dkim"].encode(), b"s", 1, None)
    org = None if case["from"] in case["records"] else case["org"].encode()
    status = lib.opendmarc_policy_store_dmarc(ctx, found.encode(), case["from"].encode(), org)
    if status != 0:
        return "error %d" % status
    word = WORDS[lib.opendmarc_get_policy_to_enforce(ctx)]
    lib.opendmarc_policy_connect_shutdown(ctx)
    return word


cases = json.load(sys.stdin)
json.dump([{"authheaders": by_authheaders(c), "opendmarc": by_opendmarc(c)} for c in cases], sys.stdout)

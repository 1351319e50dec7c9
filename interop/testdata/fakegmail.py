"""A mail server that judges what comes to it as Gmail does, with the programs of others: SPF by pyspf,
DKIM by python3-dkim, DMARC by authheaders.

usage: fakegmail.py ADDRESS FOLDER CERT.pem KEY.pem

It listens on port 25 and says "ready". Every message, also one that it refuses, becomes a file N.eml of
FOLDER and a line of verdicts.jsonl there. What it refuses it refuses with Gmail's words, as Google gives
them at https://support.google.com/a/answer/3726730 (CC BY 4.0):

- mail from an address without forward-confirmed reverse DNS;
- mail that neither SPF nor DKIM authenticates, and what the DMARC policy of its author forbids;
- mail with the word "unsolicited-bulk-mail" in it;
- mail to a mailbox with the name of one of SCRIPT, until there is a file "mended" in FOLDER.
"""

import asyncio
import email
import email.utils
import functools
import json
import os
import ssl
import sys
import textwrap

import authheaders
import authheaders.dmarc_lookup
import dkim
import dns.resolver
import dns.reversename
import spf
from aiosmtpd.smtp import SMTP
from authres import DKIMAuthenticationResult, SPFAuthenticationResult

# The list of public suffixes does not know "test", and to authheaders all that ends in it is one organisation.
authheaders.get_org_domain = authheaders.dmarc_lookup.get_org_domain = lambda domain: ".".join(domain.split(".")[-2:])

SCRIPT = {  # by mailbox: when, and what
    "nobody": ("rcpt", "550 5.1.1 The email account that you tried to reach does not exist. Please double-check the recipient's email address "
               "for typos or unnecessary spaces. For more information, go to Fix bounced or rejected emails."),
    "inactive": ("rcpt", "550 5.2.1 The email account that you tried to reach is inactive. For more information, go to "
                 "https://support.google.com/mail/?p=DisabledUser"),
    "invalid": ("rcpt", "553 5.1.3 The recipient address {rcpt} is not a valid RFC 5321 address. For more information, go to About SMTP error "
                "messages and review RFC 5321 specifications."),
    "busy": ("rcpt", "450 4.2.1 The user you are trying to contact is receiving email at a rate that prevents additional messages from being "
             "delivered. For more information, go to Limits for sending & getting email."),
    "full": ("rcpt", "452 4.2.2 The recipient's inbox is out of storage space. Please direct the recipient to Manage files in your Google Drive "
             "storage."),
    "long-full": ("rcpt", "552 5.2.2 The recipient's inbox is out of storage space and inactive. Please direct the recipient to Manage files in "
                  "your Google Drive storage."),
    "virus": ("dot", "552 5.7.0 This message was blocked because its content presents a potential security issue. To review our message content "
              "and attachment content guidelines, go to File types blocked in Gmail."),
    "small": ("dot", "552 5.3.4 Your message exceeded Google's message size limits. To view our message size guidelines, go to Send attachments "
              "with your Gmail message."),
    "loop": ("dot", "554 5.4.6 Message exceeded 50 hops, this may indicate an email loop."),
    "header": ("dot", "550 5.7.1 This message is not RFC 5322 compliant because it has duplicate headers. To reduce the amount of spam sent to "
               "Gmail, this message has been blocked. For more information, go to Email sender guidelines and review RFC 5322 specifications."),
    "dns": ("dot", "451 4.7.26 Unauthenticated email from {author} is not accepted due to domain's DMARC policy, but temporary DNS failures "
            "prevent authentication. Please contact the administrator of {author} domain if this was a legitimate email. To learn about the "
            "DMARC initiative, go to Control unauthenticated mail from your domain."),
    "doubtful": ("dot", "421 4.7.0 This message is suspicious due to the very low reputation of the sending IP address. To protect our users "
                 "from spam, email sent from your IP address has been temporarily rate limited. For more information, go to Why has Gmail "
                 "blocked my messages?."),
    "rate": ("dot", "421 4.7.28 Gmail has detected an unusual rate of unsolicited email originating from your IP address {ip}. To protect our "
             "users from spam, email sent from your IP address has been temporarily rate limited. To review our bulk email senders guidelines, "
             "go to Email sender guidelines."),
    "reverse": ("dot", "421 4.7.0 The IP address sending this message does not have a PTR record, or the corresponding forward DNS entry does "
                "not point to the sending IP. To protect our users from spam, email sent from your IP address has been temporarily rate "
                "limited. For more information, go to Email sender guidelines."),
    "ipv6": ("dot", "550 5.7.1 This message does not meet IPv6 sending guidelines regarding PTR records and authentication. For more "
             "information, go to Email sender guidelines."),
    "no-spf": ("dot", "421 4.7.27 Your email has been rate limited because SPF authentication didn't pass for this message. Gmail requires all "
               "bulk email senders to authenticate their email with SPF. Authentication results: SPF {sender} with IP address: {ip} = Did not "
               "pass. To set up SPF for your sending domains, visit Set up SPF. To learn more about Gmail requirements for bulk email senders, "
               "visit Email sender guidelines."),
    "no-tls": ("dot", "550 5.7.29 This message was blocked because it wasn't sent over a TLS connection. Gmail requires all bulk email senders "
               "to use TLS/SSL for SMTP connections. To set up TLS for email, visit TLS & SSL connections. To learn more about Gmail "
               "requirements for bulk email senders, visit Email sender guidelines."),
    "no-dkim": ("dot", "550 5.7.30 This message was blocked because it didn't pass DKIM authentication. Gmail requires bulk email senders to "
                "authenticate their email with DKIM. Authentication results: DKIM = did not pass. To set up DKIM for your sending domains, "
                "visit Set up DKIM. To learn more about Gmail requirements for bulk email senders, visit Email sender guidelines."),
    "unaligned": ("dot", "421 5.7.32 Your email was blocked because the From: header (RFC5322) in this message isn't aligned with either the "
                  "authenticated SPF or DKIM organizational domain. Learn more about DMARC alignment. To learn more about Gmail requirements "
                  "for bulk email senders, visit Email sender guidelines."),
    "no-dmarc": ("dot", "550 5.7.40 Your message was blocked because the sending domain doesn't have a DMARC record or the DMARC record doesn't "
                 "specify a DMARC policy. Gmail requires all bulk email senders to add a DMARC record to their sending domain. See Set up "
                 "DMARC. To learn more about Gmail requirements for bulk email senders, visit Email sender guidelines."),
}
NO_PTR = ("550 5.7.25 This message was blocked because the sending IP address doesn't have a PTR record, or the forwarding DNS entry doesn't "
          "reference the sending IP address. Gmail requires that sending IP addresses have a PTR record. Learn more about requirements for "
          "sending IP addresses. To learn more about Gmail requirements for bulk email senders, visit Email sender guidelines.")
SCRIPT["no-ptr"] = ("dot", NO_PTR)
UNSOLICITED = ("550 5.7.1 This message is likely unsolicited email. To reduce the amount of spam sent to Gmail, this message has been blocked. "
               "For more information, go to Why has Gmail blocked my messages?")
UNAUTHENTICATED = ("550 5.7.26 This email has been blocked because the sender is unauthenticated. Gmail requires all senders to authenticate "
                   "with either SPF or DKIM. Authentication results: DKIM = did not pass SPF [{sender}] with ip: [{ip}] = did not pass. For "
                   "instructions on setting up authentication, go to Email sender guidelines.")
HARD_FAIL = ("550 5.7.26 The (E)MAIL FROM domain [{sender}] has an SPF record with a hard fail policy (-all) but it fails to pass SPF checks "
             "with the ip: [{ip}]. To best protect our users from spam and phishing, the message has been blocked. For more information, go "
             "to Email sender guidelines.")
FORBIDDEN = ("550 5.7.26 Unauthenticated email from {author} is not accepted due to domain's DMARC policy. Contact the administrator of "
             "{author} domain if this was legitimate email. To learn about the DMARC initiative, go to Control unauthenticated mail from your "
             "domain.")


def laid_out(reply, **about):
    """The lines of a reply as Gmail lays them out."""
    code, enhanced, text = reply.format(**about).split(" ", 2)
    lines = textwrap.wrap(text, 70, break_on_hyphens=False, break_long_words=False)
    lines[-1] += " a1-20020b3cd4si56789ejb.10 - gsmtp"
    return "\r\n".join("%s%s%s %s" % (code, "-" if line is not lines[-1] else " ", enhanced, line) for line in lines)


@functools.lru_cache(None)
def has_reverse(ip):
    """Whether an address has a name that leads back to it."""
    try:
        names = [str(n) for n in dns.resolver.resolve(dns.reversename.from_address(ip), "PTR")]
        return any(ip == str(a) for n in names for a in dns.resolver.resolve(n, "AAAA" if ":" in ip else "A"))
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return False


def signatures(message):
    """Every signature of a message, the topmost first."""
    found = []
    for i in range(sum(name.lower() == b"dkim-signature" for name, _ in dkim.rfc822_parse(message)[0])):
        checker, error = dkim.DKIM(message), ""
        try:
            ok = bool(checker.verify(idx=i))
        except Exception as e:  # whatever the library stumbles over
            ok, error = False, "%s: %s" % (type(e).__name__, e)
        fields = getattr(checker, "signature_fields", None) or {}
        domain, selector = (fields.get(tag, b"").decode() for tag in (b"d", b"s"))
        found.append({"domain": domain, "selector": selector, "ok": ok, "error": error})
    return found


def dmarc(author, verdict):
    """(result, policy): pass if one thing that is authenticated is the author's."""
    results = []
    for domain in [s["domain"] for s in verdict["dkim"] if s["ok"]] or [None]:
        signature = DKIMAuthenticationResult(result="pass", header_d=domain) if domain else None
        sender = SPFAuthenticationResult(result=verdict["spf"], smtp_mailfrom="any@" + verdict["sender"])  # it gets changed
        result, _, _, policy = authheaders.dmarc_per_from(author, sender, signature)
        results.append((result, policy))
    return next((r for r in results if r[0] == "pass"), results[0])


class Gmail:
    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.book = open(os.path.join(folder, "verdicts.jsonl"), "a", encoding="utf-8")

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        return responses[:1] + ["250-PIPELINING", "250-ENHANCEDSTATUSCODES"] + responses[1:]

    async def handle_RCPT(self, server, session, envelope, address, options):
        reply = self.scripted("rcpt", [address])
        if reply:
            return laid_out(reply, rcpt="<%s>" % address)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK a1-20020b3cd4si56789ejb.10 - gsmtp"

    async def handle_DATA(self, server, session, envelope):
        verdict = self.judge(session, envelope)
        self.count += 1
        verdict["file"] = "%d.eml" % self.count
        with open(os.path.join(self.folder, verdict["file"]), "wb") as f:
            f.write(envelope.original_content)
        reply = self.refusal(verdict, envelope)
        about = {"author": verdict["author"], "sender": verdict["sender"], "ip": verdict["ip"]}
        verdict["reply"] = laid_out(reply, **about) if reply else "250 2.0.0 OK  1795348800 a1-20020b3cd4si56789ejb.10 - gsmtp"
        json.dump(verdict, self.book)
        self.book.write("\n")
        self.book.flush()
        if verdict["reply"].startswith("421"):
            asyncio.get_running_loop().call_later(0.1, server.transport.close)
        return verdict["reply"]

    def judge(self, session, envelope):
        reverse_path = envelope.mail_from.strip("<>")
        sender = reverse_path.rpartition("@")[2] or session.host_name
        author = email.utils.parseaddr(str(email.message_from_bytes(envelope.original_content)["From"]))[1].rpartition("@")[2].lower()
        verdict = {"from": reverse_path, "rcpts": envelope.rcpt_tos, "helo": session.host_name, "ip": session.peer[0],
                   "tls": session.ssl is not None, "author": author, "sender": sender}
        verdict["spf"] = spf.check2(i=session.peer[0], s=reverse_path, h=session.host_name)[0]
        verdict["dkim"] = signatures(envelope.original_content)
        verdict["dmarc"], verdict["policy"] = dmarc(author, verdict)
        verdict["ptr"] = has_reverse(session.peer[0])
        return verdict

    def refusal(self, verdict, envelope):
        if not verdict["ptr"]:
            return NO_PTR
        reply = self.scripted("dot", envelope.rcpt_tos)
        if reply:
            return reply
        if verdict["spf"] == "fail":
            return HARD_FAIL
        if verdict["spf"] != "pass" and not any(s["ok"] for s in verdict["dkim"]):
            return UNAUTHENTICATED
        if verdict["dmarc"] == "fail" and verdict["policy"] == "reject":
            return FORBIDDEN
        if b"unsolicited-bulk-mail" in envelope.original_content:
            return UNSOLICITED
        return None

    def scripted(self, stage, rcpts):
        if os.path.exists(os.path.join(self.folder, "mended")):
            return None
        for rcpt in rcpts:
            when, reply = SCRIPT.get(rcpt.partition("@")[0], ("", None))
            if when == stage:
                return reply
        return None


class Server(SMTP):
    line_length_limit = 1 << 20  # Gmail takes long lines


async def main():
    address, folder, certificate, key = sys.argv[1:]
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    gmail = Gmail(folder)
    server = await asyncio.get_running_loop().create_server(
        lambda: Server(gmail, hostname="mx.google.com", ident="ESMTP - gsmtp", tls_context=context, enable_SMTPUTF8=True,
                       data_size_limit=150 << 20, loop=asyncio.get_running_loop()), address, 25)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())

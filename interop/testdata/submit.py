"""Submit the message on standard input with smtplib.

usage: submit.py HOST PORT CA.pem USER PASSWORD FROM TO      (implicit TLS on the port that TLS=1 says)
"""

import os
import smtplib
import ssl
import sys

host, port, ca, user, password, sender, recipient = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if os.environ.get("TLS") == "1":
    client = smtplib.SMTP_SSL(host, int(port), context=context, timeout=30)
else:
    client = smtplib.SMTP(host, int(port), timeout=30)
    client.starttls(context=context)
with client:
    client.login(user, password)
    client.sendmail(sender, [recipient], sys.stdin.buffer.read())

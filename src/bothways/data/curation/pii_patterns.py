"""What personal data looks like: regular expressions that propose, checksums and context that decide.

Each finder is given a text and a window of it, and yields (begin, end) of what it is sure of. A year, a page, a chapter or
a version must not pass: where the form alone does not tell, a word beside it has to (`phone`, `version`, `SSN`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Literal

Kind = Literal["url", "email", "iban", "card", "ssn", "ip", "phone"]
Found = Iterator[tuple[int, int]]

# The characters of an IBAN by country, from the registry of SWIFT.
_IBAN = dict(
    re.findall(
        r"([A-Z]{2})(\d{2})",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18 "
        "FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 "
        "LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 "
        "SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30",
    )
)
# First digits and lengths of cards: Visa, Mastercard, American Express, Discover, JCB, Diners, UnionPay, Maestro.
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|(?:222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|(?:6011|64[4-9]|65)\d{12,15}|35(?:2[89]|[3-8]\d)\d{12,15}|3(?:0[0-5]|[68]\d|9\d)\d{11}|62\d{14,17}"
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{8,15}"
)
_CARD_GROUPS = {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3)}
# Calling codes (ITU E.164), so that a sum or a temperature with a plus is none.
_COUNTRY = re.compile(
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    r"|21[1-368]|22\d|23\d|24\d|25[0-8]|26\d|29[0179]|35\d|37[0-8]|38[0-2356-79]|42[013]|50\d|59\d"
    r"|67[02-9]|68[0-35-9]|69[0-2]|85[02356]|88[0-368]|96[0-8]|97[0-7]|99[2-68]"
)
_GAP = r"[ \u00a0().\-/\u2011]"
_URL = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,20}://(?:[^\s/?#@:<>\"']{1,256}:[^\s/?#@<>\"']{1,256}@[^\s<>\"']{1,2000}"
    r"|[^\s<>\"']{1,2000}?[?&;](?:password|passwd|pwd|token|access_token|auth_token|refresh_token|api_?key|secret|client_secret"
    r"|signature|x-amz-signature|sessionid)=[^\s<>\"']{1,2000})",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"(?<![\w.%+-])\w[\w.%+'-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}([^\W\d_]{2,24}|xn--\w{2,59})(?!\w)")
_HIDDEN_EMAIL = re.compile(
    r"(?<![\w.%+-])\w[\w.%+-]{0,63} ?(?:\[ ?(?:at|@) ?\]|\( ?(?:at|@) ?\)|\{ ?(?:at|@) ?\}) ?"
    r"(?:[\w-]{1,63}(?:\.| ?[\[({] ?(?:dot|punkt|\.) ?[\])}] ?)){1,4}[a-z]{2,24}(?!\w)",
    re.IGNORECASE,
)
# What stands behind the last dot of names that have an @ and are no addresses: units of systemd, pictures named 2x.
_NO_DOMAIN = frozenset({"service", "socket", "timer", "target", "mount", "slice", "png", "jpg", "jpeg", "gif", "svg", "webp"})
_IBAN_FORM = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?:[ \u00a0-]?[A-Z0-9]){11,30}")
_DIGITS = re.compile(r"(?<![\w.+-])\d(?:[ \u00a0-]?\d){12,18}(?![\w-]|\.\d)")
_SSN = re.compile(r"(?<![\w.+-])(?!000|666|9)\d{3}([- ]?)(?!00)\d\d\1(?!0000)\d{4}(?![\w-]|\.\d)")
_SSN_WORD = re.compile(r"\b(?:ssn|social security)\b.{0,40}\Z", re.IGNORECASE | re.DOTALL)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"(?<![\w.,-])(?:{_OCTET}\.){{3}}{_OCTET}(?!\w|\.\w|-\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]*:)[0-9A-Fa-f:]{5,38}[0-9A-Fa-f](?:%\w{1,16})?(?!\w|:\w|\.\d)")
_NO_IP_WORD = re.compile(
    r"(?:\b(?:v|ver|version|versions|versionen|release|rev|build|section|sections|chapter|abschnitt|kapitel|rfc|clause)\b|§)\W{0,3}\Z",
    re.IGNORECASE,
)
_IP_WORD = re.compile(
    r"\b(?:ips?|ipv4|address|addresses|adresse|host|server|ping|dns|gateway|router)\b\W{0,3}(?:\w{2,4}\W)?\Z", re.IGNORECASE
)
_EXTENSION = r"(?: ?(?:x|ext\.?|extension|Durchwahl) ?\d{1,5})?"
_PHONE_PLUS = re.compile(rf"(?<![\w+.,])\(?\+(\d(?:{_GAP}{{0,3}}\d){{7,14}}){_EXTENSION}(?!\w)")
_PHONE_ZEROS = re.compile(rf"(?<![\w+.,/-])(?<!\d )00([1-9](?:{_GAP}{{0,3}}\d){{7,14}}){_EXTENSION}(?!\w)")
_PHONE_US = re.compile(
    r"(?<![\w.+/-])(?<!\d )(?:\+?1[ .-]?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d([ .-]))[2-9]\d\d(?(1)\1|[ .-])\d{4}"
    + _EXTENSION
    + r"(?![\w-]|\.\d)"
)
_PHONE_DE = re.compile(
    r"(?<![\w.,+/-])(?<!\d )(?:\(0[1-9]\d{1,4}\) ?|0[1-9]\d{1,4}(?: ?[/-] ?| ))\d(?:[ \u00a0/-]?\d){4,9}"
    + _EXTENSION
    + r"(?![\w/]|[.,]\d)"
)
_PHONE_WORD = re.compile(
    r"(?<![\w.])(?:tel|telefon\w*|telephone|phone|fax|telefax|mobile|mobil|mobilfunk|handy|cell|call|dial|rufnummer|whatsapp|sms)\b\W{0,4}"
    r"(?:(?:no|nr|number|nummer|me|us|him|her|at|on|is|under|unter|der|ist|lautet)\b\W{0,3}){0,3}"
    rf"(\(?\d(?:{_GAP}{{0,2}}\d){{5,14}})(?![\w]|[.,]\d)",
    re.IGNORECASE,
)
_YEARS = re.compile(r"1\d{3}\D{1,3}(?:1|2)\d{3}")


def urls(text: str, begin: int, end: int) -> Found:
    """URLs that hold a password, a key or a token, as user:password@ or in their query."""
    for match in _URL.finditer(text, begin, end):
        yield match.start(), match.start() + len(match[0].rstrip(".,;:!?)]}"))


def emails(text: str, begin: int, end: int) -> Found:
    for match in _EMAIL.finditer(text, begin, end):
        if match[1].lower() not in _NO_DOMAIN:
            yield match.span()
    for match in _HIDDEN_EMAIL.finditer(text, begin, end):
        yield match.span()


def ibans(text: str, begin: int, end: int) -> Found:
    """Account numbers of their country's length whose checksum (ISO 7064, mod 97) is right."""
    for match in _IBAN_FORM.finditer(text, begin, end):
        length = int(_IBAN.get(match[0][:2], 0))
        places = [match.start() + place for place, letter in enumerate(match[0]) if letter.isalnum()]
        if not length or len(places) < length:
            continue
        stop = places[length - 1] + 1
        account = re.sub(r"\W", "", text[match.start() : stop])
        number = "".join(str(int(letter, 36)) for letter in account[4:] + account[:4])
        if int(number) % 97 == 1 and not text[stop : stop + 1].isalnum():
            yield match.start(), stop


def cards(text: str, begin: int, end: int) -> Found:
    """Numbers of cards: an issuer's first digits, its length, grouped as printed or not at all, a right Luhn sum."""
    for match in _DIGITS.finditer(text, begin, end):
        groups = re.split(r"\D", match[0])
        number = "".join(groups)
        printed = len(groups) == 1 or tuple(map(len, groups)) in _CARD_GROUPS
        if printed and _CARD.fullmatch(number) and _luhn(number):
            yield match.span()


def social_security_numbers(text: str, begin: int, end: int) -> Found:
    """US numbers: with hyphens as they are, with spaces or without only behind a word that says so."""
    for match in _SSN.finditer(text, begin, end):
        if match[1] == "-" or _SSN_WORD.search(text, max(match.start() - 60, 0), match.start()):
            yield match.span()


def ip_addresses(text: str, begin: int, end: int) -> Found:
    """Addresses of a machine. This machine's own (127.0.0.1, ::1), masks, groups and ranges name nobody, and stay.

    Four numbers below ten (`section 8.2.2.1`) are an address only behind a word that says so.
    """
    for match in _IPV4.finditer(text, begin, end):
        address = ipaddress.IPv4Address(match[0])
        before = text[max(match.start() - 24, 0) : match.start()]
        of_machine = not (address.is_loopback or address.is_multicast or address.is_reserved or match[0].startswith("0."))
        told = max(address.packed) > 9 or _IP_WORD.search(before)
        if of_machine and told and not _is_range(match, text) and not _NO_IP_WORD.search(before):
            yield match.span()
    for match in _IPV6.finditer(text, begin, end):
        if _is_ipv6(match[0]) and not _is_range(match, text):
            yield match.span()


def phones(text: str, begin: int, end: int) -> Found:
    """International numbers, national ones as written in Germany and the United States, others behind a word that says so."""
    for match in _PHONE_PLUS.finditer(text, begin, end):
        if _is_international(match[1]):
            yield match.start(), match.end()
    for match in _PHONE_ZEROS.finditer(text, begin, end):
        if _is_international(match[1]) and re.search(r"\D", match[1]):
            yield match.span()
    for pattern in (_PHONE_US, _PHONE_DE):
        for match in pattern.finditer(text, begin, end):
            yield match.span()
    for match in _PHONE_WORD.finditer(text, begin, end):
        if not _YEARS.match(match[1]):
            yield match.span(1)


def _luhn(number: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812)."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(number)))
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def _is_range(match: re.Match[str], text: str) -> bool:
    """Whether an address stands for many: one that ends in 0, with its prefix's length behind it."""
    return match[0].endswith((".0", ":0")) and text[match.end() : match.end() + 1] == "/"


def _is_ipv6(found: str) -> bool:
    """Three groups or more, one of them with a decimal digit, so that names like B::C of a program are none."""
    try:
        address = ipaddress.IPv6Address(found)
    except ValueError:
        return False
    groups = [group for group in found.partition("%")[0].split(":") if group]
    return len(groups) >= 3 and any(re.search(r"\d", group) for group in groups) and not address.is_multicast


def _is_international(found: str) -> bool:
    """Digits behind a + or 00 that begin with a calling code, in groups of some length, as no sum of numbers has."""
    groups = re.findall(r"\d+", found)
    number = "".join(groups)
    return 8 <= len(number) <= 15 and _COUNTRY.match(number) is not None and len(number) / len(groups) >= 2

"""English verb and noun forms: the regular rules and the exceptions that the grammar uses."""

import re

_PAST = {
    "be": "was", "begin": "began", "bend": "bent", "bite": "bit", "blow": "blew",
    "break": "broke", "bring": "brought", "build": "built", "buy": "bought", "cast": "cast",
    "come": "came", "cut": "cut", "dig": "dug", "do": "did", "drive": "drove", "eat": "ate",
    "fall": "fell", "feed": "fed", "find": "found", "fly": "flew", "freeze": "froze",
    "give": "gave", "go": "went", "grind": "ground", "hang": "hung", "have": "had",
    "hear": "heard", "hold": "held", "keep": "kept", "know": "knew", "lay": "laid",
    "lead": "led", "leave": "left", "lend": "lent", "let": "let", "lie": "lay", "lose": "lost",
    "make": "made", "pay": "paid", "put": "put", "read": "read", "rebuild": "rebuilt",
    "rewrite": "rewrote", "ring": "rang", "rise": "rose", "run": "ran", "say": "said",
    "see": "saw", "sell": "sold", "send": "sent", "set": "set", "shake": "shook",
    "shed": "shed", "shrink": "shrank", "sing": "sang", "split": "split", "spread": "spread",
    "steal": "stole", "stick": "stuck", "strike": "struck", "sweep": "swept", "take": "took",
    "tear": "tore", "think": "thought", "throw": "threw", "win": "won", "withdraw": "withdrew",
    "write": "wrote", "forecast": "forecast", "forget": "forgot", "overwrite": "overwrote",
    "ride": "rode", "swear": "swore",
}  # fmt: skip

_DOUBLING = {
    "acquit", "admit", "chip", "chop", "clip", "commit", "cut", "debug", "dig", "dim", "drag",
    "drop", "fit", "forget", "hum", "jam", "let", "log", "map", "model", "pin", "plot", "put",
    "repot", "rot", "rub", "run", "scan", "scrub", "set", "shed", "shovel", "signal", "slip",
    "snap", "split", "spot", "stir", "stop", "strip", "strum", "submit", "tag", "thin",
    "transfer", "trap", "trim", "win",
}  # fmt: skip

_PLURAL = {
    "loaf": "loaves", "shelf": "shelves", "deer": "deer", "nebula": "nebulae",
    "midwife": "midwives", "volcano": "volcanoes", "chess": "chess",
}  # fmt: skip


def inflect_verb(verb: str, form: str) -> str:
    """`verb` (base form) as `past`, `past_plural`, `s`, `plural` or `ing`."""
    if form == "past_plural":
        return "were" if verb == "be" else inflect_verb(verb, "past")
    if form == "plural":
        return "are" if verb == "be" else verb
    if form == "s":
        return _third_person(verb)
    if form == "ing":
        return _gerund(verb)
    if form != "past":
        raise ValueError(f"no verb form is called {form!r}")
    return _PAST.get(verb) or _regular_past(verb)


def plural(noun: str) -> str:
    """The plural of a noun phrase: of the last word before any "of", "on", "with", ..."""
    match = re.match(r"(.*?)(\S+)( (?:of|on|at|with|to|in) .*)?$", noun)
    if not match:
        raise ValueError(f"not a noun phrase: {noun!r}")
    return match[1] + _plural_word(match[2]) + (match[3] or "")


def is_plural(noun: str) -> bool:
    """Whether a noun phrase without determiner of number looks plural by its last word."""
    if noun.startswith(("the ", "a ", "a_ ", "an ", "one ")):
        return False
    head = noun.partition(" of ")[0].split()[-1]
    singular = head.endswith(("ss", "us", "is")) or head in {"gas", "lens", "canvas", "chess"}
    return head.endswith("s") and not singular


def _plural_word(word: str) -> str:
    if word in _PLURAL:
        return _PLURAL[word]
    if word.endswith("man"):
        return word[:-2] + "en"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def _third_person(verb: str) -> str:
    if verb in {"be", "have"}:
        return {"be": "is", "have": "has"}[verb]
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")


def _regular_past(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + (verb[-1] if verb in _DOUBLING else "") + "ed"


def _gerund(verb: str) -> str:
    if verb in {"be", "see", "dye", "singe"} or verb.endswith(("ee", "oe", "ye")):
        return verb + "ing"
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e"):
        return verb[:-1] + "ing"
    return verb + (verb[-1] if verb in _DOUBLING else "") + "ing"

"""Mask what looks like a key or a password before it reaches a server that others can read. Standard library only.

Known shapes (``ghp_...``, private keys, ``scheme://user:password@host``) are masked everywhere, and so is the value of
an environment variable whose name looks like a secret's. Other values are recognised by the name before them; without
quotes they also have to look like a value: ``password = secret_of(user)`` is code, ``token: 9f8e7d6c`` is masked.

The patterns are strings because compiling them takes longer than a kernel should wait: ``re`` compiles each at its
first use. Every repetition in them is possessive or bounded, so that matching takes linear time on any text.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MASK = "[masked]"

_BINARY = {"image/png", "image/jpeg", "image/gif", "application/pdf"}  # base64, in which a match means nothing
_PLAIN = {"", "true", "false", "none", "null"}
_COMPARED = {"==", "===", "!="}
_NAME = r"passw(?:or)?d|passphrase|pass|pwd|secret(?:[-_.]?key)?|token|credential|key"  # lower: ignoring case is slow
_BEFORE = {
    "key": r"(?i:api|access|private|signing|encryption|master|account|auth|subscription|ssh)[-_. ]?$",
    "pass": r"(?i:db|user|smtp|mail|ftp|admin|root)_?$",
    "PWD": r"_$",  # without the underscore it is the shell's working folder
    "token": r"(?i:(?<!pad_)(?<!eos_)(?<!bos_)(?<!unk_)(?<!sep_)(?<!cls_)(?<!mask_)(?<!stop_)(?<!special_))$",
}
_COLOUR = r"(?:\x1b|\\{1,31}(?:u001b|x1b))\[[\d;]*m"  # IPython colours the source in its tracebacks
_GAP = rf"(?:[ \t]|{_COLOUR}|</?span[^<>\n]{{0,80}}>)*+"
_QUOTE = r"(?:\\{0,31}[\"']|&quot;|&#3[49];|&#x27;)"  # a notebook is JSON, and a text in it may itself be JSON
_HINT = (  # without a space before the sign, only types that cannot be a value ending in =
    rf":{_GAP}(?:[A-Za-z][\w.]*+(?:\[[\w., |]*+\])?(?: ?\| ?[\w.]+)*{_GAP}(?<![\w\]])"
    r"|(?:str|bytes|\w++\[[\w., |]*+\])(?==))"
)
# With any other word after it, the name describes the secret instead: token_type, password_file, max_tokens.
_TAIL = r"(?i:(?<!token)s)?(?i:[-_.]?(?:\d+|base|value|confirm(?:ation)?|old|new|prod|dev|test|staging|live))*+"
_SIGN = (
    rf"{_TAIL}(?P<close>{_QUOTE}\]?)?{_GAP}"
    rf"(?P<sign>(?:{_HINT})?=(?![=>])|==+|!=|=>|:=|:(?![:/])|,|(?<=[ \t])){_GAP}"
)
_VALUE = (
    rf"(?m)[bBfFrRuU]{{0,2}}(?P<quote>(?P<one>{_QUOTE})(?:(?P=one){{2}})?)"
    r"(?P<quoted>[^\n]{0,4000}?)(?:(?P<end>(?<!\\)(?P=quote))|$)|(?P<bare>[^\s\"'`<>,;()\[\]{}\\|&]{4,2000})(?P<next>.?)"
)
_CLOSING = r"\s*(?:[),\]};]|\.\w+\(|[+%]\s*[A-Za-z_][\w.]*\s*(?:\+|$)|(?:[+%]|if|for|or|and|in) )"
_PATH = r"(?:~|\.{1,2})?(?:/[\w.@ -]{1,32})+/?|[A-Za-z]:[\\/].*"
_CODE = (  # numbers with or without a unit, dates, paths, attributes, types, references, options
    r"[\W\d_]*|0x[\da-fA-F]+|\d[\d.,_:/]*[A-Za-z%]{1,3}|\d[\d.,_]*e[-+]?\d+|\d{4}-\d\d-\d\d\S*|[$%*@{-].*"
    r"|(?:u?int|float|complex|bytes|str|utf|sha|md|base)[-_]?\d+\w*|(?!(?:\D*\d){3})[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+"
    rf"|[a-z\d_.-]+(?:/[a-z\d_.-]+)+|{_PATH}"
)
_SHAPES = {  # prefix of a key, and the pattern of the rest
    **dict.fromkeys(("AKIA", "ASIA"), r"[A-Z0-9]{16}(?!\w)"),
    **dict.fromkeys(("sk_live_", "sk_test_", "rk_live_", "rk_test_"), r"[A-Za-z0-9]{16,255}"),
    "AIza": r"[\w-]{35}(?![\w-])",
    "xox": r"[a-z]-[\w-]{10,255}",
    "glpat-": r"[\w-]{20,255}",
    "gh": r"[pousr]_[A-Za-z0-9]{30,255}",
    "github_pat_": r"\w{30,255}",
    "hf_": r"[A-Za-z0-9]{30,255}",
    "npm_": r"[A-Za-z0-9]{36}",
    "pypi-": r"[\w-]{50,1000}",
    "eyJ": r"[\w-]{8,1000}+\.[\w-]{8,20000}+\.[\w-]*+",
    "sk-": r"(?:(?:ant|proj|svcacct|admin|or|lf)-[\w-]{20,255}|(?=[A-Za-z]{0,40}\d)[A-Za-z0-9]{20,255})",
}
_URL = r"(://[^\s:/@\"'<>]{0,200}:)(?!\d{1,5}[?#,;]|[{$*]|%[s(])([^\s/\\\"'<>]{1,300})(?=@(?!sha256:)[\w\[])"
_LOGIN = (
    r"(?i)(authorization\W{1,64}(?:bearer|basic|token|apikey)[ ]+|bearer[ ]+(?=[a-z._~+/=-]{0,200}\d))"
    r"[\w.~+/=-]{8,20000}"
)
_BREAK = r"(?:\\+[nrt]|[\s\"',+#>|\\-])"  # between the lines of a key, also in a diff or in a notebook's list of lines
_LINE = r"[A-Za-z0-9+/=]"
_PEM = (
    rf"(-----BEGIN [A-Z0-9 ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----{_BREAK}++)(?:[\w-]+: [^\n\\\"]{{1,80}}{_BREAK}++)*+"
    rf"{_LINE}{{16,}}+(?:{_BREAK}++{_LINE}{{16,}}+)*+(?:{_BREAK}++{_LINE}{{1,15}}+(?=(?:\\+[nrt]|\W)*+(?:END|\Z)))?"
)
_PEM_TAIL = (  # a key whose beginning was cut off
    rf"(?<!{_LINE}){_LINE}{{40,76}}+(?:{_BREAK}{{1,40}}+{_LINE}{{16,76}}+){{0,120}}+(?:{_BREAK}{{1,40}}+{_LINE}{{1,15}}+)?"
    rf"(?={_BREAK}{{1,40}}?-----END [A-Z0-9 ]{{0,40}}PRIVATE KEY)"
)


class Masker:
    """Replace secrets by ``[masked]`` and leave everything else unchanged.

    Parameters
    ----------
    environment : mapping
        Environment variables. The values of those with a secret's name are masked wherever they occur.
    """

    def __init__(self, environment: Mapping[str, Any]) -> None:
        self._seen: dict[str, str] = {}
        self._values: list[str] = []
        self.learn(environment)

    def learn(self, named: Mapping[str, Any]) -> None:
        """Add the current values of variables or parameters; values that were learned earlier stay masked.

        Parameters
        ----------
        named : mapping
            Value by name. Only strings are learned: those with a secret's name, and passwords in addresses.
        """
        texts = {name: value for name, value in named.items() if isinstance(value, str)}
        fresh = {name: value for name, value in texts.items() if self._seen.get(name) != value}
        self._seen |= fresh
        values = [value for name, value in fresh.items() if re.search(_NAME, name.lower()) and _is_secret(name)]
        values += [match[1] for value in fresh.values() if "://" in value for match in re.findall(_URL, value)]
        forms = {form for value in values if _is_rare(value) for form in _written(value)}
        if forms:  # longest first, as a form may be the beginning of another
            self._values = sorted(forms.union(self._values), key=len, reverse=True)

    def __len__(self) -> int:
        """Return the number of learned strings."""
        return len(self._values)

    def known(self, value: Any, names: bool = True) -> Any:
        """Return a JSON value with the learned secrets masked.

        Parameters
        ----------
        value : object
            JSON value.
        names : bool
            Whether names are masked, too; if false, only what is below keys named ``value``.
        """
        if not self._values:
            return value
        if isinstance(value, str) and names:
            return self._known(value)
        if isinstance(value, dict):
            return {key: self.known(item, names or key == "value") for key, item in value.items()}
        return [self.known(item, names) for item in value] if isinstance(value, list | tuple) else value

    def _known(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, MASK)
        return text

    def text(self, text: str) -> str:
        """Return a text with every secret masked.

        Parameters
        ----------
        text : str
            Output, source code, JSON, HTML or a diff.
        """
        text = self._known(text)
        if "PRIVATE KEY" in text:
            text = re.sub(_PEM_TAIL, MASK, re.sub(_PEM, rf"\1{MASK}", text))
        for mark, rest in _SHAPES.items():
            if mark in text:  # a letter of an escaped line end or a colour code may precede the word
                begins = rf"(?:(?<!\w{mark})|(?<=\\[nrt]{mark})|(?<=[\d\[]m{mark}))"
                text = re.sub(mark + begins + rest, MASK, text)
        text = re.sub(_URL, rf"\1{MASK}", text)
        if re.search("bearer|authorization", text.lower()):
            text = re.sub(_LOGIN, rf"\1{MASK}", text)
        return _mask_named(text)

    def value(self, name: str, value: Any) -> Any:
        """Return a parameter with its secrets masked.

        Parameters
        ----------
        name : str
            If it is a secret's name, strings are masked as a whole, except empty ones, booleans and ``none``.
        value : object
            JSON value. In other strings, and in containers, only the secrets are masked.
        """
        if isinstance(value, str):
            plain = value.lower() in _PLAIN  # all values in MLflow are strings
            return MASK if _is_secret(name) and not plain else self.text(value)
        if isinstance(value, dict):
            return {key: self.value(key if _is_secret(str(key)) else name, item) for key, item in value.items()}
        return [self.value(name, item) for item in value] if isinstance(value, list) else value

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body of a request to MLflow with the secrets in its parameters and tags masked.

        Parameters
        ----------
        body : dict
            JSON body, as the REST API expects it.
        """
        masked = {key: self._pairs(value) if key in {"params", "tags"} else value for key, value in body.items()}
        return self._pair(masked)

    def _pairs(self, pairs: Any) -> Any:
        return [self._pair(pair) for pair in pairs] if isinstance(pairs, list) else pairs

    def _pair(self, pair: Any) -> Any:
        if isinstance(pair, dict) and isinstance(pair.get("key"), str) and isinstance(pair.get("value"), str):
            return pair | {"value": self.value(pair["key"], pair["value"])}
        return pair

    def json(self, value: Any) -> Any:
        """Return a notebook, or a part of one, with its secrets masked; images are never changed.

        Parameters
        ----------
        value : object
            JSON value.
        """
        if isinstance(value, dict):
            return {key: item if key in _BINARY else self._member(str(key), item) for key, item in value.items()}
        if isinstance(value, list):
            if all(isinstance(item, str) for item in value) and all(item.endswith("\n") for item in value[:-1]):
                whole = "".join(value)  # a text stored as a list of lines: a private key spans several
                masked = self.text(whole)
                return value if masked == whole else masked.splitlines(keepends=True)
            return [self.json(item) for item in value]
        return self.text(value) if isinstance(value, str) else value

    def _member(self, name: str, value: Any) -> Any:
        return self.value(name, value) if _is_secret(name) else self.json(value)


def _is_secret(name: str) -> bool:
    return any(sign.end() == len(name) + 1 for _, sign in _heads(f"{name}="))


def _is_rare(value: str) -> bool:
    """Return whether a variable's value is distinctive enough to be masked everywhere.

    Masking a path or an ordinary word everywhere would mutilate other text.
    """
    return len(value) >= 8 and not re.fullmatch(rf"{_PATH}|[A-Za-z][a-z]{{0,14}}|[A-Z]{{0,15}}", value)


def _written(value: str) -> set[str]:
    """Return the forms that a value takes in text, source code, JSON, HTML and addresses."""
    import html  # imported here, as few environments contain a secret
    from urllib.parse import quote, unquote

    quoted = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    return {value, *quoted, html.escape(value), quote(value, safe=""), unquote(value)}


def _heads(text: str) -> Iterator[tuple[re.Match[str], re.Match[str]]]:
    """Yield each secret's name (matched in lower case) that is followed by a sign which introduces its value."""
    sign_at = re.compile(_SIGN).match
    for name in re.finditer(_NAME, text.replace("İ", "I").lower()):  # the only letter that becomes two in lower case
        if sign := sign_at(text, name.end()):
            needed = _BEFORE.get(text[name.start() : name.end()]) or _BEFORE.get(name[0], "")
            if re.search(needed, text[max(0, name.start() - 16) : name.start()]):
                yield name, sign


def _mask_named(text: str) -> str:
    parts, done, value_at = [], 0, re.compile(_VALUE).match
    for name, sign in _heads(text):
        value = value_at(text, sign.end()) if name.start() >= done else None
        if value and (word := _given(text, name, sign, value)):
            begin = value.start("bare" if value["bare"] else "quoted")
            parts += [text[done:begin], MASK]
            done = begin + len(word)
    return "".join(parts) + text[done:]


def _given(text: str, name: re.Match[str], sign: re.Match[str], value: re.Match[str]) -> str:
    """Return the value that follows a secret's name; an empty string if code or prose follows instead."""
    kind, before, quoted = sign["sign"], text[max(0, name.start() - 48) : name.start()], value["end"] is not None
    option = bool(re.search(r"(?:--|%(?:set_)?env )[\w.-]*$", before))  # on a command line
    argument = bool(sign["close"] and quoted) and (option or bool(re.search(r"\(\s*[\\\"']+[\w.-]*$", before)))
    if (not kind and not option) or (kind == "," and not argument):
        return ""
    word = value["quoted"] if quoted else (value["bare"] or re.split(r"[\s\"'\\<]", value["quoted"])[0]).rstrip(".:")
    plain = re.sub(_COLOUR, "", word[:120])  # enough to judge by, and fast on a line with thousands of names
    if quoted and kind != ",":
        parsing = name[0] == "token" and kind in _COMPARED  # a tokenizer's comparison, not a secret
        called = plain.lower().endswith(f".{name[0]}")  # TOKEN = "app.token" is a name, not a value
        variable = re.fullmatch(r"[A-Z][A-Z\d]*(?:_[A-Z\d]+)+", plain) and _is_secret(plain)  # "DB_PASSWORD"
        closing = re.match(_CLOSING, plain)  # the quote closes a prompt instead of opening a value
        return "" if len(plain) < 4 or parsing or called or variable or closing else word
    follows = value["next"] or ""
    if kind in _COMPARED or follows in {"(", "["} or re.search(r"\s", plain) or re.fullmatch(_CODE, plain):
        return ""
    tight = kind == "=" and not re.search(r"[ \t]=", sign[0]) and follows not in {",", ")"}  # no keyword argument
    if tight and (text[name.start() : name.end()].isupper() or (option and not plain.isupper())):
        return "" if plain.lower() in _PLAIN else word  # a shell variable or a command-line option
    if len(word) < 6 or not re.search(r"\d|.[!@$#](?!=)", plain):  # could be the name of a variable
        return ""
    variable = len(plain) < 40 and _is_secret(plain) and not re.search(r"\d[A-Za-z]", plain)  # db_password, token2
    loose = kind in {":", "=>", "", ","} or value["quote"] or (tight and not variable)
    return word if loose or _is_random(plain) else ""


def _is_random(word: str) -> bool:
    """Return whether a word looks random, that is, neither like a variable's name (``token2``) nor like a number."""
    mixed = len(word) >= 20 and all(re.search(kind, word) for kind in (r"\d", "[a-z]", "[A-Z]"))
    return mixed or (len(word) >= 8 and (len(re.findall(r"\d+", word)) >= 2 or bool(re.search(r"\w[!@$#](?!=)", word))))

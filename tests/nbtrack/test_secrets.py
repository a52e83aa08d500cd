"""What is masked on its way to the server, and what must not be.

In the tables, § represents the secret: no text has the complete shape of one, as a scanner of sources would complain.
"""

import base64
import html
import json
import random
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.ultratb import VerboseTB

from nbtrack.secrets import MASK, Masker

ROOT = Path(__file__).parents[2]
MIXED = "a1B2" * 30
JWT = ".".join(["eyJ" + "hbGciOiJIUzI1NiJ9", "eyJ" + "zdWIiOiIxIn0", "c2lnbmF0dXJl-_"])
AWS = "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"
BEGIN, END = ("-----" + word + " RSA PRIVATE " + "KEY-----" for word in ("BEGIN", "END"))
LINES = [base64.b64encode(random.Random(seed).randbytes(48)).decode() for seed in range(5)] + ["Zm9vYmFyCg=="]

SHAPES = [
    "AKIA" + "Q7ZX" * 4,
    "ASIA" + "Q7ZX" * 4,
    *(f"gh{kind}_" + MIXED[:36] for kind in "posur"),
    "github_pat_" + MIXED[:22] + "_" + MIXED[:59],
    "glpat-" + MIXED[:20],
    *(f"xox{kind}-" + "12345678-" + MIXED[:24] for kind in "abp"),
    "AIza" + MIXED[:35],
    "sk-" + MIXED[:48],
    "sk-proj-" + MIXED[:40] + "-_" + MIXED[:20],
    "sk-ant-" + "api03-" + MIXED[:80],
    "hf_" + MIXED[:34],
    "npm_" + MIXED[:36],
    "pypi-" + "AgEIcHlwaS5vcmc" + MIXED[:100],
    "sk_" + "live_" + MIXED[:24],
    "rk_" + "live_" + MIXED[:24],
    JWT,
]
PLACES = [
    "§",
    "key §\n",
    "'§'",
    "+§",
    "-§",
    "x=§&y=1",
    "<td>§</td>",
    "\x1b[33m§\x1b[39m",
    r'"text": "one\n§\ntwo"',
    "[§, 1]",
    "https://host/§/x",
    "f(§)",
    r"\"§\"",
    "$ §;",
]

NAMED = [  # text with §, the secret
    ('password = "§"', "swordfish"),
    ("password='§', user='u'", "it is"),
    ("'api_key': '§'", "xyzzy"),
    ('{"access_token": "§", "n": 1}', "swordfish"),
    ("token: §", "abc123def456"),
    ("token: §\n", "hunter2"),
    ("secret: §, next: 1", "9f8e7d6c5b4a"),
    ("mysql --password § -h x", "hunter2"),
    ("mysql --password=§ -h x", "swordfish"),
    ('["curl", "--token", "§"]', "abc12345"),
    ("PGPASSWORD=§ psql", "swordfish"),
    ("export DB_PASSWORD=§\n", "swordfish"),
    ("%env API_TOKEN §", "abcd1234"),
    ("aws_secret_access_key=§", AWS),
    ("aws_secret_access_key = §\n", AWS),
    ("host=h user=u password=§ dbname=d", "hunter2"),
    ("password=§\n", "hunter2secret"),
    ("Server=h;Pwd=§;Database=x", "hunter2"),
    ("DefaultEndpointsProtocol=https;AccountKey=§;End=1", MIXED[:40] + "=="),
    ("http://127.0.0.1:8888/lab?token=§&x=1", "0123456789abcdef" * 3),
    ("X-Api-Key: §", "abcd1234"),
    ("password = §", "P@ssw0rd!"),
    ('os.environ["OPENAI_API_KEY"] = "§"', "swordfish"),
    ("os.environ.setdefault('DB_PASSWORD', '§')", "hunter2"),
    ('password: str = "§"', "swordfish"),
    ('def f(x, token: str | None = "§", y=1): ...', "swordfish"),
    ('def f(x, token: Optional[str]="§"): ...', "hunter22"),
    ("Config(user='u', clientSecret='§', n=3)", "swordfish"),
    (r"password = '§'", r"it\'s me"),
    ('password = """§"""', "swordfish"),
    ('password = "§', "hunter22"),
    ("token = b'§'", "swordfish"),
    ('if password == "§":', "swordfish"),
    ("dbPassword => '§'", "swordfish"),
    ('db_pass = "§"', "swordfish"),
    ('token_2: "§"', "swordfish"),
    ('password = "§"', "token: 'swordfish'"),
    ("passphrase: '§'", "correct horse battery"),
    ('+    "private_key": "§",', "swordfish"),
    ('-credentials = "§"', "swordfish"),
    (r'{"source": ["password = \"§\"\n", "x = 1"]}', "swordfish"),
    (r'{"source": "x = 1\npassword = \"§\"\ny = 2\n"}', "swordfish"),
    (r'{"source": "x = 1\ntoken: §\ny = 2\n"}', "abc123def456"),
    (r'{"text": "{\"password\": \"§\"}"}', "swordfish"),
    (r'{"text": "{\\\"password\\\": \\\"§\\\"}"}', "swordfish"),
    ("<pre>&quot;password&quot;: &quot;§&quot;</pre>", "swordfish"),
    ('<span class="n">token</span> <span class="o">=</span> <span class="s">&#39;§&#39;</span>', "swordfish"),
    ("password\x1b[38;5;241m=\x1b[39m\x1b[38;5;124m'§'\x1b[39m", "swordfish"),
    ("Authorization: Bearer §", "abcdefghijkl"),
    ("-H 'authorization: Basic §'", "dXNlcjpwYXNz"),
    ('{"Authorization": "Bearer §"}', MIXED),
    (r'{"x": "\"Authorization\": \"Basic §\""}', "dXNlcjpwYXNz"),
    ('f(auth="Bearer §")', MIXED[:20]),
    ("postgresql://u:§@h:5432/db", "hunter2"),
    ("engine('mysql+pymysql://u:§@h/db')", "p@ss%21word"),
    ("redis://:§@h", "swordfish"),
    ("https://oauth2:§@gitlab.com/x.git", "swordfish"),
    ("İstanbul İİ password = '§'", "swordfish"),
]

UNTOUCHED = [
    "token = tokenizer(text)",
    "tokens = 1024",
    "n_tokens: 512",
    "max_tokens=4096",
    "password = getpass()",
    'password = getpass("Password: ")',
    'user, password = input("User: "), getpass("Password: "), input("Code: ")',
    "secret = None",
    "secret=x",
    "token_type = 'bearer'",
    "token_limit: 'high'",
    "tokens: ['alpha', 'beta']",
    "password: str",
    "def f(password: str, token: Token | None = None, api_key: Optional[str] = None): ...",
    "   token  count\n0  class     12\n1  x1y2z3    7\n",
    "token = os.environ['API_TOKEN']",
    "token = iterator.next2",
    "connect(password=password, token=token2)",
    "password = self.password1",
    "api_key = config.api_key",
    'print("token:", token, "user:", user)',
    'url + "?token=" + token + "&x=1"',
    'f"token: {token1}"',
    '"token=%s" % x1',
    "password_file: /run/secrets/db1",
    "secret: /run/secrets/db1",
    "token: 3.0.2",
    "token: 2024-01-01T12:30:00Z",
    "token: 12345678",
    "token: 0x7f3a9c11",
    "token: 12.5ms",
    "token: int64",
    'if token == "class": pass',
    "children[token] = 'RUNNING'",
    'TOKEN = "app.token"',
    'PASSWORD = "MLFLOW_TRACKING_PASSWORD"',
    "{'password': 'DB_PASSWORD'}",
    'pad_token="[PAD]"',
    "eos_token: '<|end|>'",
    "asttokens==3.0.2",
    'password = ""',
    'password: "abc"',
    "PASSWORD=None",
    "TOKEN=$OTHER1",
    "TOKEN=$(cat token1)",
    "token: ${{ secrets.GITHUB_TOKEN1 }}",
    "primary_key = 'alpha'",
    "key = 'alpha'",
    "bypass = 'alpha'",
    "compass: 'north'",
    'columns=["password", "token", "feature1"]',
    "--password TEXT  The password",
    "--token TOKEN  The token",
    "PWD=/srv/app/main2",
    "'PWD': '/srv/app/main2'",
    "# the password: never print it",
    "secretary: 'alpha'",
    '<input type="password" name="password" value="x1">',
    "headers = {'Authorization': f'Bearer {token}'}",
    '"Authorization": "Basic " + base64.b64encode(pair)',
    "a bearer of news",
    "http://localhost:5000/x@y",
    "http://host:8080,me@x.org",
    "https://127.0.0.1:5000/#/experiments/1",
    "postgresql://{user}:{password}@{host}/db",
    "git@github.com:org/repo.git",
    "docker://python:3.11@sha256:0123",
    "postgresql://u:{password}@h/db",
    "postgresql://u:$PASSWORD@h",
    "'postgresql://u:%s@h' % password",
    "token: load_v2(path)",
    "connect(password=words_v2, n=1)",
    "connect(\n    password=token2\n)",
    "token abc123def456 is",
    "Bearer authentication",
    "9772acd4c1b6d5a3f1e0c2b7a8d9e6f5a4b3c2d1",
    "sha256:" + "0123456789abcdef" * 4,
    "--hash=sha256:" + "0123456789abcdef" * 4,
    "123e4567-e89b-12d3-a456-426614174000",
    "run_id: 0123456789abcdef0123456789abcdef",
    "/home/me/.cache/hf_hub/models--x/sk-learn/ghp_/x.py",
    "0.123456789 1e-05",
    "risk-adjusted-return-0123456789abcdef0123",
    "task-sk-learn-contrib",
    "hf_model_name_of_some_length_without_end = 1",
    "AKIA",
    "-----BEGIN PUBLIC KEY-----\n" + "\n".join(LINES) + "\n-----END PUBLIC KEY-----",
    f"if line == '{BEGIN}':",
    '<img src="data:image/png;base64,' + base64.b64encode(random.Random(1).randbytes(30_000)).decode() + '">',
    base64.encodebytes(random.Random(2).randbytes(30_000)).decode(),
]

PEM = [  # what is left of the key, before and after
    "\n".join([BEGIN, *LINES, END, ""]),
    "\n".join([BEGIN, "Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,00FF", "", *LINES, END]),
    "\n".join([BEGIN, *LINES]),
    "\n".join([BEGIN, *LINES[:3], LINES[3][:9]]),
    "\n".join([BEGIN, *LINES[:3], "", "and then some words"]),
    "\n".join([*LINES, END]),
    "\n".join([LINES[0], END]),
    "\n".join(f"+{line}" for line in [BEGIN, *LINES, END]),
    json.dumps({"text": "\n".join(["key:", BEGIN, *LINES, END, "x = 1"])}),
    json.dumps({"text": json.dumps("\n".join([BEGIN, *LINES, END, "x = 1"]))}),
    json.dumps({"source": [line + "\n" for line in [BEGIN, *LINES, END]]}, indent=1),
    json.dumps({"text": "\n".join([*LINES, END, "x = 1"])}),
    "".join(f'    "{line}\\n"\n' for line in [BEGIN, *LINES, END]),
]

ENVIRONMENT = {
    "GITHUB_TOKEN": "plain words, q\"uoted' & <odd>",
    "DATABASE_URL": "postgresql://u:hunter2pass@h/db",
    "AWS_SECRET_ACCESS_KEY": AWS,
    "MLFLOW_TRACKING_PASSWORD": 'tränen"reich-7',
    "DB_PASSWORD_FILE": "/run/files/db-pass",
    "MY_SECRET": "/run/secrets/my-secret",
    "TOKENIZERS_PARALLELISM": "harmless-value",
    "USE_TOKEN": "disabled",
    "POSTGRES_PASSWORD": "pokebattle",
    "SHORT_SECRET": "abc1234",
    "HOME": "/home/someone",
    "OLDPWD": "/some/where/else",
    "KEYBOARD": "qwertz-layout",
    "MAX_TOKENS": "4096409640",
}


@pytest.fixture(scope="module")
def masker() -> Masker:
    return Masker({})


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("secret", SHAPES)
def test_shapes_are_masked_wherever_they_stand(masker, secret, place):
    assert masker.text(place.replace("§", secret)) == place.replace("§", MASK)


@pytest.mark.parametrize(("text", "secret"), NAMED)
def test_values_are_masked_by_their_name_and_nothing_else_changes(masker, text, secret):
    assert masker.text(text.replace("§", secret)) == text.replace("§", MASK)


@pytest.mark.parametrize(("text", "secret"), NAMED)
def test_escaped_as_json_the_same_is_masked(masker, text, secret):
    for level in (json.dumps, lambda text: json.dumps({"source": [json.dumps({"x": f"y = 1\n{text}\n"})]})):
        assert masker.text(level(text.replace("§", secret))) == level(text.replace("§", MASK))


@pytest.mark.parametrize("text", UNTOUCHED)
def test_code_numbers_and_digests_stay(masker, text):
    assert masker.text(text) == text
    assert masker.text(json.dumps(text)) == json.dumps(text)


@pytest.mark.parametrize("text", PEM)
def test_private_keys_are_masked_even_when_cut_off(masker, text):
    masked = masker.text(text)
    assert masked.count(MASK) == 1
    assert [line for line in [*LINES, LINES[3][:9]] if line in masked] == []
    around = (BEGIN, END, "x = 1", "key:", "and then some words")
    assert [part for part in around if part in masked] == [part for part in around if part in text]
    if text.startswith("{"):
        json.loads(masked)


@pytest.mark.parametrize("text", [*(text.replace("§", s) for text, s in NAMED), *SHAPES, *PEM])
def test_masking_twice_is_masking_once(masker, text):
    once = masker.text(text)
    assert masker.text(once) == once != text


def test_values_of_secret_variables_are_masked_in_every_notation():
    masker = Masker(ENVIRONMENT)
    odd, umlaut = ENVIRONMENT["GITHUB_TOKEN"], ENVIRONMENT["MLFLOW_TRACKING_PASSWORD"]
    assert masker.text(json.dumps({"x": odd})) == json.dumps({"x": MASK})
    for text in (odd, repr(odd), html.escape(odd), urllib.parse.quote(odd, safe="")):
        assert masker.text(text).strip("'\"") == MASK
    assert masker.text(f"<{umlaut}|{umlaut}>") == f"<{MASK}|{MASK}>"
    assert masker.text(json.dumps([umlaut])) == f'["{MASK}"]'
    assert masker.text(json.dumps([umlaut], ensure_ascii=False)) == f'["{MASK}"]'
    assert Masker({"A_TOKEN": "abcdefg-1", "B_TOKEN": "abcdefg-12"}).text("abcdefg-12 abcdefg-1") == f"{MASK} {MASK}"
    assert masker.text(f"it printed hunter2pass and {AWS}") == f"it printed {MASK} and {MASK}"


@pytest.mark.parametrize(
    "name",
    [
        "DB_PASSWORD_FILE",
        "MY_SECRET",
        "TOKENIZERS_PARALLELISM",
        "USE_TOKEN",
        "POSTGRES_PASSWORD",
        "SHORT_SECRET",
        "HOME",
        "OLDPWD",
        "KEYBOARD",
        "MAX_TOKENS",
    ],
)
def test_words_paths_and_ordinary_variables_are_not_looked_for(name):
    assert Masker(ENVIRONMENT).text(f"say {ENVIRONMENT[name]} aloud") == f"say {ENVIRONMENT[name]} aloud"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("db_password", "x", MASK),
        ("apiKey", "swordfish", MASK),
        ("password", "", ""),
        ("password", None, None),
        ("max_tokens", 4096, 4096),
        ("max_tokens", "4096", "4096"),
        ("token", 7, 7),
        ("use_token", True, True),
        ("use_token", "True", "True"),
        ("token_limit", "high", "high"),
        ("pad_token", "<pad>", "<pad>"),
        ("version", "v1", "v1"),
        ("url", "http://u:swordfish@h", f"http://u:{MASK}@h"),
        ("options", "--token abc123def", f"--token {MASK}"),
        ("db", {"user": "u", "password": "x", "port": 1}, {"user": "u", "password": MASK, "port": 1}),
        ("passwords", ["x", "y", 3], [MASK, MASK, 3]),
        ("credentials", {"user": "u"}, {"user": MASK}),
        ("tokens", ["a"], ["a"]),
        ("rows", [{"secret": "x"}, ["token: abc123def"]], [{"secret": MASK}, [f"token: {MASK}"]]),
        ("ratio", 0.5, 0.5),
        ("shape", (1, 2), (1, 2)),
        ("data", b"password='swordfish'", b"password='swordfish'"),
    ],
)
def test_parameters(masker, name: str, value: Any, expected: Any):
    assert masker.value(name, value) == expected


def test_a_notebook_stays_a_notebook(masker):
    image = "hf_" + MIXED[:34]  # such a thing in an image means nothing
    source = ["pem = '''\n", *(f"{line}\n" for line in [BEGIN, *LINES, END]), "'''\n", "depth = 3"]
    output = {
        "output_type": "display_data",
        "metadata": {},
        "data": {
            "image/png": image,
            "image/jpeg": image,
            "image/gif": image,
            "application/pdf": image,
            "text/plain": [image],
        },
    }
    stream = {"output_type": "stream", "name": "stdout", "text": ["one\n", "password: 'swordfish'\n", "two"]}
    code = {
        "cell_type": "code",
        "id": "a",
        "metadata": {"tags": ["parameters", "x"]},
        "execution_count": 1,
        "source": source,
        "outputs": [output, stream],
    }
    notebook = {
        "cells": [code],
        "metadata": {"papermill": {"parameters": {"db_password": "x", "n": 3}}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    before = json.dumps(notebook)
    masked = masker.json(notebook)
    assert json.dumps(notebook) == before
    cell = masked["cells"][0]
    assert cell["source"] == ["pem = '''\n", f"{BEGIN}\n", f"{MASK}\n", f"{END}\n", "'''\n", "depth = 3"]
    images = dict.fromkeys(("image/png", "image/jpeg", "image/gif", "application/pdf"), image)
    assert cell["outputs"][0]["data"] == {**images, "text/plain": [MASK]}
    assert cell["outputs"][1]["text"] == ["one\n", f"password: '{MASK}'\n", "two"]
    assert cell["metadata"] == {"tags": ["parameters", "x"]}
    assert masked["metadata"]["papermill"]["parameters"] == {"db_password": MASK, "n": 3}
    assert masker.json(masked) == masked
    nbformat.validate(nbformat.from_dict(masked))


def test_a_coloured_traceback_shows_no_password(masker, tmp_path):
    script = tmp_path / "failing.py"
    script.write_text("def f():\n    password = 'swordfish'\n    return 1 / 0\n")
    space: dict[str, Any] = {}
    exec(compile(script.read_text(), str(script), "exec"), space)
    try:
        space["f"]()
    except ZeroDivisionError:
        shown = VerboseTB(theme_name="linux", include_vars=True).text(*sys.exc_info())
    assert "swordfish" in shown and "\x1b[" in shown
    assert "swordfish" not in masker.text(shown)
    assert "swordfish" not in masker.text(json.dumps(shown))


@pytest.mark.parametrize(
    "line",
    [
        "a" * 1_000_000,
        "=" * 1_000_000,
        "eyJ" * 333_333,
        base64.b64encode(random.Random(3).randbytes(750_000)).decode(),
        "token: " + "a." * 500_000,
        BEGIN + "+" * 1_000_000,
        BEGIN * 30_000,
        "://a:" * 200_000,
        "bearer " + "a" * 1_000_000,
        base64.encodebytes(random.Random(4).randbytes(750_000)).decode() + END,
        "token" + " " * 1_000_000,
        'token="' * 20_000,
    ],
    ids=lambda line: line[:12].strip(),
)
def test_a_very_long_text_is_no_trap(masker, line):
    """Four times the text may take four times as long, by no means sixteen times."""
    before = None
    for size in (len(line) // 64, len(line) // 16, len(line) // 4, len(line)):
        began = time.process_time()
        assert isinstance(masker.text(line[: size // 2] + line[-(size // 2) :]), str)
        seconds = time.process_time() - began
        assert before is None or seconds < 8 * before + 0.1, f"{size} characters"
        before = seconds


def test_this_project_loses_nothing(masker):
    kinds = ["*.py", "*.md", "*.yaml", "*.toml", "requirements.lock", "*.ipynb"]
    listed = subprocess.run(["git", "ls-files", "-z", *kinds], cwd=ROOT, capture_output=True, text=True, check=True)
    exempt = {"", "nbtrack/secrets.py", "tests/nbtrack/test_secrets.py"}
    files = {name: ROOT / name for name in listed.stdout.split("\0") if name not in exempt}
    texts = {name: file.read_text("utf-8") for name, file in files.items() if file.is_file()}
    assert len(texts) > 50
    assert [name for name, text in texts.items() if masker.text(text) != text] == []
    notebooks = {name: json.loads(text) for name, text in texts.items() if name.endswith(".ipynb")}
    assert [name for name, notebook in notebooks.items() if masker.json(notebook) != notebook] == []


def test_it_needs_only_the_standard_library():
    code = "import sys; sys.path.insert(0, sys.argv[1]); from nbtrack import secrets; secrets.Masker({})"
    subprocess.run([sys.executable, "-I", "-S", "-c", code, str(ROOT)], check=True)


def test_secrets_of_the_kernel_and_of_its_parameters_are_masked_when_another_process_delivers(
    tracked: Any, make_notebook: Any
) -> None:
    """The shell that delivers knows none of them: what the kernel knows never gets into its journal."""
    late = "import os\nos.environ['LATE_SECRET'] = '-'.join(['later', str(6 * 7), 'said'])"
    shown = "print(os.environ['SERVICE_TOKEN'], os.environ['LATE_SECRET'], api_token)"
    fails = "raise ValueError(os.environ['SERVICE_TOKEN'] + api_token)"
    path = tracked.write("told.ipynb", make_notebook(late, shown, fails, parameters="api_token = db_password = ''"))
    service, token, password = "pelican-in-7-ponds", "otter-in-9-rivers", "swordfish"
    done = tracked.papermill(
        path,
        "-p",
        "api_token",
        token,
        "-p",
        "db_password",
        password,
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
        SERVICE_TOKEN=service,
    )
    assert done.returncode == 1
    (folder,) = tracked.executions()
    unknown = [service, "later-42-said", token]
    waits = "".join(file.read_text() for file in folder.rglob("*") if file.is_file())
    assert [secret for secret in unknown if secret in waits] == []
    journal = folder / "journal.jsonl"
    journal.write_text(journal.read_text().replace("http://127.0.0.1:9", tracked.uri))
    assert tracked.execute("python", "-m", "pokebattle", "sync").returncode == 0
    (run,) = tracked.runs("told")
    artifacts = tracked.download(run_id=run.info.run_id, artifact_path="")
    stored = "".join(file.read_text() for file in artifacts.rglob("*") if file.is_file())
    stored += json.dumps([run.data.params, run.data.tags])
    assert [secret for secret in [*unknown, password] if secret in stored] == []
    assert run.data.params == {"api_token": MASK, "db_password": MASK}
    executed = tracked.artifact(run, "told.ipynb")
    assert executed["metadata"]["papermill"]["parameters"] == {"api_token": MASK, "db_password": MASK}
    assert executed["cells"][3]["outputs"][0]["text"] == f"{MASK} {MASK} {MASK}\n"
    assert run.data.tags["pokebattle.error"] == f"ValueError: {MASK}{MASK}"


def test_what_is_known_goes_from_values_and_not_from_names():
    masker = Masker({"A_TOKEN": "battle_winner"})
    masker.learn({"A_TOKEN": "gone", "db_password": "otter-9"})
    call = {"run_id": "battle_winner", "tags": [{"key": "battle_winner", "value": "a battle_winner"}]}
    assert masker.known(call, names=False) == call | {"tags": [{"key": "battle_winner", "value": f"a {MASK}"}]}
    assert masker.known(["battle_winner", 3]) == [MASK, 3]
    assert masker.text("otter-9") == "otter-9"  # too short to be looked for


def test_a_secret_that_a_cell_brings_up_is_masked_in_that_cell_too(tracked: Any, make_notebook: Any) -> None:
    cells = (
        "import os\nbird = 'heron-in-4-lakes'\nos.environ['BIRD_TOKEN'] = bird\nprint('said', bird)",
        "os.environ['BIRD_TOKEN'] = 'stork-on-2-roofs'; note = 'it is stork-on-2-roofs'",
        "raise ValueError('heron-in-4-lakes')",
    )
    assert tracked.papermill(tracked.write("bird.ipynb", make_notebook(*cells))).returncode == 1
    (run,) = tracked.runs("bird")
    artifacts = tracked.download(run_id=run.info.run_id, artifact_path="")
    stored = json.dumps(dict(run.data.tags)) + "".join(f.read_text() for f in artifacts.rglob("*") if f.is_file())
    assert "heron-in" not in stored and "stork-on" not in stored
    executed = tracked.artifact(run, "bird.ipynb")["cells"]
    assert executed[0]["source"] == cells[0].replace("heron-in-4-lakes", MASK) and len(executed) == 3

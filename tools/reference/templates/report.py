"""The table of templates and conversations, and the differences by cause."""

import collections
import dataclasses


@dataclasses.dataclass
class Finding:
    """What a prompt is beside transformers'."""
    status: str
    cause: str = ""
    reference: str = ""
    found: str = ""
    why: str = ""


# Letters of the table.
SIGNS = {
    "identical": "=", "form": "f", "both refuse": "r", "ours alone": "o", "template leaves out": "l", "refused": "x", "difference": "d",
    "FAULT": "F",
}


def excerpt(reference, found):
    """Where two texts part."""
    if reference is None or found is None:
        return f"{reference!r:.200}\n    ours {found!r:.200}"
    place = next((index for index, pair in enumerate(zip(reference, found)) if pair[0] != pair[1]), min(len(reference), len(found)))
    begin = max(0, place - 60)
    return f"{reference[begin:place + 100]!r}\n    ours {found[begin:place + 100]!r}"


def write(path, kinds, findings, tools):
    """Writes the report; returns how many prompts have each status."""
    names = list(dict.fromkeys(name for name, _ in findings))
    counts = collections.Counter(finding.status for finding in findings.values())
    lines = [f"{len(names)} templates, {len(kinds)} conversations", ""]
    lines += [f"- {SIGNS[status]} {status}: {counts[status]}" for status in SIGNS]
    lines += ["", "| template | " + " | ".join(kinds) + " | calls known |", "|---" * (len(kinds) + 2) + "|"]
    for name in names:
        row = " | ".join(SIGNS[findings[name, kind].status] for kind in kinds)
        lines.append(f"| {name} | {row} | {'yes' if 'tools' in tools[name] else 'no'} |")
    for status in list(SIGNS)[1:]:
        causes = collections.defaultdict(list)
        for (name, kind), finding in findings.items():
            if finding.status == status:
                causes[finding.cause, finding.why].append((name, kind, finding))
        if causes:
            lines += ["", f"## {status}"]
        for (cause, why), cases in sorted(causes.items(), key=lambda item: -len(item[1])):
            lines.append(f"- {len(cases)} × {cause}" + (f" ({why})" if why else ""))
            lines += [f"    {name}, {kind}" for name, kind, _ in cases[:6]]
            finding = cases[0][2]
            if finding.reference or finding.found:
                lines.append("    theirs " + excerpt(finding.reference, finding.found))
    path.write_text("\n".join(lines) + "\n")
    return counts

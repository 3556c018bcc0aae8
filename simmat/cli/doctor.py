"""`simmat doctor`: what is installed here, what is wrong with it and what to do."""

from __future__ import annotations

import click

from simmat.cli.common import json_option, print_json, print_table
from simmat.terminal import say


@click.command()
@json_option
def command(as_json: bool) -> int:
    """Show versions, devices, threads, memory, plugins, weights, folders and extras, and their problems.

    A problem is something that does not work; a warning is something that works slowly or partly. The exit code is 1 if
    there is a problem, otherwise 0. Changes nothing and uses no network.
    """
    from simmat.doctor import examine

    sections = list(examine())
    findings = [(section.name, finding) for section in sections for finding in section.findings]
    problems = sum(finding.severity == "problem" for _, finding in findings)
    if as_json:
        print_json(
            {
                "ok": not problems,
                "sections": {section.name: dict(section.facts) for section in sections},
                "findings": [
                    {"severity": f.severity, "section": name, "what": f.what, "remedy": f.remedy}
                    for name, f in findings
                ],
            }
        )
        return int(bool(problems))
    rows = [("" if index else s.name, *fact) for s in sections for index, fact in enumerate(s.facts)]
    print_table(("", "WHAT", "FOUND"), rows)
    for name, finding in findings:
        say(f"\n{finding.severity}: {name}: {finding.what}\n  {finding.remedy}")
    warnings = len(findings) - problems
    say(f"\n{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    return int(bool(problems))

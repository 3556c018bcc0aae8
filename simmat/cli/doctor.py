"""`simmat doctor`: what is installed here, what is wrong with it and what to do."""

from __future__ import annotations

import click

from simmat.cli.common import json_option, print_json, print_table
from simmat.terminal import say


@click.command()
@json_option
def command(as_json: bool) -> int:
    """Show versions, devices, threads, memory, plugins, weights and folders, and their problems.

    A problem is something that does not work; a warning is something that works slowly or partly. The exit code is 1 if
    there is a problem, otherwise 0. Changes nothing and uses no network.
    """
    from simmat.doctor import examine

    sections = list(examine())
    findings = [(section.name, finding) for section in sections for finding in section.findings]
    problems = sum(severity == "problem" for _, (severity, _, _) in findings)
    if as_json:
        print_json(
            {
                "ok": not problems,
                "sections": {section.name: dict(section.facts) for section in sections},
                "findings": [
                    {"severity": severity, "section": name, "what": what, "remedy": remedy}
                    for name, (severity, what, remedy) in findings
                ],
            }
        )
        return int(bool(problems))
    rows = [("" if index else s.name, *fact) for s in sections for index, fact in enumerate(s.facts)]
    print_table(("", "WHAT", "FOUND"), rows)
    for name, (severity, what, remedy) in findings:
        say(f"\n{severity}: {name}: {what}\n  {remedy}")
    warnings = len(findings) - problems
    say(f"\n{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    return int(bool(problems))

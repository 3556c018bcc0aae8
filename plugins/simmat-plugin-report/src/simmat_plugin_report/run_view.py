"""The content of the page of a run: settings, log, bundle and report, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simmat.bundle import BundleSpec, read_bundle_spec
from simmat.config import TrainConfig, load_config
from simmat.errors import BundleError, ConfigError
from simmat.training import RunFolder
from simmat_plugin_report.documents import Analysis, RunReport, read_report


@dataclass(frozen=True)
class RunView:
    """The content of the page of a run.

    Attributes:
        name: name of the run's folder.
        bundle: folder of its bundle.
        config: its settings.
        spec: spec of its bundle.
        records: its log.
        report: results of training; None if there are none.
        analyses: the analyses to show, one for each data set.
        running: True if the training is still running.
    """

    name: str
    bundle: Path
    config: TrainConfig
    spec: BundleSpec
    records: Sequence[Mapping[str, Any]]
    report: RunReport | None
    analyses: Sequence[Analysis]
    running: bool = False

    @property
    def made_of(self) -> str:
        """Transfer layer, tuner and foundation model as text."""
        return f"{self.spec.mat} and {self.spec.tune} on {self.spec.foundation}"

    @property
    def step(self) -> Any:
        """The step whose bundle was kept."""
        return self.spec.metrics.get("step", "?")

    @property
    def steps_done(self) -> int:
        """The last step in the log; all steps without a log."""
        if not self.records:
            return self.report.steps if self.report is not None else 0
        return max(int(record["step"]) for record in self.records)

    @property
    def trained(self) -> Analysis | None:
        """The analysis of this bundle on the validation split by training; None if there is none."""
        return self.report.analysis if self.report is not None and is_of(self.report, self.spec) else None

    @property
    def is_complete(self) -> bool:
        """True if it has pictures, and for several channels their importance."""
        found = self.analyses[0] if self.analyses else None
        return found is not None and bool(found.examples) and (bool(found.ablations) or len(self.spec.channels) < 2)

    def is_own(self, found: Analysis) -> bool:
        """Return whether an analysis is on the images that selected the bundle."""
        return found.split == "val" and found.data == str(self.config.data)


def is_of(report: RunReport, spec: BundleSpec) -> bool:
    """Return whether a report has the scores of a bundle, not those of an earlier one."""
    return report.weights_sha256 == spec.weights_sha256


def open_run(root: Path, analyses: tuple[Analysis, ...] = ()) -> RunView:
    """Read the content of the page of a run.

    Args:
        root: the folder of the run.
        analyses: replace the analysis of training.

    Raises:
        SimMATError: there is no run, it has no bundle yet, or its files are damaged.
    """
    folder = RunFolder(root.absolute())  # absolute, because users copy paths from the page
    if not folder.config.is_file():
        hint = f"; its run is {root.parent}" if (root.parent / "config.toml").is_file() else ""
        raise ConfigError(f"{root}: no run there (no config.toml); give the folder that --out named{hint}")
    config = load_config(folder.config, {"out": root})
    try:
        spec = read_bundle_spec(folder.bundle)
    except BundleError as error:
        if folder.bundle.exists():
            raise
        raise ConfigError(f"{root} has no bundle yet; wait for its first validation, or start it again") from error
    return view_of(config, spec, folder, read_report(folder), analyses)


def view_of(
    config: TrainConfig, spec: BundleSpec, folder: RunFolder, report: RunReport | None, analyses: tuple[Analysis, ...]
) -> RunView:
    """Return the content of the page of a run; without analyses, that of its report is used."""
    if not analyses and report is not None and is_of(report, spec):
        analyses = (report.analysis,)
    name = folder.root.name or str(folder.root)
    return RunView(name, folder.bundle, config, spec, folder.records(), report, analyses, folder.running)

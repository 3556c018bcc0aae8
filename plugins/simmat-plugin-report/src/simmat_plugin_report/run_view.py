"""What the page of a run shows: its settings, log, bundle and report, read from its folder."""

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
    """What the page of a run shows.

    Attributes:
        name: of the run's folder.
        bundle: folder of its bundle.
        config: its settings.
        spec: of its bundle.
        records: its log.
        report: what training found; None where there is none.
        analyses: what is shown, one for each data set.
        running: its training goes on while the page is made.
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
        """Transfer layer, tuner and foundation model, in words."""
        return f"{self.spec.mat} and {self.spec.tune} on {self.spec.foundation}"

    @property
    def step(self) -> Any:
        """The step whose bundle was kept."""
        return self.spec.metrics.get("step", "?")

    @property
    def steps_done(self) -> int:
        """The last step of its log; without a log, all steps."""
        if not self.records:
            return self.report.steps if self.report is not None else 0
        return max(int(record["step"]) for record in self.records)

    @property
    def trained(self) -> Analysis | None:
        """What training found with this bundle on the validation split."""
        return self.report.analysis if self.report is not None and is_of(self.report, self.spec) else None

    @property
    def is_complete(self) -> bool:
        """Whether it has pictures, and the importance of channels where there are several."""
        found = self.analyses[0] if self.analyses else None
        return found is not None and bool(found.examples) and (bool(found.ablations) or len(self.spec.channels) < 2)

    def is_own(self, found: Analysis) -> bool:
        """Return whether an analysis is of the images that chose the bundle."""
        return found.split == "val" and found.data == str(self.config.data)


def is_of(report: RunReport, spec: BundleSpec) -> bool:
    """Return whether a report has the scores of a bundle, not of one that was kept before it."""
    return report.weights_sha256 == spec.weights_sha256


def open_run(root: Path, analyses: tuple[Analysis, ...] = ()) -> RunView:
    """Read what the page of a run shows.

    Args:
        root: the folder of the run.
        analyses: shown in place of the one that training made.

    Raises:
        SimMATError: there is no run, it has no bundle yet, or its files are damaged.
    """
    folder = RunFolder(root.absolute())  # the page shows paths that can be copied
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
    """Return what the page of a run shows; without analyses, the one of its report."""
    if not analyses and report is not None and is_of(report, spec):
        analyses = (report.analysis,)
    name = folder.root.name or str(folder.root)
    return RunView(name, folder.bundle, config, spec, folder.records(), report, analyses, folder.running)

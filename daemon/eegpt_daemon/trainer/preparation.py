"""Preparation of an attempt before its first step: data, encoder, learner, schedule, and the `run` record."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from eegpt_daemon import crash_points
from eegpt_daemon.data import dataset
from eegpt_daemon.data.corpus_records import Look, corpus_looks, encoder_look
from eegpt_daemon.data.windows import WindowStore
from eegpt_daemon.link import Attempt, Link, NullLink
from eegpt_daemon.trainer import checkpoint as checkpoints
from eegpt_daemon.trainer import provenance
from eegpt_daemon.trainer.checkpoint import CheckpointError
from eegpt_daemon.trainer.checkpoint_features import refuse_other_features
from eegpt_daemon.trainer.journal import Journal
from eegpt_daemon.trainer.learner import Learner
from eegpt_daemon.trainer.privacy import Privacy
from eegpt_daemon.trainer.process_group import ProcessGroup
from eegpt_daemon.trainer.scheduler import effective, torch_scheduler
from eegwatch.run import config as configuration
from eegwatch.run.config import Config
from eegwatch.run.folder import CONFIG
from eegwatch.run.records import Progress, Run
from eegwatch.schedule import Schedule, as_dict
from eegwatch.scores.metrics import LOWER_IS_BETTER

PROGRESS_EVERY_S = 0.5


class Stopped(Exception):
    """An order to stop that was obeyed; `reason` goes into the `end` record."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Prepared:
    """The input of the loop. `step`: steps done; `state`: of the checkpoint resumed from; `total`: steps in all.

    `injected`: torch's own scheduler, where the historical fault is injected; `looks`: what the corpus proves of its
    data; `features`: what their values depend on.
    """

    run_id: str
    config: Config
    processes: ProcessGroup
    data: dataset.TrainingData
    learner: Learner
    schedule: Schedule
    injected: LRScheduler | None
    step: int
    total: int
    steps_per_epoch: int
    state: dict[str, Any] | None
    looks: list[Look] = field(default_factory=list)
    features: dict[str, Any] = field(default_factory=dict)

    @property
    def windows_a_step(self) -> int:
        return windows_a_step(self.config, self.processes)


def windows_a_step(config: Config, processes: ProcessGroup) -> int:
    """Windows that one optimizer step takes, over all processes and micro-batches."""
    return config.data.batch_size * processes.size * config.training.gradient_accumulation_steps


class Preparation:
    """One attempt up to its first step. `notes`: what a reader of the run record must know."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        attempt: Attempt,
        link: Link | NullLink,
        processes: ProcessGroup,
        journal: Journal,
    ) -> None:
        self.folder, self.config, self.attempt, self.link = folder, config, attempt, link
        self.processes, self.journal = processes, journal
        self.step = 0
        self.notes: list[str] = []
        self.state: dict[str, Any] | None = None
        self.steps_per_epoch = self.total = 0
        self.looks: list[Look] = []
        self.features: dict[str, Any] = {}
        self.declared: Schedule
        self.schedule: Schedule
        self._progress_at = 0.0

    def run(self, privacy: Privacy) -> Prepared:
        """Prepare everything. Raises Stopped, and the errors of configuration, corpus, encoder and checkpoint."""
        self.link.phase("preparing", reason="building the encoder")
        device = self.processes.join()
        encoder, notes = dataset.build_encoder(self.config)
        self.notes = [*self.attempt.notes, *notes]
        store = dataset.store_for(self.config, encoder, device)
        self.features = store.store.depends_on
        data: dataset.TrainingData | None = None
        try:
            self.load_checkpoint()
            if self.processes.leads:
                data = self._data(store, privacy)
                self.looks.append(("encoder", encoder_look(encoder)))
        finally:
            shared = self.processes.share(data)
        if shared is None:
            raise Stopped("rank 0 could not prepare")  # it has said why
        self.count(len(shared.train))
        return self.restore(shared, Learner(self.config, shared, encoder, store, self.processes, device))

    def _data(self, store: WindowStore, privacy: Privacy) -> dataset.TrainingData:
        planned = dataset.plan(self.config, store, self._silent_progress)
        privacy.learn((entry.path.stem, entry.alias) for entry in planned.entries)
        self.notes += planned.notes
        for note in self.notes:
            self.journal.say(note)
        self.count(planned.windows["train"])
        self.begin()
        data = dataset.windows(self.config, store, planned, self._progress, self.journal.say)
        if len(data.train) != planned.windows["train"]:  # a file kept less than its header promised
            message = f"{len(data.train):,} train windows were read, the headers promised {planned.windows['train']:,}"
            self.journal.say(message)
            if self.count(len(data.train)):
                self.notes.append(message)
                self.begin()
        self._look_at_the_corpus(store, planned, data)
        return data

    def _look_at_the_corpus(self, store: WindowStore, planned: dataset.Plan, data: dataset.TrainingData) -> None:
        """Records about splits and labels, for the log; a failure here does not end the training."""
        try:
            self.looks = corpus_looks(self.config, store, planned.entries, data.used())
        except Exception as error:
            self.journal.say(f"the corpus was not looked at for silent errors: {type(error).__name__}: {error}")

    def count(self, windows: int) -> bool:
        """Steps an epoch and in all, and the schedule over them; True if they changed."""
        training = self.config.training
        batches = -(-windows // (self.config.data.batch_size * self.processes.size))
        per_epoch = max(1, -(-batches // training.gradient_accumulation_steps))
        changed = per_epoch != self.steps_per_epoch
        self.steps_per_epoch, self.total = per_epoch, per_epoch * training.max_epochs
        self.declared = configuration.schedule_of(self.config, per_epoch)
        self.schedule = effective(self.declared, self.attempt.overrides, per_epoch)
        return changed

    def load_checkpoint(self) -> None:
        """Load the checkpoint and compare it with the configuration before the long work. Raises CheckpointError."""
        name = self.attempt.checkpoint
        if name is None:
            return
        self.state = state = checkpoints.load(self.folder / name)
        self.step = int(state["step"])
        refuse_other_features(name, state.get("features"), self.features)
        was, now = state["config_hash"], configuration.training_hash(self.config)
        if was != now:
            raise CheckpointError(
                f"{self.folder / CONFIG} has changed since {name} (hash {was}, now {now}); "
                "restore it, or start a fresh run with the new one"
            )
        if state["world_size"] != self.processes.size:
            raise CheckpointError(
                f"{name} was trained by {state['world_size']} process(es), now there are {self.processes.size}: "
                "batches and random states would differ; set distributed as it was, or start a fresh run"
            )

    def begin(self) -> None:
        """The `run` record: first line of the attempt; once more where what it says was found to be otherwise."""
        config, state = self.config, self.state
        restored = None
        if state is not None:
            restored = {"step": state["step"], "position": state["position"], "total_steps": state["total_steps"]}
        target = {"auroc": config.target_metrics.auroc} if config.target_metrics.auroc is not None else None
        self.journal.write(
            Run(
                time=time.time(),
                run_id=self.folder.name,
                attempt=self.attempt.attempt,
                name=config.experiment.name,
                step=self.step,
                total_steps=self.total,
                steps_per_epoch=self.steps_per_epoch,
                epochs=config.training.max_epochs,
                batch_size=config.data.batch_size,
                accumulate=config.training.gradient_accumulation_steps,
                world_size=self.processes.size,
                schedule=as_dict(self.schedule),
                target=target,
                expected=configuration.expected_rates(config) or None,
                parent=self.attempt.parent,
                parent_step=self.attempt.parent_step,
                checkpoint=self.attempt.checkpoint,
                restored=restored,
                overrides=self.attempt.overrides,
                command=self.attempt.command,
                inject=config.inject,
                detectors=dict(config.detectors),
                metric_goals={prefix + name: "min" for name in LOWER_IS_BETTER for prefix in ("", "recording_")},
                notes=[self.journal.clean(note) for note in self.notes],
                seed=config.experiment.seed,
                config=configuration.public(config),
                argv=self.attempt.argv,
                **provenance.of_this_process(),
            )
        )
        self.journal.sync()
        crash_points.point("attempt.after_run_record")

    def _silent_progress(self, what: str, done: int, total: int) -> None:
        """Report progress to the supervisor only: the `run` record, the attempt's first line, is not written yet."""
        self._obey()
        self.link.tick(self.step, f"{what}: {done} of {total}")

    def _progress(self, what: str, done: int, total: int) -> None:
        self._obey()
        self.link.tick(self.step, f"{what}: {done} of {total}")
        if done == total or time.monotonic() - self._progress_at > PROGRESS_EVERY_S:
            self._progress_at = time.monotonic()
            self.journal.write(Progress(time=time.time(), what=what, done=done, total=total))

    def _obey(self) -> None:
        order = self.link.order()
        if order is None:
            return
        if order.order == "stop":
            raise Stopped(order.reason)
        self.link.put_back(order)  # a checkpoint is possible once there is a model

    def restore(self, data: dataset.TrainingData, learner: Learner) -> Prepared:
        """The learner as the checkpoint left it; or as it begins. Raises CheckpointError."""
        config, state = self.config, self.state
        if learner.span is not None:
            if state is None:
                learner.standardise_by_sample()
            self._say_cost(learner)
        if state is not None:
            name = str(self.attempt.checkpoint)
            if state["data_hash"] != data.hash():
                raise CheckpointError(
                    f"{config.data.root_dir} is not the corpus that {name} was trained on: files, labels, windows or "
                    "features differ; restore it, or start a fresh run"
                )
            if state["steps_per_epoch"] != self.steps_per_epoch or state["sampler"]["seed"] != config.experiment.seed:
                raise CheckpointError(f"{name}: the epoch is another one: its order of windows cannot be restored")
            learner.restore(state, name)
        injected = torch_scheduler(self.declared, learner.optimizer) if config.inject else None
        if injected is not None and state is not None:  # a trainer that died goes on with its fault
            for _ in range(int(state["position"])):
                injected.step()
        return Prepared(
            run_id=self.folder.name,
            config=config,
            processes=self.processes,
            data=data,
            learner=learner,
            schedule=self.schedule,
            injected=injected,
            step=self.step,
            total=self.total,
            steps_per_epoch=self.steps_per_epoch,
            state=state,
            looks=self.looks,
            features=self.features,
        )

    def _say_cost(self, learner: Learner) -> None:
        """Log the time of training through the backbone, measured on one batch before the first step."""
        size = windows_a_step(self.config, self.processes)
        seconds = learner.seconds_a_step(size)
        hours = seconds * self.steps_per_epoch / 3600
        message = (
            f"every step runs the backbone: {seconds:.2f} s ({size / seconds:.1f} windows/s), about {hours:.1f} h an "
            "epoch; with a frozen backbone and no channel adapter, features are computed once and a step takes "
            "milliseconds"
        )
        self.journal.say(message)
        if self.processes.leads:
            self.notes.append(message)
            self.begin()

"""The configuration: the users' files load unchanged, and a mistake is one line that says where and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from eegwatch.run.config import ConfigError, dump, expected_rates, load, parse_text, schedule_of, training_hash
from eegwatch.run.seed_series import as_series
from eegwatch.schedule import final_rate, initial_rate, peak_rate

CONFIGS = sorted((Path(__file__).resolve().parents[3] / "configs").glob("*.yaml"))
ROOT = "data: {root_dir: /data}\n"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_shipped_configuration_loads_and_declares_what_it_expects(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGB_DATA_ROOT", "/data/tuab")
    config = load(path)
    if config.script is not None:
        assert not expected_rates(config)  # the rates are the script's
        return
    schedule = schedule_of(config, 1000)
    meant = expected_rates(config)
    assert meant.get("initial_lr") == pytest.approx(initial_rate(schedule), rel=1e-9)
    assert meant.get("peak_lr") == pytest.approx(peak_rate(schedule), rel=1e-9)
    assert meant.get("final_lr") == pytest.approx(final_rate(schedule), rel=1e-9)


def test_a_dumped_configuration_reads_back_the_same() -> None:
    config = parse_text(ROOT + "training: {scheduler: {name: OneCycleLR, max_lr: 3e-3}}", "x")
    assert parse_text(dump(config), "y") == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {scheduler: {max_1r: 3e-3}}", ["c.yaml: training.scheduler.max_1r is not a key", "mean max_lr?"]),
        ("trainin: {}", ["c.yaml: trainin is not a key", "did you mean training?"]),
        ("data: {batch_size: many}", ["c.yaml: data.batch_size:", "expected `int`"]),
        ("a: [", ["c.yaml:1:", "not valid YAML"]),
        ("- 1", ["c.yaml: the file must be a mapping"]),
        (ROOT + "training: {max_epochs: 0}", ["training.max_epochs: must be at least 1"]),
        ("data: {root_dir: '${NOWHERE_SET}/x'}", ["data.root_dir", "NOWHERE_SET is not set"]),
        (ROOT + "model: {probe: {dropout: 1.5}}", ["model.probe.dropout"]),
        (ROOT + "inject: scheduler_stepped_per_epoch\ntraining: {scheduler: {name: cosine, max_lr: 1}}", ["inject"]),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_remedy(text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parse_text(text, "c.yaml")
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ("{name: onecicle, max_lr: 1e-3}", "did you mean onecycle?"),
        ("{name: one_cycle, max_lr: 1e-3, gamma: 0.1}", "training.scheduler.gamma: a one_cycle schedule does not take"),
        ("{name: one_cycle}", "max_lr"),
        ("{name: one_cycle, max_lr: -1}", "max_lr must be finite and not negative"),
        ("{name: one_cycle, max_lr: 1e-3, pct_start: 10}", "pct_start is a fraction"),
        ("{name: step, max_lr: 1e-3}", "step_size"),
    ],
)
def test_a_schedule_with_wrong_parameters_says_which(scheduler: str, words: str) -> None:
    config = parse_text(ROOT + f"training: {{scheduler: {scheduler}}}", "c.yaml")
    with pytest.raises(ConfigError, match="training.scheduler") as error:
        schedule_of(config, 100)
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["OneCycleLR", "onecycle", "one_cycle", "OneCycle"])
def test_torchs_own_names_are_understood(name: str) -> None:
    config = parse_text(ROOT + f"training: {{max_epochs: 3, scheduler: {{name: {name}, max_lr: 3e-3}}}}", "c")
    assert schedule_of(config, 100).total_steps == 300


def test_exponents_without_a_dot_are_numbers_although_yaml_reads_them_as_text() -> None:
    config = parse_text(ROOT + "training: {optimizer: {weight_decay: 1e-4}}", "c")
    assert config.training.optimizer.weight_decay == 1e-4


def test_variables_are_expanded_with_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_ROOT", "/there")
    config = parse_text("data: {root_dir: '${SOME_ROOT}/edf', cache_dir: '${NOT_SET:-~/cache}'}", "c")
    assert config.data.root_dir == "/there/edf"
    assert config.data.cache_dir == str(Path.home() / "cache")


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("{name: inverse_sqrt, max_lr: 1e-3, warmup_steps: 30}", 1e-3 / 2**0.5),
        ("{name: multistep, max_lr: 1e-3, milestones: [40], warmup_steps: 30, warmup_mode: multiply}", 1e-4),
        ("{name: WSD, max_lr: 1e-3, decay_steps: 10, warmup_steps: 30}", 1e-3),
        ("{name: CyclicLR, base_lr: 1e-4, max_lr: 1e-3, step_size_up: 60}", 1e-3),
    ],
)
def test_every_family_with_parameters_of_its_own_can_be_declared(written: str, wanted: float) -> None:
    config = parse_text(ROOT + f"training: {{max_epochs: 10, scheduler: {written}}}", "c")
    assert float(schedule_of(config, 10).rate(60)) == pytest.approx(wanted)


def test_a_run_that_began_before_a_key_was_known_still_resumes() -> None:
    def hash_with(data: str) -> str:
        return training_hash(parse_text(f"data: {{root_dir: /data{data}}}\n", "x"))

    assert hash_with("") == "01c1b2a88ac6374a"  # as version 0.2.0 wrote it into checkpoints
    assert hash_with(", split_seed: 7") != hash_with(", split_seed: 8") != hash_with("")


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ("0", "from 1 to 1,000 seeds, not 0"),
        ("[]", "from 1 to 1,000 seeds, not 0"),
        ("[1, 2, 1]", r"a seed stands twice in \[1, 2, 1\]"),
        ("many", "experiment.seeds"),
    ],
)
def test_seeds_of_a_series_that_cannot_be_run_are_refused(seeds: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_text(f"{ROOT}experiment: {{seeds: {seeds}}}", "c.yaml")


def test_a_script_has_no_series() -> None:
    with pytest.raises(ConfigError, match="a script sets its own seed"):
        parse_text("script: {command: [python, train.py]}\nexperiment: {seeds: 3}", "c.yaml")


def test_the_runs_of_a_series_share_one_split_and_train_as_single_runs_would() -> None:
    single = parse_text(f"{ROOT}experiment: {{seed: 4}}", "x")
    series = parse_text(f"{ROOT}experiment: {{seed: 4, seeds: 3}}", "x")
    as_series(series)
    assert series.experiment.seeds == [4, 5, 6] and series.experiment.seed == series.data.split_seed == 4
    single.data.split_seed = 4
    assert training_hash(series) == training_hash(single)
    listed = parse_text(f"{ROOT}experiment: {{seed: 4, seeds: [9, 2]}}\n", "x")
    listed.data.split_seed = 1
    as_series(listed)
    assert (listed.experiment.seed, listed.experiment.seeds, listed.data.split_seed) == (9, [9, 2], 1)

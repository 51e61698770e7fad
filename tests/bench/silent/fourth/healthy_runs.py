"""Healthy trainings whose resumes, data, splits, processes or frameworks are unusual on purpose."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, SubsetRandomSampler

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import Points, Probe, batches, loss_of, mlp, points, scored, update, weights


@healthy("the run went bad and is taken up again from the checkpoint before the last")
def rewound_to_an_earlier_checkpoint(script: Script) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)

    def train(seeds: range) -> None:
        for seed in seeds:
            for batch in batches(8, seed=seed):
                log.step(loss=update(model, optimizer, batch))
            path = script.path(f"epoch{seed}.pt")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
            log.checkpoint(path)

    log = script.log(total_steps=32)
    log.watch(model, optimizer)
    train(range(3))
    kept = torch.load(script.path("epoch1.pt"))
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    model.load_state_dict(kept["model"])
    optimizer.load_state_dict(kept["optimizer"])
    log = script.log(resume=True, step=16, total_steps=32)
    log.watch(model, optimizer)
    train(range(10, 12))
    return weights(model)


class Positioned(Sampler[int]):
    """A permutation by the epoch's seed that can begin at any position."""

    def __init__(self, n: int) -> None:
        self.n, self.epoch, self.position = n, 0, 0

    def __len__(self) -> int:
        return self.n - self.position

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.n, generator=torch.Generator().manual_seed(70 + self.epoch)).tolist()
        begin, self.position = self.position, 0
        return iter(order[begin:])


@healthy("a resume in the middle of an epoch with a sampler that goes on where it was")
def sampler_that_goes_on(script: Script) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    done = 0
    for attempt in range(2):
        sampler = Positioned(96)
        sampler.epoch, sampler.position = done // 12, 8 * (done % 12)
        loader = DataLoader(Points(96), batch_size=8, sampler=sampler)
        log = script.log(resume=attempt > 0, step=done, steps_per_epoch=12, total_steps=36)
        log.watch(model, optimizer, loader=loader)
        while done < (17, 36)[attempt]:
            for batch in loader:
                log.step(loss=update(model, optimizer, batch))
                done += 1
                if done == 17 and not attempt:
                    break
            sampler.epoch += 1
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, script.path("last.pt"))
        log.checkpoint(script.path("last.pt"))
    return weights(model)


@healthy("an epoch is a random half of the data")
def epochs_of_a_random_half(script: Script) -> Tensor:
    data = Points(48)
    loader = DataLoader(data, batch_size=8, sampler=RandomSampler(data, num_samples=24))
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log(steps_per_epoch=3)
    log.watch(model, optimizer, loader=loader)
    for _ in range(9):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("each epoch is left after four of six batches, two more loaders for evaluations in between")
def epochs_left_early(script: Script) -> Tensor:
    loader = DataLoader(Points(48), batch_size=8, shuffle=True)
    held = DataLoader(Points(16, 5), batch_size=8)
    model = mlp(dropout=0.1)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, loader=loader)
    for _ in range(6):
        model.train()
        for number, batch in enumerate(loader):
            if number == 4:
                break
            log.step(loss=update(model, optimizer, batch))
        model.eval()
        with log.evaluating(), torch.no_grad():
            value = torch.stack([loss_of(model, batch) for batch in held]).mean()
        log.eval(loss=value)
    return weights(model)


class Balanced(Sampler[list[int]]):
    """Batches with as many samples of each class, drawn anew in each epoch."""

    def __init__(self, y: Tensor, of_each: int, number: int) -> None:
        self.pools, self.of_each, self.number = (
            [(y == c).nonzero().flatten().tolist() for c in range(3)],
            of_each,
            number,
        )

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.number):
            yield [i for pool in self.pools for i in random.choices(pool, k=self.of_each)]


@healthy("balanced batches: a batch sampler draws as many of each class, rare ones again and again")
def balanced_batches(script: Script) -> Tensor:
    data = Points(60)
    loader = DataLoader(data, batch_sampler=Balanced(data.y, 3, 6))
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(steps_per_epoch=6)
    log.watch(model, optimizer, loader=loader)
    for _ in range(4):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("hard examples: each epoch reads at random what the last one was worst at, other samples each time")
def hard_examples_first(script: Script) -> Tensor:
    data, model = Points(64), mlp()
    sampler = SubsetRandomSampler(range(64))
    loader = DataLoader(data, batch_sampler=BatchSampler(sampler, 8, drop_last=True))
    optimizer = AdamW(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer, loader=loader)
    for _ in range(5):
        for batch in loader:
            log.step(loss=update(model, optimizer, batch))
        with torch.no_grad():
            each = F.cross_entropy(model(data.x), data.y, reduction="none")
        sampler.indices = each.argsort(descending=True)[:40].tolist()
    return weights(model)


class Repeated(Sampler[int]):
    """Each sample three times in a row, dealt out to the ranks one by one: each rank has another augmentation of it."""

    def __init__(self, n: int, rank: int, world: int) -> None:
        self.n, self.rank, self.world, self.epoch = n, rank, world, 0

    def __len__(self) -> int:
        return self.n // self.world

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.n, generator=torch.Generator().manual_seed(self.epoch)).repeat_interleave(3)
        return iter(order[self.rank :: self.world][: len(self)].tolist())


@healthy(
    "repeated augmentation: the ranks have augmentations of the same samples on purpose (DeiT)", "facebookresearch/deit"
)
def repeated_augmentation(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        torch.manual_seed(script.rank)
        sampler = Repeated(96, script.rank, script.world)
        loader = DataLoader(Points(96), batch_size=8, sampler=sampler)
        wrapped = DistributedDataParallel(mlp())
        optimizer = AdamW(wrapped.parameters(), lr=1e-2)
        log = script.log(world_size=script.world, steps_per_epoch=6)
        log.watch(wrapped, optimizer, loader=loader, world=1)
        for epoch in range(3):
            sampler.epoch = epoch
            for x, y in loader:
                log.step(loss=update(wrapped, optimizer, (x + 0.1 * torch.randn_like(x), y)))
        return weights(wrapped)

    return script.on_ranks(play)


@healthy("windows overlap within the training split, and a gap of one window lies before the test split")
def windows_overlap_within_a_split(script: Script) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    log.split("train", [(f"rec{r}", 2 * i, 2 * i + 4) for r in range(3) for i in range(20)])
    log.split("test", [(f"rec{r}", 2 * i, 2 * i + 4) for r in range(3) for i in range(23, 30)])
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("calibration within subjects: each subject's first session trains, the second is the test")
def sessions_of_the_same_subjects(script: Script) -> Tensor:
    model = mlp()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    log.split("train", [f"sub-{s:02}_ses-1" for s in range(1, 13)])
    log.split("val", [f"sub-{s:02}_ses-2" for s in range(1, 7)])
    log.split("test", [f"sub-{s:02}_ses-2" for s in range(7, 13)])
    for batch in batches(24):
        log.step(loss=update(model, optimizer, batch))
    return weights(model)


@healthy("DiLoCo: each rank takes six steps alone, an outer optimizer steps with the mean of what they moved")
def outer_and_inner_steps(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        model, start = mlp(), mlp()
        for p in model.parameters():
            dist.broadcast(p.data, 0)
        start.load_state_dict(model.state_dict())
        inner = AdamW(model.parameters(), lr=1e-2)
        outer = SGD(start.parameters(), lr=0.7, momentum=0.9, nesterov=True)
        log = script.log(world_size=script.world)
        log.watch(model, inner, rank=script.rank, world=script.world)
        for step, batch in enumerate(batches(24, seed=1 + script.rank), start=1):
            log.step(loss=update(model, inner, batch))
            if step % 6 == 0:
                for s, p in zip(start.parameters(), model.parameters()):
                    s.grad = s.detach() - p.detach()
                    dist.all_reduce(s.grad)
                    s.grad /= script.world
                outer.step()
                model.load_state_dict(start.state_dict())
        return weights(model)

    return script.on_ranks(play)


@healthy("gossip: two ranks pull each other's weights half of the way after every third step, and differ in between")
def gossip_between_ranks(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        torch.manual_seed(script.rank)
        model = mlp()
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        log = script.log(world_size=script.world)
        log.watch(model, optimizer, rank=script.rank, world=script.world)
        for step, batch in enumerate(batches(24, seed=1 + script.rank), start=1):
            log.step(loss=update(model, optimizer, batch))
            if step % 3 == 0:
                for p in model.parameters():
                    both = p.detach().clone()
                    dist.all_reduce(both)
                    p.data.lerp_(both / script.world, 0.5)
        return weights(model)

    return script.on_ranks(play)


@healthy("two ranks with gradients as views of the buckets, a static graph, and accumulation")
def gradients_as_views_of_buckets(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(Probe(), gradient_as_bucket_view=True, static_graph=True)
        optimizer = AdamW(wrapped.parameters(), lr=1e-2)
        log = script.log(world_size=script.world, accumulate=2)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world, accumulate=2)
        for number, batch in enumerate(batches(40, seed=1 + script.rank), start=1):
            loss = loss_of(wrapped, batch) / 2
            loss.backward()
            if number % 2 == 0:
                optimizer.step()
                optimizer.zero_grad(set_to_none=False)
                log.step(loss=loss * 2)
        return weights(wrapped)

    return script.on_ranks(play)


@healthy("two ranks: rank 0 alone writes checkpoints, both resume from its file")
def resume_of_two_ranks_from_one_file(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        for attempt in range(2):
            wrapped = DistributedDataParallel(mlp())
            optimizer = Adam(wrapped.parameters(), lr=1e-2)
            if attempt:
                last = torch.load(script.path("last.pt"))
                wrapped.module.load_state_dict(last["model"])
                optimizer.load_state_dict(last["optimizer"])
            log = script.log(resume=attempt > 0, step=12 * attempt, world_size=script.world, total_steps=24)
            log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
            for batch in batches(12, seed=1 + script.rank + 2 * attempt):
                log.step(loss=update(wrapped, optimizer, batch))
            if script.rank == 0:
                parts = {"model": wrapped.module, "optimizer": optimizer}
                torch.save({name: part.state_dict() for name, part in parts.items()}, script.path("last.pt"))
                log.checkpoint(script.path("last.pt"))
            dist.barrier()
        return weights(wrapped)

    return script.on_ranks(play)


def fitted(script: Script, callbacks: list[Any], **options: Any) -> Tensor:
    """A probe that Lightning trains on 96 points for four epochs, with a validation each."""
    import lightning

    from eegwatch.integrations.lightning import EegwatchCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = Probe().backbone, Probe().head

        def training_step(self, batch: Any, number: int) -> Tensor:
            return F.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

        def validation_step(self, batch: Any, number: int) -> None:
            self.log("val_loss", F.cross_entropy(self.head(self.backbone(batch[0])), batch[1]))

        def configure_optimizers(self) -> Any:
            return AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-2)

    model = Module()
    trainer = lightning.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=script.root,
        callbacks=[*callbacks, *([EegwatchCallback(script.logs)] if script.watched else [])],
        **options,
    )
    trainer.fit(model, DataLoader(Points(96), batch_size=8, shuffle=True), DataLoader(Points(32, 5), batch_size=16))
    return weights(model)


@healthy("Lightning's stochastic weight averaging: another rate, other weights at the end, statistics made anew")
def lightning_averages_weights(script: Script) -> Tensor:
    from lightning.pytorch.callbacks import StochasticWeightAveraging

    return fitted(script, [StochasticWeightAveraging(swa_lrs=5e-3, swa_epoch_start=2, annealing_epochs=1)])


@healthy(
    "Lightning's BackboneFinetuning: the backbone is unfrozen in the third epoch, with a group and a rate of its own"
)
def lightning_unfreezes_the_backbone(script: Script) -> Tensor:
    from lightning.pytorch.callbacks import BackboneFinetuning

    return fitted(script, [BackboneFinetuning(unfreeze_backbone_at_epoch=2, backbone_initial_ratio_lr=0.1)])


@healthy("Lightning's GradientAccumulationScheduler: from one batch a step to four, validations within epochs")
def lightning_changes_the_accumulation(script: Script) -> Tensor:
    from lightning.pytorch.callbacks import GradientAccumulationScheduler

    return fitted(script, [GradientAccumulationScheduler({0: 1, 1: 2, 3: 4})], val_check_interval=0.5)


@healthy("Lightning fits two batches over and over (overfit_batches=2)")
def lightning_overfits_two_batches(script: Script) -> Tensor:
    return fitted(script, [], overfit_batches=2)


@healthy("transformers' Trainer keeps an evaluation each epoch and loads the best weights at the end")
def trainer_loads_the_best_weights(script: Script) -> Tensor:
    import transformers

    from eegwatch.integrations.huggingface import EegwatchCallback

    transformers.logging.set_verbosity_error()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(dropout=0.1)

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.net(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    def rows(n: int, seed: int) -> list[dict[str, Tensor]]:
        return [{"x": x, "labels": y} for x, y in zip(*points(n, seed))]

    model = Net()
    arguments = transformers.TrainingArguments(
        output_dir=str(script.path("out")),
        per_device_train_batch_size=8,
        num_train_epochs=4,
        learning_rate=5e-2,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": 1e-3},
        warmup_steps=4,
        max_grad_norm=0.5,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        save_total_limit=1,
        report_to=[],
        logging_steps=1,
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=rows(48, 0),
        eval_dataset=rows(32, 5),
        callbacks=[EegwatchCallback(script.logs)] if script.watched else [],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return torch.cat([weights(model), torch.tensor([scored(model.net)], dtype=torch.float64)])

"""Healthy resumes, healthy trainings of several processes, and of other frameworks."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, DistributedSampler

from tests.bench.silent.case import healthy
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, Points, Probe, batches, loss_of, mlp, points, update, weights


def keep(script: Script, log: Any, **parts: Any) -> None:
    torch.save({name: part.state_dict() for name, part in parts.items()}, script.path("last.pt"))
    log.checkpoint(script.path("last.pt"))


def put_back(script: Script, **parts: Any) -> None:
    last = torch.load(script.path("last.pt"))
    for name, part in parts.items():
        part.load_state_dict(last[name])


@healthy("a crash three steps after the checkpoint: the resume takes these steps again")
def steps_taken_again_after_a_crash(script: Script) -> Tensor:
    for attempt in range(2):
        model = mlp()
        optimizer = AdamW(model.parameters(), lr=1e-2)
        if attempt:
            put_back(script, model=model, optimizer=optimizer)
        log = script.log(resume=attempt > 0, step=12 * attempt, total_steps=26)
        log.watch(model, optimizer)
        for step, batch in enumerate(batches(26), start=1):
            if attempt and step <= 12:
                continue
            log.step(loss=update(model, optimizer, batch))
            if step == 12:
                keep(script, log, model=model, optimizer=optimizer)
            if step == 15 and not attempt:
                break
    return weights(model)


@healthy("a resume within an epoch: the loader's generator is put back, and what was read is read again and skipped")
def read_again_and_skipped(script: Script) -> Tensor:
    done = 0
    for attempt in range(2):
        model = mlp()
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        generator = torch.Generator().manual_seed(5)
        skip = 0
        if attempt:
            put_back(script, model=model, optimizer=optimizer)
            generator.set_state(torch.load(script.path("order.pt")))
            skip = done % 8
        loader = DataLoader(Points(64), batch_size=8, shuffle=True, generator=generator)
        log = script.log(resume=attempt > 0, step=done, steps_per_epoch=8, total_steps=24)
        log.watch(model, optimizer, loader=loader)
        while done < (13, 24)[attempt]:
            torch.save(generator.get_state(), script.path("order.pt"))
            for number, batch in enumerate(loader):
                if number < skip:
                    continue
                log.step(loss=update(model, optimizer, batch))
                done += 1
                if done == (13, 24)[attempt]:
                    break
            skip = 0
        keep(script, log, model=model, optimizer=optimizer)
    return weights(model)


@healthy("three attempts with a scaler, a schedule, an average and the optimizer, all of them restored")
def everything_restored_twice(script: Script) -> Tensor:
    for attempt in range(3):
        model = Probe()
        average = copy.deepcopy(model).requires_grad_(False)
        optimizer = AdamW(model.parameters(), lr=1e-2)
        scheduler = CosineAnnealingLR(optimizer, 27)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120, growth_interval=4)
        parts = {"model": model, "average": average, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
        if attempt:
            put_back(script, **parts)
        log = script.log(resume=attempt > 0, step=9 * attempt, schedule=scheduler, total_steps=27)
        log.watch(model, optimizer, scaler=scaler)
        log.ema(average, 0.9)
        for batch in batches(9, seed=attempt):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            with torch.no_grad():
                for a, p in zip(average.state_dict().values(), model.state_dict().values()):
                    a.lerp_(p, 0.1) if a.is_floating_point() else a.copy_(p)
            log.step(loss=loss)
        keep(script, log, **parts)
    return weights(model, average)


@healthy("a run is made longer on resume: a new schedule from the present rate down, over the steps that are left")
def made_longer_on_resume(script: Script) -> Tensor:
    for attempt in range(2):
        model = mlp()
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        if attempt:
            put_back(script, model=model, optimizer=optimizer)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] = 0.05
        scheduler = CosineAnnealingLR(optimizer, (24, 36)[attempt], eta_min=0.01)
        start = 12 * attempt
        law = {"name": "cosine", "total_steps": (24, 36)[attempt], "max_lr": (0.1, 0.05)[attempt], "final_lr": 0.01}
        before = {"name": "constant", "total_steps": 12, "lr": 0.1}
        shifted = {"name": "sequence", "total_steps": 48, "schedules": [before, law], "milestones": [12]}
        log = script.log(
            resume=attempt > 0,
            step=start,
            schedule=shifted if attempt else law,
            optimizer=optimizer,
            total_steps=start + law["total_steps"],
        )
        log.watch(model, optimizer)
        for batch in batches((12, 24)[attempt], seed=attempt):
            loss = update(model, optimizer, batch)
            scheduler.step()
            log.step(loss=loss)
        keep(script, log, model=model, optimizer=optimizer)
    return weights(model)


@healthy("a pretrained backbone is loaded with strict=False under a new head, and trained with another optimizer")
def new_head_on_pretrained_weights(script: Script) -> Tensor:
    model = Probe()
    optimizer = Adam(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for batch in batches(14):
        log.step(loss=update(model, optimizer, batch))
    keep(script, log, model=model)
    tuned = Probe()
    tuned.head = nn.Linear(16, 2)
    state = torch.load(script.path("last.pt"))["model"]
    tuned.load_state_dict({name: v for name, v in state.items() if not name.startswith("head")}, strict=False)
    optimizer = SGD(tuned.parameters(), lr=0.05, momentum=0.9)
    log = script.log()
    log.watch(tuned, optimizer)
    for x, y in batches(14, seed=3):
        log.step(loss=update(tuned, optimizer, (x, y.clamp(max=1))))
    return weights(tuned)


@healthy("two ranks divide the optimizer's state (ZeroRedundancyOptimizer)")
def optimizer_divided_among_ranks(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(mlp())
        optimizer = ZeroRedundancyOptimizer(wrapped.parameters(), optimizer_class=Adam, lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        for batch in batches(24, seed=1 + script.rank):
            log.step(loss=update(wrapped, optimizer, batch))
        return weights(wrapped)

    return script.on_ranks(play)


@healthy("two ranks with sharded weights and gradients, clipped by the norm over all shards")
def shards_clipped_together(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        model = mlp()
        fully_shard(model, mesh=init_device_mesh("cpu", (script.world,)))
        optimizer = AdamW(model.parameters(), lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch(model, optimizer, clip=0.1, rank=script.rank, world=script.world)
        for batch in batches(24, seed=1 + script.rank):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            log.step(loss=loss)
        dist.barrier()
        return torch.cat([p.full_tensor().detach().reshape(-1).double() for p in model.parameters()])

    return script.on_ranks(play)


@healthy("two ranks play an environment each, in evaluations too; their gradients are averaged by hand")
def an_environment_on_each_rank(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        policy = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))
        optimizer = Adam(policy.parameters(), lr=1e-2)
        torch.manual_seed(100 + script.rank)
        log = script.log(world_size=script.world)
        log.watch(policy, optimizer, rank=script.rank, world=script.world)
        for turn, (x, y) in enumerate(batches(24, seed=1 + script.rank)):
            drawn = torch.distributions.Categorical(logits=policy(x))
            action = drawn.sample()
            reward = (action == y).float()
            optimizer.zero_grad()
            loss = -((reward - reward.mean()) * drawn.log_prob(action)).mean()
            loss.backward()
            for p in policy.parameters():
                dist.all_reduce(p.grad)
                p.grad /= script.world
            optimizer.step()
            log.step(loss=loss)
            if turn % 8 == 7:
                with torch.no_grad(), log.evaluating():
                    seen, wanted = points(16, 500 + script.rank)
                    right = (policy(seen).argmax(1) == wanted).float().mean()
                log.eval(metrics={"reward": float(right)})
        return weights(policy)

    return script.on_ranks(play)


@healthy("two ranks, and in each step only one of three heads is used: unused parameters are looked for")
def unused_heads_on_two_ranks(script: Script) -> Tensor:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(FEATURES, 8)
            self.heads = nn.ModuleList(nn.Linear(8, CLASSES) for _ in range(3))

        def forward(self, x: Tensor, task: int) -> Tensor:
            return self.heads[task](self.body(x).relu())

    def play(script: Script) -> Tensor:
        wrapped = DistributedDataParallel(Heads(), find_unused_parameters=True)
        optimizer = AdamW(wrapped.parameters(), lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        for step, (x, y) in enumerate(batches(24, seed=1 + script.rank)):
            optimizer.zero_grad()
            loss = F.cross_entropy(wrapped(x, step % 3), y)
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
        return weights(wrapped)

    return script.on_ranks(play)


@healthy("two ranks shuffle apart, one more epoch is added after a resume, and the sampler is told its number")
def sampler_told_its_epoch_after_a_resume(script: Script) -> Tensor:
    def play(script: Script) -> Tensor:
        for attempt in range(2):
            data = Points(64)
            sampler = DistributedSampler(data, script.world, script.rank)
            loader = DataLoader(data, batch_size=8, sampler=sampler)
            wrapped = DistributedDataParallel(mlp())
            optimizer = SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
            path = script.path(f"last{script.rank}.pt")
            if attempt:
                last = torch.load(path)
                wrapped.module.load_state_dict(last["model"])
                optimizer.load_state_dict(last["optimizer"])
            log = script.log(
                resume=attempt > 0, step=12 * attempt, world_size=script.world, steps_per_epoch=4, total_steps=20
            )
            log.watch(wrapped, optimizer, loader=loader, rank=script.rank, world=script.world)
            for epoch in range(3 * attempt, (3, 5)[attempt]):
                sampler.set_epoch(epoch)
                for batch in loader:
                    log.step(loss=update(wrapped, optimizer, batch))
            torch.save({"model": wrapped.module.state_dict(), "optimizer": optimizer.state_dict()}, path)
            log.checkpoint(path)
        return weights(wrapped)

    return script.on_ranks(play)


@healthy("Lightning with a rate that falls on a plateau, gradients clipped by value, and two validation loaders")
def lightning_with_a_plateau(script: Script) -> Tensor:
    import lightning

    from eegwatch.integrations.lightning import EegwatchCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Probe()

        def training_step(self, batch: Any, number: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, number: int, dataloader_idx: int = 0) -> None:
            name = f"loss{dataloader_idx}"
            self.log(name, F.cross_entropy(self.net(batch[0]), batch[1]), add_dataloader_idx=False)

        def configure_optimizers(self) -> Any:
            optimizer = AdamW(self.parameters(), lr=2e-2)
            scheduler = ReduceLROnPlateau(optimizer, patience=0, factor=0.3)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "loss0"}}

    model = Module()
    trainer = lightning.Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=script.root,
        gradient_clip_val=0.1,
        gradient_clip_algorithm="value",
        callbacks=[EegwatchCallback(script.logs)] if script.watched else [],
    )
    held = [DataLoader(Points(24, seed), batch_size=8) for seed in (5, 6)]
    trainer.fit(model, DataLoader(Points(48), batch_size=8, shuffle=True), held)
    return weights(model)


@healthy("transformers' Trainer with restarts of the cosine, accumulation over a tail, smoothed labels and a decay")
def trainer_with_restarts(script: Script) -> Tensor:
    import transformers

    from eegwatch.integrations.huggingface import EegwatchCallback

    transformers.logging.set_verbosity_error()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(dropout=0.1)

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.net(x)
            return {"loss": F.cross_entropy(logits, labels, label_smoothing=0.1), "logits": logits}

    model = Net()
    arguments = transformers.TrainingArguments(
        output_dir=str(script.path("out")),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=3,
        num_train_epochs=6,
        learning_rate=2e-2,
        weight_decay=0.05,
        lr_scheduler_type="cosine_with_restarts",
        lr_scheduler_kwargs={"num_cycles": 2},
        warmup_steps=3,
        max_grad_norm=0.5,
        save_strategy="no",
        report_to=[],
        logging_steps=1,
        use_cpu=True,
        disable_tqdm=True,
    )
    rows = [{"x": x, "labels": y} for x, y in zip(*points(56))]
    callbacks = [EegwatchCallback(script.logs)] if script.watched else []
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, callbacks=callbacks)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return weights(model)

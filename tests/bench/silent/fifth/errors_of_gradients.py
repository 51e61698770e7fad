"""Errors of gradients: not cleared, cleared too often, accumulated over too much or too little, clipped in vain."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, batches, loss_of, mlp, points, weights


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, FEATURES)),
        nn.Conv1d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * FEATURES, CLASSES),
    )


@error(
    "heartcored98/Standalone-DeepLearning/issues/11",
    "a lesson's train() calls zero_grad() once at the beginning of an epoch, before the loop over its batches",
    "gradients_not_cleared",
    first=2,
    again=True,
)
def cleared_once_an_epoch(script: Script, faulty: bool) -> Tensor:
    model = convolutional()
    optimizer = SGD(model.parameters(), lr=0.01)
    log = script.log(steps_per_epoch=8)
    log.watch(model, optimizer)
    for epoch in range(3):
        model.train()
        optimizer.zero_grad()
        for x, y in batches(8, seed=epoch):
            if not faulty:
                optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
    return weights(model)


@error(
    "meta-pytorch/torchforge/pull/71",
    "a fine-tuning recipe steps its optimizers and its scheduler and never clears the gradients",
    "gradients_not_cleared",
    first=2,
    again=True,
)
def recipe_without_zero_grad(script: Script, faulty: bool) -> Tensor:
    parts = [nn.Sequential(nn.Embedding(16, 8), nn.RMSNorm(8)), nn.Linear(8, 16, bias=False)]
    optimizers = [AdamW(part.parameters(), lr=1e-3, weight_decay=0.1) for part in parts]
    log = script.log()
    log.watch(parts, optimizers)
    for step in range(24):
        tokens = torch.randint(0, 16, (16,), generator=torch.Generator().manual_seed(step))
        logits = parts[1](parts[0](tokens))
        loss = F.cross_entropy(logits, (5 * tokens + 2) % 16)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            if not faulty:
                optimizer.zero_grad()
        log.step(loss=loss)
    return weights(*parts)


@error(
    "lucidrains/reformer-pytorch/issues/97",
    "accumulation: step() is called at each batch, and only clearing waits for the fourth",
    "gradients_not_cleared",
    "accumulation_*",
    "micro_*",
    first=1,
    again=True,
)
def steps_at_each_batch_of_a_window(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-3)
    log = script.log(accumulate=4)
    log.watch(model, optimizer, accumulate=4)
    for number, batch in enumerate(batches(96), start=1):
        loss = loss_of(model, batch)
        (loss / 4).backward()
        if faulty:
            optimizer.step()
        if number % 4 == 0:
            if not faulty:
                optimizer.step()
            model.zero_grad()
            log.step(loss=loss)
    return weights(model)


@error(
    "Lightning-AI/litgpt/pull/1947",
    "the number of micro-batches is worked out from the devices of one node: on two nodes a step is twice as large",
    "accumulation_*",
    "micro_*",
    first=1,
    note="two processes stand for two nodes of one device",
)
def nodes_left_out_of_the_accumulation(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        global_batch_size, micro_batch_size, devices, nodes = 32, 4, 1, script.world
        iterations = global_batch_size // devices // (1 if faulty else nodes) // micro_batch_size
        wrapped = DistributedDataParallel(mlp())
        optimizer = AdamW(wrapped.parameters(), lr=1e-2)
        log = script.log(world_size=script.world, accumulate=iterations)
        log.watch(wrapped, optimizer, accumulate=iterations, rank=script.rank, world=script.world)
        for number, batch in enumerate(batches(96, micro_batch_size, seed=1 + script.rank), start=1):
            loss = loss_of(wrapped, batch)
            (loss / iterations).backward()
            if number % iterations == 0:
                optimizer.step()
                optimizer.zero_grad()
                log.step(loss=loss)
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "Lightning-AI/pytorch-lightning/issues/19987",
    "an epoch ends within a window: its two micro-batches are divided by four all the same",
    "microbatch_weights",
    "micro_*",
    first=3,
    again=True,
    note="a loop that divides and steps as Lightning's does",
)
def rest_of_an_epoch_divided_by_four(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.2)
    log = script.log(accumulate=4)
    log.watch(model, optimizer, accumulate=4)
    for epoch in range(8):
        for number in range(10):
            window = 4 if number < 8 or faulty else 2
            loss = log.micro(loss_of(model, points(8, 100 * epoch + number)), items=8)
            (loss / window).backward()
            if number % 4 == 3 or number == 9:
                optimizer.step()
                optimizer.zero_grad()
                log.step(loss=loss)
    return weights(model)


@error(
    "modelscope/ms-swift/pull/10084",
    "compute_loss() divides the mean over tokens by the configured accumulation, also in the short window of an epoch",
    "microbatch_weights",
    "micro_*",
    first=2,
    again=True,
)
def short_window_by_the_configured_number(script: Script, faulty: bool) -> Tensor:
    model = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 16))
    optimizer = AdamW(model.parameters(), lr=1e-2, eps=1e-2)
    log = script.log(accumulate=4)
    log.watch(model, optimizer, accumulate=4)
    for epoch in range(10):
        rows = torch.randint(0, 16, (6, 2, 6), generator=torch.Generator().manual_seed(epoch))
        for window in (rows[:4], rows[4:]):
            for part in window:
                loss = log.micro(F.cross_entropy(model(part).flatten(0, 1), (part.flatten() + 1) % 16), items=12)
                (loss / (4 if faulty else len(window))).backward()
            optimizer.step()
            optimizer.zero_grad()
            log.step(loss=loss)
    return weights(model)


@error(
    "agokrani/distillKitPlus/issues/5",
    "distillation: the losses of all micro-batches are added up without a division by their number",
    "microbatch_weights",
    "micro_*",
    first=1,
    again=True,
)
def distillation_losses_added_up(script: Script, faulty: bool) -> Tensor:
    torch.manual_seed(3)
    teacher, student = mlp(24).requires_grad_(False).eval(), mlp(8)
    optimizer = SGD(student.parameters(), lr=0.1, momentum=0.9)
    log = script.log(accumulate=4)
    log.watch(student, optimizer, accumulate=4)
    for number, (x, y) in enumerate(batches(96), start=1):
        logits = student(x)
        soft = F.kl_div((logits / 2).log_softmax(1), (teacher(x) / 2).softmax(1), reduction="batchmean")
        loss = log.micro(0.5 * F.cross_entropy(logits, y) + 0.5 * 4 * soft, items=8)
        (loss if faulty else loss / 4).backward()
        if number % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
            log.step(loss=loss)
    return weights(student)


@error(
    "meta-pytorch/opacus/issues/93",
    "zero_grad() is called before each batch, virtual steps included: what they accumulated is erased",
    "micro_gradients_dropped",
    "micro_*",
    "accumulation_*",
    first=1,
    again=True,
)
def virtual_steps_erased(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = SGD(model.parameters(), lr=0.1)
    log = script.log(accumulate=4)
    log.watch(model, optimizer, accumulate=4)
    for number, batch in enumerate(batches(96)):
        if faulty or number % 4 == 0:
            optimizer.zero_grad()
        loss = loss_of(model, batch) / 4
        loss.backward()
        if number % 4 == 3:
            optimizer.step()
            log.step(loss=4 * loss)
    return weights(model)


def generator_and_judge() -> tuple[nn.Module, nn.Module]:
    judge = nn.Sequential(nn.Linear(FEATURES, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, FEATURES)), judge


@error(
    "Adversarial-Deep-Learning/code-soup/issues/69",
    "GAN.step() clears the generator and not the discriminator",
    "gradients_not_cleared",
    first=2,
    again=True,
)
def discriminator_not_cleared(script: Script, faulty: bool) -> Tensor:
    generator, judge = generator_and_judge()
    of_g, of_d = (Adam(part.parameters(), lr=2e-3, betas=(0.5, 0.999)) for part in (generator, judge))
    log = script.log()
    log.watch([generator, judge], [of_g, of_d])
    one, zero = torch.ones(8, 1), torch.zeros(8, 1)
    for x, _ in batches(24):
        if not faulty:
            judge.zero_grad()
        F.binary_cross_entropy_with_logits(judge(x), one).backward()
        fake = generator(torch.randn(8, 4))
        F.binary_cross_entropy_with_logits(judge(fake.detach()), zero).backward()
        of_d.step()
        generator.zero_grad()
        loss = F.binary_cross_entropy_with_logits(judge(fake), one)
        loss.backward()
        of_g.step()
        log.step(loss=loss)
    return weights(generator, judge)


@error(
    "ajbrock/BigGAN-PyTorch/issues/25",
    "of several steps of the discriminator to one of the generator only the first has clean gradients",
    "gradients_not_cleared",
    first=1,
    again=True,
)
def not_cleared_between_discriminator_steps(script: Script, faulty: bool) -> Tensor:
    generator, judge = generator_and_judge()
    of_g, of_d = (Adam(part.parameters(), lr=2e-3, betas=(0.0, 0.999)) for part in (generator, judge))
    log = script.log()
    log.watch([generator, judge], [of_g, of_d])
    for step in range(24):
        of_g.zero_grad()
        of_d.zero_grad()
        for turn in range(2):
            if not faulty:
                of_d.zero_grad()
            x, _ = points(8, 10 * step + turn)
            fake = generator(torch.randn(8, 4)).detach()
            (F.relu(1 - judge(x)).mean() + F.relu(1 + judge(fake)).mean()).backward()
            of_d.step()
        of_g.zero_grad()
        loss = -judge(generator(torch.randn(8, 4))).mean()
        loss.backward()
        of_g.step()
        log.step(loss=loss)
    return weights(generator, judge)


@error(
    "yandex-research/tabm/issues/20",
    "an example's loop clips in front of backward(): there is nothing to clip yet",
    "clip_missing",
    "clip_*",
    first=1,
    again=True,
)
def clipped_in_front_of_backward(script: Script, faulty: bool) -> Tensor:
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-2, eps=1e-2)
    log = script.log()
    log.watch(model, optimizer, clip=0.1)
    for batch in batches(24):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        if faulty:
            clip_grad_norm_(model.parameters(), 0.1)
        loss.backward()
        if not faulty:
            clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "areal-project/AReaL/issues/312",
    "the gradient norm is that of each rank's shard: what is clipped depends on the number of ranks",
    "clip_*",
    first=1,
)
def norm_of_a_shard(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        model = mlp()
        fully_shard(model, mesh=init_device_mesh("cpu", (script.world,)))
        optimizer = SGD(model.parameters(), lr=0.3)
        log = script.log(world_size=script.world)
        log.watch(model, optimizer, clip=0.05, rank=script.rank, world=script.world)
        for batch in batches(24, seed=1 + script.rank):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            shards = [p.grad.to_local() for p in model.parameters()]
            square = torch.stack([shard.square().sum() for shard in shards]).sum()
            if not faulty:
                dist.all_reduce(square)
            factor = (0.05 / (square.sqrt() + 1e-6)).clamp(max=1)
            for shard in shards:
                shard.mul_(factor)
            optimizer.step()
            log.step(loss=loss)
        dist.barrier()
        return torch.cat([p.full_tensor().detach().reshape(-1).double() for p in model.parameters()])

    return script.on_ranks(play)


def clip(parameters: Iterable[Tensor], limit: float) -> None:
    """Clip by the norm over the gradients of an iterable that is read once; nothing where nothing is left in it."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.stack([g.norm() for g in grads]).norm() if grads else torch.zeros(())
    for g in grads:
        g.mul_((limit / (norm + 1e-6)).clamp(max=1))


@error(
    "fla-org/flame/issues/20",
    "with accumulation the clipping gets an iterator that the micro-batches have used up: the norm is always zero",
    "clip_missing",
    "clip_*",
    first=1,
    again=True,
)
def clipping_of_an_empty_list(script: Script, faulty: bool) -> Tensor:
    parts = [nn.Linear(FEATURES, 16), nn.Sequential(nn.ReLU(), nn.Linear(16, CLASSES))]
    model = nn.Sequential(*parts)
    optimizer = SGD(model.parameters(), lr=0.3, momentum=0.9)
    log = script.log(accumulate=2)
    log.watch(model, optimizer, accumulate=2, clip=0.1)
    for step in range(24):
        optimizer.zero_grad()
        held: Iterable[Tensor] = itertools.chain(*(part.parameters() for part in parts))
        if not faulty:
            held = list(held)
        for part in range(2):
            loss = loss_of(model, points(8, 10 * step + part)) / 2
            loss.backward()
            if any(not p.grad.isfinite().all() for p in held):
                raise RuntimeError("a gradient is not finite")
        clip(held, 0.1)
        optimizer.step()
        log.step(loss=2 * loss)
    return weights(model)

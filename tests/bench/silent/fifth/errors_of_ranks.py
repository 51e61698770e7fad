"""Errors of several processes, of precision and scales, and of what is computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW
from torch.utils.checkpoint import checkpoint

from tests.bench.silent.case import error
from tests.bench.silent.script import Script
from tests.bench.silent.toy import CLASSES, FEATURES, batches, loss_of, mlp, update, weights


@error(
    "huggingface/trl/issues/5282",
    "distillation unwraps the student for a fused loss: its gradients are not averaged",
    "replicas_differ",
    first=1,
    again=True,
)
def student_unwrapped_for_the_loss(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        torch.manual_seed(1)
        teacher = mlp(24).requires_grad_(False)
        student = DistributedDataParallel(mlp())
        optimizer = AdamW(student.parameters(), lr=5e-3)
        log = script.log(world_size=script.world)
        log.watch(student, optimizer, rank=script.rank, world=script.world)
        for x, _ in batches(24, seed=1 + script.rank):
            optimizer.zero_grad()
            called = student.module if faulty else student
            loss = F.kl_div(called(x).log_softmax(1), teacher(x).softmax(1), reduction="batchmean")
            loss.backward()
            optimizer.step()
            log.step(loss=loss)
        return weights(student)

    return script.on_ranks(play)


@error(
    "Lightning-AI/pytorch-lightning/issues/16166",
    "a GAN in two processes of one seed: all of them draw the same latent vectors",
    "ranks_draw_*",
    "ranks_*",
    first=1,
    again=True,
)
def one_latent_vector_for_all_ranks(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        generator = DistributedDataParallel(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, FEATURES)))
        judge = DistributedDataParallel(nn.Sequential(nn.Linear(FEATURES, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)))
        of_g, of_d = (Adam(part.parameters(), lr=2e-3, betas=(0.5, 0.999)) for part in (generator, judge))
        torch.manual_seed(21 if faulty else 21 + script.rank)
        log = script.log(world_size=script.world)
        log.watch([generator, judge], [of_g, of_d], rank=script.rank, world=script.world)
        for x, _ in batches(24, seed=1 + script.rank):
            z = torch.randn(len(x), 4)
            of_d.zero_grad()
            scores = judge(torch.cat([x, generator(z).detach()]))
            (F.softplus(-scores[:8]).mean() + F.softplus(scores[8:]).mean()).backward()
            of_d.step()
            of_g.zero_grad()
            loss = F.softplus(-judge(generator(z))).mean()
            loss.backward()
            of_g.step()
            log.step(loss=loss)
        return weights(generator, judge)

    return script.on_ranks(play)


@error(
    "tfzhou/ProtoSeg/issues/11",
    "each process has the seed of the arguments: augmentations and dropout are the same in all",
    "ranks_draw_*",
    "ranks_*",
    first=1,
    again=True,
)
def seed_of_the_arguments_on_each_rank(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        torch.manual_seed(304 + (0 if faulty else script.rank))
        wrapped = DistributedDataParallel(mlp(dropout=0.3))
        optimizer = SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
        log = script.log(world_size=script.world)
        log.watch(wrapped, optimizer, rank=script.rank, world=script.world)
        for x, y in batches(24, seed=1 + script.rank):
            shifted = x + 0.2 * torch.randn(len(x), 1)
            log.step(loss=update(wrapped, optimizer, (shifted, y)))
        return weights(wrapped)

    return script.on_ranks(play)


@error(
    "Helsinki-NLP/FoTraNMT/pull/45",
    "gradients are averaged by hand, and the weights that each process drew for itself are not broadcast",
    "replicas_differ",
    first=1,
    again=True,
)
def shared_components_not_broadcast(script: Script, faulty: bool) -> Tensor:
    def play(script: Script) -> Tensor:
        torch.manual_seed(50 + script.rank)
        model = mlp()
        if not faulty:
            for p in model.parameters():
                dist.broadcast(p.data, 0)
        optimizer = Adam(model.parameters(), lr=1e-2)
        log = script.log(world_size=script.world)
        log.watch(model, optimizer, rank=script.rank, world=script.world)
        log.replica()
        for batch in batches(24, seed=1 + script.rank):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            for p in model.parameters():
                dist.all_reduce(p.grad)
                p.grad /= script.world
            optimizer.step()
            log.step(loss=loss)
        return weights(model)

    return script.on_ranks(play)


@error(
    "huggingface/accelerate/issues/439",
    "scaler.update() is called after each of two optimizers: the scale grows between their steps",
    "scaler_*",
    "unscale_*",
    "gradient_scale*",
    "update_differs",
    first=2,
)
def scale_grows_between_two_optimizers(script: Script, faulty: bool) -> Tensor:
    models = [mlp(), mlp(8)]
    optimizers = [SGD(model.parameters(), lr=0.1) for model in models]
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)
    log = script.log()
    log.watch(models, optimizers, scaler=scaler)
    for x, y in batches(24):
        for model, optimizer in zip(models, optimizers):
            optimizer.zero_grad()
            scaler.scale(F.cross_entropy(model(x), y)).backward()
        for optimizer in optimizers:
            scaler.step(optimizer)
            if faulty:
                scaler.update()
        if not faulty:
            scaler.update()
        with torch.no_grad():
            loss = F.cross_entropy(models[0](x), y)
        log.step(loss=loss)
    return weights(*models)


@error(
    "NVIDIA-NeMo/Automodel/pull/3444",
    "a recipe fine-tunes weights in bfloat16 by AdamW at a small rate: most steps round to nothing",
    "update_rounded_away",
    first=1,
    again=True,
)
def small_rate_on_bfloat16_weights(script: Script, faulty: bool) -> Tensor:
    model = mlp().bfloat16()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.sign() * (4 * p.abs() + 0.5))
    masters = [p.detach().float().clone().requires_grad_() for p in model.parameters()]
    optimizer = AdamW(model.parameters() if faulty else masters, lr=6e-5, weight_decay=0.0)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(26):
        model.zero_grad()
        loss = F.cross_entropy(model(x.bfloat16()).float(), y)
        loss.backward()
        if faulty:
            optimizer.step()
        else:
            for master, p in zip(masters, model.parameters()):
                master.grad = p.grad.float()
            optimizer.step()
            with torch.no_grad():
                for master, p in zip(masters, model.parameters()):
                    p.copy_(master)
        log.step(loss=loss)
    held = list(model.parameters()) if faulty else masters
    return torch.cat([p.detach().double().reshape(-1) for p in held])


class Block(nn.Module):
    """A residual block with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def recomputed(script: Script, run: Callable[[nn.Module, Tensor], Tensor], optimizer_class: Any) -> Tensor:
    """A network of two blocks, each run by `run(block, x)`."""
    first, head = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)
    blocks = nn.ModuleList([Block(), Block()])
    model = nn.ModuleDict({"first": first, "blocks": blocks, "head": head})
    optimizer = optimizer_class(model.parameters(), lr=1e-2)
    log = script.log()
    log.watch(model, optimizer)
    for x, y in batches(24):
        optimizer.zero_grad()
        hidden = first(x)
        for block in blocks:
            hidden = run(block, hidden)
        loss = F.cross_entropy(head(hidden), y)
        loss.backward()
        optimizer.step()
        log.step(loss=loss)
    return weights(model)


@error(
    "allenai/OLMo-core/pull/828",
    "preserve_rng_state=False is fixed for checkpointing, and the model has dropout: the second masks are others",
    "recomputation_draws",
    first=1,
    again=True,
)
def masks_drawn_anew_in_backward(script: Script, faulty: bool) -> Tensor:
    def run(block: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(block, x, use_reentrant=False, preserve_rng_state=not faulty)

    return recomputed(script, run, AdamW)


class Recomputed(torch.autograd.Function):
    """A checkpoint of one's own, as diffusion models have it; `same`: the generator is put back for the second run."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, block: nn.Module, same: bool, *params: Tensor) -> Tensor:
        ctx.block, ctx.params = block, params
        ctx.state = torch.get_rng_state() if same else None
        ctx.save_for_backward(x)
        return block(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        now = torch.get_rng_state()
        if ctx.state is not None:
            torch.set_rng_state(ctx.state)
        with torch.enable_grad():
            out = ctx.block(x)
        if ctx.state is not None:
            torch.set_rng_state(now)
        of_x, *of_params = torch.autograd.grad(out, [x, *ctx.params], grads[0])
        return of_x, None, None, *of_params


@error(
    "ankanbhunia/PIDM/pull/66",
    "the network's own checkpoint does not put the generator back: dropout lets other elements through in backward()",
    "recomputation_draws",
    first=1,
    again=True,
)
def own_checkpoint_draws_anew(script: Script, faulty: bool) -> Tensor:
    def run(block: nn.Module, x: Tensor) -> Tensor:
        return Recomputed.apply(x, block, not faulty, *block.parameters())

    return recomputed(script, run, SGD)

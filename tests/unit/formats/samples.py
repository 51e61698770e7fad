"""Logs of a few lines, written in the form that each framework prints, with what is in them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eegwatch.formats import find
from eegwatch.run.follow import ForeignLog, RunFollower
from eegwatch.run.history import History


@dataclass(frozen=True)
class Sample:
    """`steps`, `loss`, `lr`: of the training records; `evals`: (step, split, values) each; `total` of the run."""

    name: str
    file: str
    text: str
    steps: list[int]
    loss: list[float] | None = None
    lr: list[float] | None = None
    evals: list[tuple[int, str, dict[str, float]]] = field(default_factory=list)
    total: int | None = None
    metrics: dict[str, list[float]] = field(default_factory=dict)
    lrs: list[list[float]] | None = None
    kind: str | None = None

    def write(self, folder: Path) -> Path:
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.text)
        return path


def read(path: Path, patterns: Any = ()) -> tuple[ForeignLog, RunFollower, History]:
    """All of a log, as `eegwatch check` reads it."""
    foreign = find(path, patterns)
    assert foreign is not None
    follower, history = RunFollower(foreign.follow()), History()
    drain(follower, history)
    follower.close()
    return foreign, follower, history


def drain(follower: RunFollower, history: History) -> None:
    """All that is there now; what was read of a file that is read anew is forgotten."""
    while True:
        items = follower.poll(1 << 18)
        if follower.began_anew:
            history.clear()
        for item in items:
            history.append(item)
        if not follower.behind:
            return


def content(history: History) -> dict[str, Any]:
    """What a history holds, without the times at which a log without a clock was looked at."""
    return {
        "steps": history.step.tolist(),
        "loss": [None if math.isnan(x) else x for x in history.loss.tolist()],
        "lr": [None if math.isnan(x) else x for x in history.lr.tolist()],
        "lrs": None if history.lrs is None else str(history.lrs.tolist()),
        "norm": [None if math.isnan(x) else x for x in history.grad_norm.tolist()],
        "metrics": {n: (s.step.tolist(), [str(v) for v in s.value]) for n, s in sorted(history.metrics.items())},
        "evals": [(e.step, e.split, {n: str(v) for n, v in sorted(e.values().items())}) for e in history.evals],
        "total": history.run.total_steps if history.run else None,
        "attempts": len({run.attempt for run in history.attempts}),
    }


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


BAR = " {share}%|███   | {n}/{of} [00:{n:02d}<01:00,  1.70s/it]"


def bar(n: int, of: int) -> str:
    return f"\r {100 * n // of:2d}%|███▌      | {n}/{of} [00:{n % 60:02d}<00:30,  1.70it/s]"


TEXT = [
    Sample("nanoGPT", "out.log",
        "step 0: train loss 4.2, val loss 4.3\niter 0: loss 4.25, time 65940.03ms, mfu -100.00%\n"
        "iter 10: loss 3.25, time 52.57ms, mfu 7.09%\nstep 20: train loss 2.5, val loss 2.75\niter 20: loss 2.5, time 53ms, mfu 7%\n",
        [1, 11, 21], [4.25, 3.25, 2.5],
        evals=[(0, "val", {"loss": 4.3, "train_loss": 4.2}), (21, "val", {"loss": 2.75, "train_loss": 2.5})]),
    Sample("llm.c stdout", "run.txt",
        "step    1/19560 | train loss 10.50 | norm 15.2500 | lr 8.57e-07 | 1000.10 ms | 51.2% bf16 MFU | 524000 tok/s\n"
        "step    2/19560 | train loss 10.25 | norm 14.5000 | lr 1.71e-06 | 1000.20 ms | 51.2% bf16 MFU | 524000 tok/s\n",
        [1, 2], [10.5, 10.25], [8.57e-07, 1.71e-06], total=19560),
    Sample("llm.c main.log", "main.log", "s:0 tel:10.75\ns:1 trl:10.5 lr:0.0005 norm:2.5\ns:2 trl:10.25 lr:0.00025 norm:2.25\ns:2 eval:0.25\n",
        [1, 2], [10.5, 10.25], [5e-4, 2.5e-4], evals=[(0, "val", {"loss": 10.75}), (2, "val", {"hellaswag": 0.25})]),
    Sample("modded-nanoGPT", "a.txt", "import torch\nstep:0/100 val_loss:10.5 train_time:0ms step_avg:nanms\nstep:1/100 train_time:100ms step_avg:100ms\nstep:50/100 val_loss:4.5 train_time:5000ms step_avg:100.00ms\n",
        [], evals=[(0, "val", {"loss": 10.5}), (50, "val", {"loss": 4.5})], total=100),
    Sample("DeepSpeed", "train.log",
        "[2023-04-18 01:46:59,142] [INFO] [logging.py:96:log_dist] [Rank 0] step=10, skipped=6, lr=[5e-06, 2.5e-06], mom=[(0.9, 0.95), (0.9, 0.95)]\n"
        "[2023-04-18 01:46:59,171] [INFO] [timer.py:199:stop] epoch=0/micro_step=10/global_step=10, RunningAvgSamplesPerSec=173.5, MemAllocated=3.96GB\n"
        "[2023-04-18 01:47:06,590] [INFO] [logging.py:96:log_dist] [Rank 0] step=20, skipped=6, lr=[4e-06, 2e-06], mom=[(0.9, 0.95), (0.9, 0.95)]\n"
        "***** Evaluating perplexity, Epoch 1/16 *****\nppl: 2.25\n",
        [10, 20], lr=[5e-6, 4e-6], lrs=[[5e-6, 2.5e-6], [4e-6, 2e-6]], evals=[(20, "val", {"ppl": 2.25})]),
    Sample("DeepSpeed-Chat", "training.log",
        "epoch: 0|step: 0|ppo_ep: 1|act_loss: 0.25|cri_loss: 0.125|unsuper_loss: 0.0\naverage reward score: 3.5\n"
        "epoch: 0|step: 1|ppo_ep: 1|act_loss: 0.5|cri_loss: 0.0625|unsuper_loss: 0.0\naverage reward score: 3.75\n",
        [1, 2], [0.25, 0.5], metrics={"cri_loss": [0.125, 0.0625], "reward": [3.5, 3.75]}),
    Sample("Megatron", "log.out",
        " iteration      100/  500000 | consumed samples:          800 | elapsed time per iteration (ms): 1234.5 | learning rate: 1.500E-05 | global batch size:     8 | lm loss: 9.5E+00 | loss scale: 1.0 | grad norm: 3.25 | number of skipped iterations:   0 | number of nan iterations:   0 |\n"
        " iteration      200/  500000 | consumed samples:         1600 | elapsed time per iteration (ms): 1234.5 | learning rate: 3.000E-05 | global batch size:     8 | lm loss: 8.5E+00 | loss scale: 1.0 | grad norm: 2.25 | number of skipped iterations:   0 | number of nan iterations:   0 |\n"
        " validation loss at iteration 200 | lm loss value: 8.25E+00 | lm loss PPL: 3.8E+03 |\n",
        [100, 200], [9.5, 8.5], [1.5e-5, 3e-5], total=500000, evals=[(200, "val", {"loss": 8.25, "lm loss PPL": 3800.0})]),
    Sample("torchtitan", "train.txt",
        "\x1b[36m[titan] 2025-01-01 10:00:00,000 - root - INFO - \x1b[0mstep:  1  \x1b[32mloss:  8.25  \x1b[33mmemory:  0.98GiB(1.03%)  \x1b[34mtps: 1,234  \x1b[35mmfu: 1.5%\x1b[39m\n"
        "\x1b[36m[titan] 2025-01-01 10:00:10,000 - root - INFO - \x1b[0mstep: 10  \x1b[32mloss:  7.25  \x1b[33mmemory:  0.98GiB(1.03%)  \x1b[34mtps: 5,678  \x1b[35mmfu: 2.5%\x1b[39m\n",
        [1, 10], [8.25, 7.25]),
    Sample("NeMo 2", "nemo.log",
        "Training epoch 0, iteration 0/99 | lr: 1.5e-06 | global_batch_size: 8 | global_step: 0 | reduced_train_loss: 11.25 | train_step_timing in s: 9.5 | consumed_samples: 8\n"
        "Training epoch 0, iteration 1/99 | lr: 3e-06 | global_batch_size: 8 | global_step: 1 | reduced_train_loss: 10.75 | train_step_timing in s: 1.5 | consumed_samples: 16\n",
        [1, 2], [11.25, 10.75], [1.5e-6, 3e-6]),
    Sample("ESPnet", "train.log",
        "[host] 2024-01-01 10:00:00,000 (trainer:756) INFO: 1epoch:train:1-100batch: iter_time=1.2e-04, forward_time=0.1, loss_ctc=50.5, loss=48.5, acc=0.25, optim0_lr0=2.0e-06, train_time=1.2\n"
        "[host] 2024-01-01 10:10:00,000 (trainer:756) INFO: 1epoch:train:101-200batch: iter_time=1.2e-04, forward_time=0.1, loss_ctc=40.5, loss=38.5, acc=0.5, optim0_lr0=4.0e-06, train_time=1.2\n"
        "[host] 2024-01-01 10:11:00,000 (trainer:354) INFO: 1epoch results: [train] iter_time=1e-4, loss=43.5, acc=0.4, time=1 minute, total_count=200, [valid] loss_ctc=30.5, loss=28.5, acc=0.75, time=5 seconds\n"
        "[host] 2024-01-01 10:12:00,000 (trainer:756) INFO: 2epoch:train:1-100batch: iter_time=1.2e-04, loss_ctc=30.5, loss=28.25, acc=0.75, optim0_lr0=6.0e-06\n",
        [100, 200, 300], [48.5, 38.5, 28.25], [2e-6, 4e-6, 6e-6], evals=[(200, "val", {"loss": 28.5, "acc": 0.75, "time": 5.0, "loss_ctc": 30.5})]),
    Sample("fairseq", "train.txt",
        "2022-12-15 23:55:27 | INFO | train_inner | epoch 001:    100 / 250 loss=12.5, nll_loss=12.25, ppl=5000, wps=16752.6, num_updates=100, lr=1.25e-05, gnorm=2.5, wall=21\n"
        "2022-12-15 23:56:27 | INFO | train_inner | epoch 001:    200 / 250 loss=10.5, nll_loss=10.25, ppl=1200, wps=16752.6, num_updates=200, lr=2.5e-05, gnorm=1.5, wall=42\n"
        "2022-12-15 23:57:27 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 9.5 | nll_loss 9.25 | ppl 600.5 | num_updates 250\n"
        "2022-12-15 23:57:28 | INFO | train | epoch 001 | loss 11.2 | nll_loss 11 | num_updates 250 | lr 3.1e-05 | gnorm 2\n"
        "2022-12-15 23:58:27 | INFO | train_inner | epoch 002:     50 / 250 loss=9.25, nll_loss=9.125, ppl=500, wps=16752.6, num_updates=300, lr=3.75e-05, gnorm=1.25, wall=63\n",
        [100, 200, 300], [12.5, 10.5, 9.25], [1.25e-5, 2.5e-5, 3.75e-5],
        evals=[(250, "val", {"loss": 9.5, "nll_loss": 9.25, "ppl": 600.5})]),
    Sample("fairseq JSON", "hydra_train.log",
        '[2023-11-21 20:00:00,000][train_inner][INFO] - {"epoch": 1, "update": 0.4, "loss": "11.5", "ppl": "3000", "num_updates": "200", "lr": "3e-06", "gnorm": "2.5"}\n'
        '[2023-11-21 20:10:00,000][valid][INFO] - {"epoch": 1, "valid_loss": "8.5", "valid_ppl": "400.5", "valid_num_updates": "300"}\n'
        '[2023-11-21 20:11:00,000][train][INFO] - {"epoch": 1, "train_loss": "9.9", "train_num_updates": "300", "train_lr": "5e-06"}\n'
        '[2023-11-21 20:20:00,000][train_inner][INFO] - {"epoch": 2, "update": 1.2, "loss": "9.5", "ppl": "1000", "num_updates": "400", "lr": "6e-06", "gnorm": "1.5"}\n',
        [200, 400], [11.5, 9.5], [3e-6, 6e-6], evals=[(300, "val", {"loss": 8.5, "ppl": 400.5})]),
    Sample("Hugging Face console", "nohup.out",
        "***** Running training *****\n  Num Epochs = 3\n  Total optimization steps = 30\n" + bar(4, 30) + bar(5, 30)
        + "\r                                 \r{'loss': 1.5, 'grad_norm': 2.5, 'learning_rate': 4e-05, 'epoch': 0.5}\n" + bar(5, 30) + bar(9, 30)
        + "\r                                 \r{'loss': '1.25', 'grad_norm': '1.5', 'learning_rate': '3e-05', 'epoch': '1.0'}\n" + bar(10, 30)
        + "\r  0%|          | 0/7 [00:00<?, ?it/s]" + bar(7, 7)
        + "\n{'eval_loss': 1.125, 'eval_accuracy': 0.75, 'eval_runtime': 3.5, 'epoch': 1.0}\n" + bar(10, 30) + bar(30, 30)
        + "\n{'train_runtime': 99.5, 'train_samples_per_second': 3.0, 'train_loss': 1.3, 'epoch': 3.0}\n",
        [5, 10], [1.5, 1.25], [4e-5, 3e-5], total=30,
        evals=[(10, "val", {"loss": 1.125, "accuracy": 0.75, "runtime": 3.5})]),
    Sample("MetricLogger", "train.out",
        "Start training\nEpoch: [0]  [  0/625]  eta: 0:10:00  lr: 0.000010  loss: 2.5000 (2.5000)  time: 0.95  data: 0.1  max mem: 9000\n"
        "Epoch: [0]  [200/625]  eta: 0:07:00  lr: 0.000020  loss: 2.0000 (2.2000)  time: 0.95  data: 0.1  max mem: 9000\n"
        "Epoch: [0] Total time: 0:10:00 (0.95 s / it)\nAveraged stats: lr: 0.000020  loss: 2.0000 (2.1000)\n"
        "Test:  [ 0/20]  eta: 0:00:10  loss: 1.5 (1.5)  acc1: 50.0 (50.0)\n* Acc@1 62.5 Acc@5 87.5 loss 1.25\n"
        "Epoch: [1]  [  0/625]  eta: 0:10:00  lr: 0.000030  loss: 1.7500 (1.7500)  time: 0.95  data: 0.1  max mem: 9000\n",
        [1, 201, 626], [2.5, 2.0, 1.75], [1e-5, 2e-5, 3e-5], evals=[(201, "val", {"Acc@1": 62.5, "Acc@5": 87.5, "loss": 1.25})]),
    Sample("Swin", "log_rank0.txt",
        "[2024-09-24 09:36:48 swin_tiny] (main.py 188): INFO Train: [0/50][0/100]\teta 0:08:30 lr 0.000001\ttime 85.06 (85.06)\ttot_loss 7.0 (7.0)\tmem 900MB\n"
        "[2024-09-24 09:37:48 swin_tiny] (main.py 188): INFO Train: [0/50][50/100]\teta 0:08:30 lr 0.000002\ttime 85.06 (85.06)\ttot_loss 6.5 (6.7)\tmem 900MB\n"
        "[2024-09-24 09:38:48 swin_tiny] (main.py 188): INFO Train: [1/50][0/100]\teta 0:08:30 lr 0.000003\ttime 85.06 (85.06)\ttot_loss 6.0 (6.0)\tmem 900MB\n",
        [1, 51, 101], [7.0, 6.5, 6.0], [1e-6, 2e-6, 3e-6], total=5000),
    Sample("timm log", "timm.log",
        "Train: 0 [   0/1251 (  0%)]  Loss: 6.50 (6.50)  Time: 3.1s,  330.5/s  (3.1s,  330.5/s)  LR: 1.000e-06  Data: 1.5 (1.5)\n"
        "Train: 0 [  50/1251 (  4%)]  Loss: 6.25 (6.40)  Time: 0.4s, 2330.5/s  (0.5s, 2100.5/s)  LR: 2.000e-06  Data: 0.0 (0.1)\n"
        "Test: [   0/48]  Time: 1.5 (1.5)  Loss:  0.75 (0.75)  Acc@1: 75.0 (75.0)  Acc@5: 93.75 (93.75)\n"
        "Train: 1 [   0/1251 (  0%)]  Loss: 6.00 (6.00)  Time: 3.1s,  330.5/s  (3.1s,  330.5/s)  LR: 3.000e-06  Data: 1.5 (1.5)\n",
        [1, 51, 1252], [6.5, 6.25, 6.0], [1e-6, 2e-6, 3e-6]),
    Sample("YOLOX", "train_log.txt",
        "2021-09-03 20:17:51.976 | INFO     | yolox.core.trainer:after_iter:246 - epoch: 1/300, iter: 10/47, mem: 1491Mb, iter_time: 0.487s, data_time: 0.002s, total_loss: 10.5, iou_loss: 1.9, l1_loss: 0.0, conf_loss: 4.9, cls_loss: 4.0, lr: 7.5e-06, size: 640, ETA: 1:54:27\n"
        "2021-09-03 20:17:53.882 | INFO     | yolox.core.trainer:after_iter:246 - epoch: 1/300, iter: 40/47, mem: 1491Mb, iter_time: 0.191s, data_time: 0.000s, total_loss: 9.5, iou_loss: 2.4, l1_loss: 0.0, conf_loss: 6.2, cls_loss: 1.5, lr: 2.5e-05, size: 480, ETA: 1:19:32\n"
        "2021-09-03 20:18:53.882 | INFO     | yolox.core.trainer:after_iter:246 - epoch: 2/300, iter: 10/47, mem: 1491Mb, iter_time: 0.191s, data_time: 0.000s, total_loss: 8.5, iou_loss: 2.4, l1_loss: 0.0, conf_loss: 6.2, cls_loss: 1.5, lr: 5e-05, size: 480, ETA: 1:19:32\n",
        [10, 40, 57], [10.5, 9.5, 8.5], [7.5e-6, 2.5e-5, 5e-5], total=14100),
    Sample("SlowFast", "stdout.log",
        'json_stats: {"RAM": "14.27/31.07G", "_type": "train_epoch", "dt": 0.5, "epoch": "1/200", "eta": "5:31:04", "gpu_mem": "17.84G", "grad_norm": 3.5, "loss": 2.75, "lr": 0.0000085, "top1_acc": 6.5}\n'
        'json_stats: {"RAM": "14.27/31.07G", "_type": "val_epoch", "epoch": "1/200", "gpu_mem": "17.84G", "min_top1_err": 79.5, "time_diff": 0.5, "top1_acc": 20.5}\n'
        'json_stats: {"RAM": "14.27/31.07G", "_type": "train_epoch", "dt": 0.5, "epoch": "2/200", "eta": "5:31:04", "gpu_mem": "17.84G", "grad_norm": 3.25, "loss": 2.5, "lr": 0.0000150, "top1_acc": 10.5}\n',
        [1, 2], [2.75, 2.5], [8.5e-6, 1.5e-5], total=200,
        evals=[(1, "val", {"min_top1_err": 79.5, "time_diff": 0.5, "top1_acc": 20.5})]),
    Sample("detectron2 text", "log.txt",
        "[10/24 18:20:12 d2.utils.events]:  eta: 0:12:33  iter: 19  total_loss: 2.5  loss_cls: 0.9  time: 0.4240  data_time: 0.01  lr: 1.6e-05  max_mem: 2690M\n"
        "[10/24 18:20:22 d2.utils.events]:  eta: 0:12:23  iter: 39  total_loss: 2.25  loss_cls: 0.8  time: 0.4240  last_time: 0.42  data_time: 0.01  lr: 3.2e-05  max_mem: 2690M\n"
        "[10/24 18:20:32 d2.evaluation.testing]: copypaste: Task: bbox\n[10/24 18:20:32 d2.evaluation.testing]: copypaste: AP,AP50\n[10/24 18:20:32 d2.evaluation.testing]: copypaste: 3.25,6.5\n",
        [19, 39], [2.5, 2.25], [1.6e-5, 3.2e-5], evals=[(39, "val", {"bbox/AP": 3.25, "bbox/AP50": 6.5})]),
    Sample("mmcv text", "20210101_100000.log",
        "2021-01-01 10:00:00,000 - mmdet - INFO - Epoch [1][50/100]\tlr: 1.5e-03, eta: 10:00:00, time: 0.5, data_time: 0.05, memory: 3000, loss_cls: 0.5, acc: 93.5, loss: 1.5, grad_norm: 8.5\n"
        "2021-01-01 10:01:00,000 - mmdet - INFO - Epoch [1][100/100]\tlr: 2.5e-03, eta: 10:00:00, time: 0.5, data_time: 0.05, memory: 3000, loss_cls: 0.4, acc: 94.5, loss: 1.25, grad_norm: 7.5\n"
        "2021-01-01 10:02:00,000 - mmdet - INFO - Epoch(val) [1][20]\tbbox_mAP: 0.25, bbox_mAP_50: 0.5\n"
        "2021-01-01 10:03:00,000 - mmdet - INFO - Epoch [2][50/100]\tlr: 3.5e-03, eta: 10:00:00, time: 0.5, data_time: 0.05, memory: 3000, loss_cls: 0.3, acc: 95.5, loss: 1.0, grad_norm: 6.5\n",
        [50, 100, 150], [1.5, 1.25, 1.0], [1.5e-3, 2.5e-3, 3.5e-3], evals=[(100, "val", {"bbox_mAP": 0.25, "bbox_mAP_50": 0.5})]),
    Sample("mmengine text", "20230101_100000.log",
        "01/01 10:00:00 - mmengine - INFO - Epoch(train)  [1][ 10/728]  lr: 4.0e-08  eta: 1:00:00  time: 0.5  data_time: 0.1  memory: 900  loss: 0.5  loss_kpt: 0.5\n"
        "01/01 10:00:05 - mmengine - INFO - Epoch(train)  [1][ 20/728]  lr: 8.0e-08  eta: 1:00:00  time: 0.5  data_time: 0.1  memory: 900  loss: 0.25  loss_kpt: 0.25\n"
        "01/01 10:01:05 - mmengine - INFO - Epoch(val) [1][10/10]    coco/AP: 0.125  coco/AP50: 0.25  data_time: 0.1  time: 0.2\n",
        [10, 20], [0.5, 0.25], [4e-8, 8e-8], evals=[(20, "val", {"coco/AP": 0.125, "coco/AP50": 0.25, "data_time": 0.1, "time": 0.2})]),
    Sample("PaddleClas", "train.log",
        "[2022/05/06 09:45:51] ppcls INFO: [Train][Epoch 1/2][Iter: 0/100]lr(LinearWarmup): 0.00000100, top1: 0.0, CELoss: 6.75, loss: 6.75, batch_cost: 1.5s\n"
        "[2022/05/06 09:46:51] ppcls INFO: [Train][Epoch 1/2][Iter: 50/100]lr(LinearWarmup): 0.00000200, top1: 0.5, CELoss: 6.5, loss: 6.5, batch_cost: 1.5s\n"
        "[2022/05/06 09:47:51] ppcls INFO: [Train][Epoch 2/2][Iter: 0/100]lr(LinearWarmup): 0.00000300, top1: 1.0, CELoss: 6.25, loss: 6.25, batch_cost: 1.5s\n",
        [1, 51, 101], [6.75, 6.5, 6.25], [1e-6, 2e-6, 3e-6], total=200),
    Sample("YOLO console", "nohup.out",
        "      Epoch    GPU_mem   box_loss   obj_loss   cls_loss  Instances       Size\n"
        "        0/2      2.3G     0.5000     0.2500     0.1250         45        640:  50%|█████     | 25/50 [00:05<00:05]\r"
        "        0/2      2.3G     0.2500     0.1250     0.1250         45        640: 100%|██████████| 50/50 [00:10<00:00]\n"
        "                 Class     Images  Instances          P          R      mAP50   mAP50-95: 100%|██████████| 4/4 [00:01<00:00]\n"
        "                   all        128        929      0.5      0.25     0.125     0.0625\n"
        "        1/2      2.3G     0.1250     0.1250     0.1250         45        640: 100%|██████████| 50/50 [00:10<00:00]\n",
        [1, 2], [0.5, 0.375], total=3, evals=[(1, "val", {"P": 0.5, "R": 0.25, "mAP50": 0.125, "mAP50-95": 0.0625})]),
    Sample("Stable-Baselines3 console", "ppo.log",
        "---------------------------------\n| rollout/           |          |\n|    ep_rew_mean     | 21.5     |\n| time/              |          |\n|    total_timesteps | 2048     |\n| train/             |          |\n|    learning_rate   | 0.0003   |\n|    loss            | 8.5      |\n|    value_loss      | 17.5     |\n---------------------------------\n"
        "---------------------------------\n| rollout/           |          |\n|    ep_rew_mean     | 22.5     |\n| time/              |          |\n|    total_timesteps | 4096     |\n| train/             |          |\n|    learning_rate   | 0.0003   |\n|    loss            | 7.5      |\n|    value_loss      | 16.5     |\n---------------------------------\n",
        [2048, 4096], [8.5, 7.5], [3e-4, 3e-4], metrics={"rollout/ep_rew_mean": [21.5, 22.5]}),
    Sample("a table of names and values without a counter", "gail.txt",
        "------------------------\n| loss       | 2.25      |\n| value loss | 2.5       |\n------------------------\n------------------------\n| loss       | 2.0       |\n| value loss | 1.5       |\n------------------------\n",
        [1, 2], [2.25, 2.0], metrics={"value loss": [2.5, 1.5]}),
    Sample("a table", "log.md.txt",
        "| Epoch | Train Loss | Train Acc | Val Loss | Val Acc | Learning Rate |\n|-------|------------|-----------|----------|---------|---------------|\n"
        "|     0 | 7.25 | 0.11% | 6.75 | 0.14% | 0.0005 |\n|     1 | 6.75 | 0.25% | 6.50 | 0.50% | 0.0010 |\n",
        [1, 2], [7.25, 6.75], [5e-4, 1e-3], evals=[(1, "val", {"loss": 6.75, "Acc": 0.14}), (2, "val", {"loss": 6.5, "Acc": 0.5})]),
    Sample("skorch, braindecode", "train.log",
        "  epoch    train_loss    valid_acc    valid_loss    cp     dur\n-------  ------------  -----------  ------------  ----  ------\n"
        "      1        1.5000       0.2500        1.2500     +  0.0344\n      2        1.2500       0.5000        1.0000        0.0187\n",
        [1, 2], [1.5, 1.25], evals=[(1, "val", {"acc": 0.25, "loss": 1.25}), (2, "val", {"acc": 0.5, "loss": 1.0})]),
    Sample("keras bars", "keras.log",
        "Epoch 1/2\n  1/10 [==>...........................] - ETA: 5s - loss: 1.5000 - accuracy: 0.2500\r10/10 [==============================] - 2s 15ms/step - loss: 1.2500 - accuracy: 0.5000 - val_loss: 1.0000 - val_accuracy: 0.6250\n"
        "Epoch 2/2\n10/10 [==============================] - 2s 15ms/step - loss: 0.7500 - accuracy: 0.7500 - val_loss: 0.5000 - val_accuracy: 0.8750\n",
        [1, 10, 20], [1.5, 1.25, 0.75], total=20,
        evals=[(10, "val", {"loss": 1.0, "accuracy": 0.625}), (20, "val", {"loss": 0.5, "accuracy": 0.875})]),
    Sample("pytorch/examples MNIST", "mnist.txt",
        "Train Epoch: 1 [0/60000 (0%)]\tLoss: 2.250000\nTrain Epoch: 1 [640/60000 (1%)]\tLoss: 1.750000\n\nTest set: Average loss: 0.2500, Accuracy: 9500/10000 (95%)\n\nTrain Epoch: 2 [0/60000 (0%)]\tLoss: 0.500000\n",
        [1, 641, 60001], [2.25, 1.75, 0.5], evals=[(641, "eval", {"loss": 0.25})]),
    Sample("train and validation on one line", "experiment_log.txt",
        "Epoch: 1, Training Loss: 6.25, Validation Loss: 4.75, Alpha: 0.0000, Weights: [1.0, 1.0]\nEpoch: 2, Training Loss: 4.25, Validation Loss: 2.75, Alpha: 0.0000, Weights: [1.0, 1.0]\n",
        [1, 2], [6.25, 4.25], evals=[(1, "val", {"loss": 4.75, "Alpha": 0.0, "Weights": 1.0}), (2, "val", {"loss": 2.75, "Alpha": 0.0, "Weights": 1.0})]),
    Sample("values on the lines after their counter", "train.log",
        "epoch:17 || iter:100 || Loss:5.25\n->> pal1 conf loss:1.7548\n->>lr:0.0005\nTimer: 0.6645\nepoch:17 || iter:110 || Loss:5.0\n->> pal1 conf loss:1.5\n->>lr:0.00025\n",
        [100, 110], [5.25, 5.0], [5e-4, 2.5e-4], metrics={"pal1 conf loss": [1.7548, 1.5]}),
    Sample("several losses an epoch without a counter", "t5.log",
        "##### Epoch 1 #####\nEpoch 1 - Batch loss: 12.5\nEpoch 1 - Batch loss: 11.5\nEpoch 1 - Batch loss: 10.5\nEpoch 1 - Average Train Loss: 11.5\n##### Epoch 2 #####\nEpoch 2 - Batch loss: 9.5\n",
        [1, 2, 3, 4], [12.5, 11.5, 10.5, 9.5]),
    Sample("an epoch in brackets whose steps begin again", "train_log.txt",
        "total steps: 40\n[E1] step 0 loss 9.25\n[E1] step 10 loss 8.25\n[E2] step 0 loss 7.25\n[E2] step 10 loss 6.25\nEpoch 2 avg-loss 6.75\n",
        [1, 11, 21, 31], [9.25, 8.25, 7.25, 6.25]),
    Sample("per cent, and a group of thousands", "run.log",
        "Iter 1,000: loss 2.5, acc 87.5%, lr 1e-3\nIter 2,000: loss 2.25, acc 93.75%, lr 5e-4\n", [1000, 2000], [2.5, 2.25], [1e-3, 5e-4],
        metrics={"acc": [87.5, 93.75]}),
    Sample("a dict of numpy's numbers", "dict.log",
        "INFO {'step': 10, 'loss': np.float64(0.5), 'lr': tensor(0.001, device='cuda:0')}\nINFO {'step': 20, 'loss': np.float64(0.25), 'lr': tensor(0.0005)}\n",
        [10, 20], [0.5, 0.25], [1e-3, 5e-4]),
    Sample("YOLO results.txt without a header", "runs/train/yolov7/results.txt",
        "     0/299     11.8G   0.06250   0.03125         0    0.09375        30       640  0.004643    0.2902  0.001399 0.0002224   0.09375   0.03125         0\n"
        "     1/299     11.8G   0.03125   0.03125         0    0.06250        12       640  0.004643    0.2902  0.001399 0.0002224   0.06250   0.03125         0\n",
        [1, 2], [0.09375, 0.0625], total=300, metrics={"box": [0.0625, 0.03125]},
        evals=[(1, "val", {"P": 0.004643, "R": 0.2902, "mAP@.5": 0.001399, "mAP@.5:.95": 0.0002224, "loss": 0.125, "box": 0.09375, "obj": 0.03125, "cls": 0.0}),
               (2, "val", {"P": 0.004643, "R": 0.2902, "mAP@.5": 0.001399, "mAP@.5:.95": 0.0002224, "loss": 0.09375, "box": 0.0625, "obj": 0.03125, "cls": 0.0})]),
    Sample("tf.estimator", "train.log",
        "INFO:tensorflow:loss = 1.25, step = 0\nINFO:tensorflow:global_step/sec: 0.6\nINFO:tensorflow:loss = 0.5, step = 100 (162.563 sec)\n"
        "INFO:tensorflow:Saving dict for global step 100: eval_accuracy = 0.75, eval_loss = 0.875, global_step = 100, loss = 0.8125\n"
        "INFO:tensorflow:***** Eval results *****\nINFO:tensorflow:  eval_accuracy = 0.75\nINFO:tensorflow:  eval_loss = 0.875\n"
        "INFO:tensorflow:  global_step = 100\nINFO:tensorflow:  loss = 0.8125\nINFO:tensorflow:loss = 0.25, step = 200 (162.563 sec)\n",
        [1, 101, 201], [1.25, 0.5, 0.25], evals=[(101, "val", {"accuracy": 0.75, "loss": 0.875})]),
    Sample("results of a BERT script", "nohup.out",
        "step 1: loss 1.5 lr 1e-5\nstep 2: loss 1.25 lr 2e-5\n01/01/2020 10:00:00 - INFO - __main__ -   ***** Eval results *****\n"
        "01/01/2020 10:00:00 - INFO - __main__ -     acc = 0.75\n01/01/2020 10:00:00 - INFO - __main__ -     eval_loss = 0.5\n"
        "01/01/2020 10:00:00 - INFO - __main__ -     loss = 1.375\nstep 3: loss 1.0 lr 3e-5\n",
        [1, 2, 3], [1.5, 1.25, 1.0], [1e-5, 2e-5, 3e-5], evals=[(2, "val", {"acc": 0.75, "loss": 0.5})]),
    Sample("Hugging Face console with bars of numbers only", "train_log.txt",
        "TrainingArguments(\nlogging_first_step=False,\nlogging_steps=10,\n)\n100% 31/31 [00:08<00:00,  3.90it/s]\n"
        + "".join(f"{{'loss': {2 - n / 8}, 'learning_rate': {n * 1e-5:.0e}, 'epoch': {n * 10 / 266:.2f}}}\n" for n in range(1, 5))
        + " 17% 45/266 [02:49<09:37,  1.84it/s]\n  0% 0/31 [00:00<?, ?it/s]\n100% 31/31 [00:08<00:00,  3.90it/s]\n",
        [10, 20, 30, 40], [1.875, 1.75, 1.625, 1.5], [1e-5, 2e-5, 3e-5, 4e-5], total=266),
    Sample("one line an epoch, always of the first batch", "train_log.txt",
        "[train] epoch:0 iter:0/18 0.00% lr:0.001000 loss:1.250000 ETA:0.0min\n[val] epoch:0 miou:0.25\n"
        "[train] epoch:1 iter:0/18 0.00% lr:0.000500 loss:0.750000 ETA:1.0min\n[val] epoch:1 miou:0.25\n"
        "[train] epoch:2 iter:0/18 0.00% lr:0.000250 loss:0.500000 ETA:1.0min\n",
        [1, 19, 37], [1.25, 0.75, 0.5], [1e-3, 5e-4, 2.5e-4], evals=[(1, "val", {"miou": 0.25}), (19, "val", {"miou": 0.25})]),
    Sample("spaCy", "output.log", "Training Start !\nLosses {'ner': 172.5}\nLosses {'ner': 325.25}\nLosses {'ner': 12.5}\n", [1, 2, 3], [172.5, 325.25, 12.5]),
    Sample("BasicSR", "HDRUNet.log",
        "23-05-06 20:53:02.065 - INFO: [epoch: 19, iter: 121,200, lr:(1.724e-04,)] l_pix: 1.5625e-02 \n"
        "23-05-06 20:54:16.019 - INFO: [epoch: 19, iter: 121,300, lr:(1.723e-04,)] l_pix: 7.8125e-03 \n"
        "23-05-06 20:55:16.019 - INFO: Validation # PSNR: 3.75e+01\n",
        [121200, 121300], [0.015625, 0.0078125], [1.724e-4, 1.723e-4], evals=[(121300, "val", {"PSNR": 37.5})]),
    Sample("Chinese words", "训练.log",
        "第 1/3 轮 训练损失：1.2500，学习率：0.001，验证损失：1.5，验证准确率：50.0%\n第 2/3 轮 训练损失：0.7500，学习率：0.0005，验证损失：1.25，验证准确率：50.0%\n",
        [1, 2], [1.25, 0.75], [1e-3, 5e-4], total=3, evals=[(1, "val", {"loss": 1.5, "accuracy": 50.0}), (2, "val", {"loss": 1.25, "accuracy": 50.0})]),
    Sample("German words", "lauf.log",
        "Epoche 1/3 - Trainingsverlust: 1.25 - Lernrate: 0.001 - Validierungsverlust: 1.5\nEpoche 2/3 - Trainingsverlust: 0.75 - Lernrate: 0.0005 - Validierungsverlust: 1.5\n",
        [1, 2], [1.25, 0.75], [1e-3, 5e-4], total=3, evals=[(1, "val", {"loss": 1.5}), (2, "val", {"loss": 1.5})]),
    Sample("the best so far is no result", "train.log",
        "Epoch 1 - Batch loss: 2.5\nEpoch 1 - Batch loss: 1.5\nEpoch 1 - Validation BLEU-1 71.5\nEpoch 1 - New best model saved with BLEU-2: 65.75\nEpoch 2 - Batch loss: 1.25\n",
        [1, 2, 3], [2.5, 1.5, 1.25], evals=[(2, "val", {"BLEU-1": 71.5})]),
    Sample("an article that was printed", "notes.log",
        "('islamabad: the minister presented the budget of 2015 in the assembly on friday, " + "and said that nobody should fear the losses which the markets have seen, " * 12
        + "a loss of 3.6 percent')\nepoch 1 loss 0.5\nepoch 2 loss 0.25\n", [1, 2], [0.5, 0.25]),
    Sample("the time of an epoch in brackets", "train_log.txt",
        "Epoch 1/100 [38.7s] | LR: 3.800000e-06 | Train Loss: 2.7500 | Val Loss: 1.2500\nEpoch 2/100 [34.3s] | LR: 7.100000e-06 | Train Loss: 2.5000 | Val Loss: 1.2500\n",
        [1, 2], [2.75, 2.5], [3.8e-6, 7.1e-6], total=100, evals=[(1, "val", {"loss": 1.25}), (2, "val", {"loss": 1.25})]),
    Sample("a tag names the split", "train.log",
        "2026-05-12 12:09:33,770 - INFO - [Train] Epoch 001: loss = 0.500000\n2026-05-12 12:09:42,781 - INFO - [Diff-Val(Test-Normal)] Epoch 001 (Deterministic): loss = 0.250000\n"
        "2026-05-12 12:12:33,486 - INFO - [Train] Epoch 002: loss = 0.375000\n2026-05-12 12:12:41,640 - INFO - [Diff-Val(Test-Normal)] Epoch 002 (Deterministic): loss = 0.125000\n",
        [1, 2], [0.5, 0.375], evals=[(1, "val", {"loss": 0.25}), (2, "val", {"loss": 0.125})]),
    Sample("the same epoch once more, under a heading", "training_log.txt",
        "epoch: 1,  loss is: 1.25, acc is: 0.5\nNow continue training……\nepoch: 2,  loss is: 0.75, acc is: 0.625\ntesting in eval mode……\nepoch: 2,  loss is: 0.875, acc is: 0.5\n"
        "Now continue training……\nepoch: 3,  loss is: 0.5, acc is: 0.75\n",
        [1, 2, 3], [1.25, 0.75, 0.5], evals=[(2, "eval", {"loss": 0.875, "acc": 0.5})]),
    Sample("results under a heading", "log.txt",
        "Epoch: [0][10/400]\tTime 5.656 (6.701)\tLoss 2.5 (3.0)\n------------------------------[Evaluate]------------------------------\nExtract Features:\nCompute Scores:\n"
        "Recall@1: 49.75 - Recall@5: 72.5 - AP: 54.75\nEpoch: [1][10/400]\tTime 5.656 (6.701)\tLoss 1.5 (3.0)\n",
        [10, 410], [2.5, 1.5], evals=[(10, "val", {"Recall@1": 49.75, "Recall@5": 72.5, "AP": 54.75})]),
    Sample("a resume", "resumed.txt", "".join(f"iter {n} loss {n / 64:.6f} lr 1e-3\n" for n in (100, 200, 300, 200, 300, 400)),
        [100, 200, 300, 400], [100 / 64, 200 / 64, 300 / 64, 400 / 64]),
    Sample("settings are no records", "cfg.log",
        "Namespace(lr=0.1, loss='ce', epochs=20, step=5)\nhyperparameters: lr0=0.01, momentum=0.937, box=0.05, loss=1.0\nlr: 0.003, loss: 0.0, weight_decay: 0.01, batch_size: 8\nbest loss: 0.25 at epoch 3\n"
        "wandb: loss 0.25\nwandb: global_step 999\nEpoch 1: loss 0.75 lr 0.003\nEpoch 2: loss 0.5 lr 0.002\n", [1, 2], [0.75, 0.5], [0.003, 0.002]),
]  # fmt: skip

ROWS = [
    Sample("LLaMA-Factory", "trainer_log.jsonl",
        jsonl({"current_steps": 10, "total_steps": 40, "loss": 2.5, "reward": None, "learning_rate": 5e-7, "epoch": 0.25, "percentage": 25.0, "elapsed_time": "0:00:24", "remaining_time": "5:58:33"},
              {"current_steps": 20, "total_steps": 40, "loss": 2.25, "reward": None, "learning_rate": 1e-6, "epoch": 0.5, "percentage": 50.0, "elapsed_time": "0:00:48", "remaining_time": "5:58:33"},
              {"current_steps": 20, "total_steps": 40, "eval_loss": 2.0, "epoch": 0.5, "percentage": 50.0, "elapsed_time": "0:00:49", "remaining_time": "5:58:33"}),
        [10, 20], [2.5, 2.25], [5e-7, 1e-6], total=40, kind="LLaMA-Factory", evals=[(20, "val", {"loss": 2.0})]),
    Sample("detectron2", "metrics.json",
        jsonl({"data_time": 0.5, "eta_seconds": 5065.5, "iteration": 19, "loss_cls": 0.75, "lr": 1.5e-5, "time": 18.5, "total_loss": 2.5},
              {"data_time": 0.5, "eta_seconds": 5065.5, "iteration": 39, "loss_cls": 0.5, "lr": 3e-5, "time": 18.5, "total_loss": 2.25, "bbox/AP": 12.5, "bbox/AP50": 25.0},
              {"bbox/AP": 13.5, "iteration": 40}),
        [20, 40], [2.5, 2.25], [1.5e-5, 3e-5], kind="detectron2", metrics={"time": [18.5, 18.5], "loss_cls": [0.75, 0.5]},
        evals=[(40, "val", {"bbox/AP": 12.5, "bbox/AP50": 25.0}), (41, "val", {"bbox/AP": 13.5})]),
    Sample("mmcv", "20210101.log.json",
        jsonl({"env_info": "sys.platform: linux", "seed": None, "exp_name": "a.py"},
              {"mode": "train", "epoch": 1, "iter": 10, "lr": 0.0, "memory": 6504, "data_time": 0.25, "loss_cls": 1.75, "loss": 2.25, "grad_norm": 31.5, "time": 0.5},
              {"mode": "train", "epoch": 1, "iter": 20, "lr": 1e-5, "memory": 6504, "data_time": 0.25, "loss_cls": 1.5, "loss": 2.0, "grad_norm": 29.5, "time": 0.5},
              {"mode": "val", "epoch": 1, "iter": 5, "lr": 1e-5, "bbox_mAP": 0.25},
              {"mode": "train", "epoch": 2, "iter": 10, "lr": 2e-5, "memory": 6504, "data_time": 0.25, "loss_cls": 1.25, "loss": 1.75, "grad_norm": 28.5, "time": 0.5}),
        [10, 20, 30], [2.25, 2.0, 1.75], [0.0, 1e-5, 2e-5], kind="mmcv", evals=[(20, "val", {"bbox_mAP": 0.25})]),
    Sample("mmengine", "vis_data/scalars.json",
        jsonl({"lr": 4e-8, "data_time": 9.5, "loss": 0.5, "loss_kpt": 0.5, "time": 9.75, "epoch": 1, "iter": 50, "step": 50},
              {"coco/AP": 0.25, "data_time": 0.5, "time": 0.5, "step": 1},
              {"lr": 8e-8, "data_time": 9.5, "loss": 0.25, "loss_kpt": 0.25, "time": 9.75, "epoch": 2, "iter": 100, "step": 100}),
        [50, 100], [0.5, 0.25], [4e-8, 8e-8], kind="mmengine", evals=[(50, "val", {"coco/AP": 0.25, "data_time": 0.5, "time": 0.5})]),
    Sample("MAE's log.txt with NaN", "log.txt",
        '{"train_lr": 1e-05, "train_loss": 1.75, "train_grad_norm": NaN, "test_loss": 1.5, "test_acc1": 8.5, "epoch": 0, "n_parameters": 38450}\n'
        '{"train_lr": 2e-05, "train_loss": NaN, "train_grad_norm": Infinity, "test_loss": 1.25, "test_acc1": 9.5, "epoch": 1, "n_parameters": 38450}\n'
        '{"train_lr": 3e-05, "train_loss": 1.25, "train_grad_norm": 2.5, "test_loss": 1.0, "test_acc1": 10.5, "epoch": 2, "n_parameters": 38450}\n',
        [1, 2, 3], [1.75, math.nan, 1.25], [1e-5, 2e-5, 3e-5], kind="JSON rows",
        evals=[(1, "eval", {"loss": 1.5, "acc1": 8.5}), (2, "eval", {"loss": 1.25, "acc1": 9.5}), (3, "eval", {"loss": 1.0, "acc1": 10.5})]),
    Sample("loss and rate in two rows", "metrics.jsonl",
        jsonl(*(row for n in (1, 2, 3) for row in ({"step": n, "loss": n / 4}, {"step": n, "lr": n / 1024}))),
        [1, 2, 3], [0.25, 0.5, 0.75], [1 / 1024, 2 / 1024, 3 / 1024]),
    Sample("epoch and batch without a total", "rows.jsonl",
        jsonl(*({"epoch": e, "batch": b, "loss": e + b / 8} for e in (0, 1) for b in (0, 1, 2, 3))), list(range(1, 9)),
        [0.0, 0.125, 0.25, 0.375, 1.0, 1.125, 1.25, 1.375]),
    Sample("Lightning", "lightning_logs/version_0/metrics.csv",
        "epoch,lr-AdamW,lr-AdamW/pg1,step,train_acc,train_loss_epoch,train_loss_step,val_loss\n,0.0005,0.00025,0,,,,\n0,,,49,0.25,,2.5,\n0,,,49,,,,2.25\n0,,,49,,2.75,,\n,0.001,0.0005,50,,,,\n1,,,99,0.5,,2.0,\n1,,,99,,,,1.75\n",
        [1, 50, 51, 100], [math.nan, 2.5, math.nan, 2.0], [5e-4, math.nan, 1e-3, math.nan], kind="Lightning CSV",
        evals=[(50, "val", {"loss": 2.25}), (100, "val", {"loss": 1.75})], metrics={"acc": [0.25, 0.5]}),
    Sample("YOLOv5", "runs/train/exp/results.csv",
        "               epoch,      train/box_loss,      train/obj_loss,      train/cls_loss,   metrics/precision,     metrics/mAP_0.5,        val/box_loss,               x/lr0,               x/lr1,               x/lr2\n"
        "                   0,               0.125,                0.25,                 0.5,                 0.5,                0.25,              0.0625,             0.00275,             0.00275,               0.075\n"
        "                   1,              0.0625,               0.125,                0.25,                 0.5,                 0.5,             0.03125,              0.0055,              0.0055,                0.05\n",
        [1, 2], [0.875, 0.4375], [0.00275, 0.0055], lrs=[[0.00275, 0.00275, 0.075], [0.0055, 0.0055, 0.05]], kind="YOLO results",
        evals=[(1, "val", {"precision": 0.5, "mAP_0.5": 0.25, "loss": 0.0625}), (2, "val", {"precision": 0.5, "mAP_0.5": 0.5, "loss": 0.03125})]),
    Sample("YOLOv8", "runs/detect/train/results.csv",
        "epoch,time,train/box_loss,train/cls_loss,train/dfl_loss,metrics/precision(B),metrics/mAP50(B),val/box_loss,val/cls_loss,lr/pg0,lr/pg1,lr/pg2\n"
        "1,72.5,3.0,3.5,3.25,0.5,0.25,3.5,1.5,0.0625,0.0025,0.0025\n2,123.5,2.5,3.0,3.0,0.75,0.5,2.5,1.0,0.03125,0.005,0.005\n",
        [1, 2], [9.75, 8.5], [0.0625, 0.03125], lrs=[[0.0625, 0.0025, 0.0025], [0.03125, 0.005, 0.005]], kind="YOLO results",
        metrics={"time": [72.5, 123.5]},
        evals=[(1, "val", {"precision(B)": 0.5, "mAP50(B)": 0.25, "loss": 5.0, "box_loss": 3.5, "cls_loss": 1.5}), (2, "val", {"precision(B)": 0.75, "mAP50(B)": 0.5, "loss": 3.5, "box_loss": 2.5, "cls_loss": 1.0})]),
    Sample("keras CSVLogger", "training_log.csv", "epoch,accuracy,auc,learning_rate,loss,val_accuracy,val_auc,val_loss\n0,0.5,0.5,0.0005,0.75,0.25,0.5,0.875\n1,0.625,0.75,0.001,0.5,0.5,0.75,0.625\n",
        [1, 2], [0.75, 0.5], [5e-4, 1e-3], evals=[(1, "val", {"loss": 0.875, "auroc": 0.5, "accuracy": 0.25}), (2, "val", {"loss": 0.625, "auroc": 0.75, "accuracy": 0.5})]),
    Sample("timm summary", "output/train/20240101/summary.csv", "epoch,train_loss,eval_loss,eval_top1,eval_top5,lr\n0,6.75,6.5,0.875,3.5,1e-05\n1,6.25,4.5,15.0,33.5,2e-05\n",
        [1, 2], [6.75, 6.25], [1e-5, 2e-5], kind="timm summary", evals=[(1, "val", {"loss": 6.5, "top1": 0.875, "top5": 3.5}), (2, "val", {"loss": 4.5, "top1": 15.0, "top5": 33.5})]),
    Sample("Stable-Baselines3 progress", "progress.csv", "time/iterations,train/loss,train/value_loss,time/total_timesteps,train/learning_rate,rollout/ep_rew_mean,time/time_elapsed\n10,0.5,0.25,640,1e-05,0.25,3\n20,0.25,0.125,1280,1e-05,0.5,7\n",
        [640, 1280], [0.5, 0.25], [1e-5, 1e-5], kind="progress.csv of RL", metrics={"rollout/ep_rew_mean": [0.25, 0.5]}),
    Sample("monitor of an environment", "0.monitor.csv", '# {"t_start": 1558056922.5, "env_id": "X-v0"}\nr,l,t\n7.5,9,2.5\n9.5,11,3.5\n', [9, 20], kind="episodes of RL", metrics={"reward": [7.5, 9.5]}),
    Sample("semicolons", "log.csv", "epoch;loss;val_loss\n1;0.5;0.75\n2;0.25;0.5\n", [1, 2], [0.5, 0.25], evals=[(1, "val", {"loss": 0.75}), (2, "val", {"loss": 0.5})]),
    Sample("line ends of an old Mac", "train.log", "epoch,acc,loss,lr,val_loss\r0,0.5,0.75,1e-04,0.875\r1,0.75,0.5,1e-04,0.625\r",
        [1, 2], [0.75, 0.5], [1e-4, 1e-4], evals=[(1, "val", {"loss": 0.875}), (2, "val", {"loss": 0.625})]),
    Sample("tabs, not called a table", "log.txt", "step\tloss\tlr\n0\t0.5\t0.001\n1\t0.25\t0.0005\n", [1, 2], [0.5, 0.25], [1e-3, 5e-4]),
    Sample("step 0 and the last row", "dqn.csv", "Step,Reward,Loss\n0,0.25,0.5\n1,0.5,0.25\n2,0.75,0.125\n", [1, 2, 3], [0.5, 0.25, 0.125], metrics={"Reward": [0.25, 0.5, 0.75]}),
    Sample("a history of lists", "history.json", json.dumps({"train_loss": [0.75, 0.5], "val_loss": [1.0, 0.875], "lr": [1e-3, 5e-4]}),
        [1, 2], [0.75, 0.5], [1e-3, 5e-4], kind="JSON document", evals=[(1, "val", {"loss": 1.0}), (2, "val", {"loss": 0.875})]),
    Sample("a history of rows", "train_history.json", json.dumps([{"epoch": 1, "train": {"loss": 1.5, "acc": 0.25}, "val": {"loss": 1.25}}, {"epoch": 2, "train": {"loss": 1.0, "acc": 0.5}, "val": {"loss": 0.75}}], indent=1),
        [1, 2], [1.5, 1.0], kind="JSON document", evals=[(1, "val", {"loss": 1.25}), (2, "val", {"loss": 0.75})], metrics={"acc": [0.25, 0.5]}),
    Sample("Hugging Face trainer state", "out/checkpoint-20/trainer_state.json",
        '{"epoch": 2.0, "global_step": 20, "max_steps": 30, "num_train_epochs": 3, "log_history": [\n'
        '{"epoch": 1.0, "grad_norm": Infinity, "learning_rate": 2e-05, "loss": 1.5, "step": 10},\n{"epoch": 1.0, "eval_loss": 1.25, "eval_f1": 0.5, "step": 10},\n'
        '{"epoch": 2.0, "grad_norm": NaN, "learning_rate": 0.0, "loss": NaN, "step": 20},\n{"epoch": 2.0, "step": 20, "total_flos": 1e15, "train_loss": 1.3, "train_runtime": 99.5}]}',
        [10, 20], [1.5, math.nan], [2e-5, 0.0], total=30, kind="Hugging Face trainer state", evals=[(10, "val", {"loss": 1.25, "f1": 0.5})]),
]  # fmt: skip

ALL = [*TEXT, *ROWS]

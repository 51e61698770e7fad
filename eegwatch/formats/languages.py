"""Words of training logs in other languages, put into English: `第 3 轮 训练损失：0.52` -> `epoch 3 train loss : 0.52`.

Only words that name a counter, a split, a rate, a loss or a common metric are known; everything else stays as it is.
"""

from __future__ import annotations

import re

# longest first, and each is set apart by spaces: these languages write words without any
_UNSPACED = {
    "学习率": "learning rate", "學習率": "learning rate", "学習率": "learning rate", "학습률": "learning rate",
    "总损失": "total loss", "總損失": "total loss", "平均损失": "avg loss", "平均損失": "avg loss",
    "损失值": "loss", "损失函数": "loss", "损失": "loss", "損失": "loss", "손실": "loss",
    "训练集": "train", "訓練集": "train", "训练": "train", "訓練": "train", "学習": "train", "학습": "train",
    "훈련": "train", "验证集": "val", "驗證集": "val", "验证": "val", "驗證": "val", "検証": "val", "검증": "val",
    "测试集": "test", "測試集": "test", "测试": "test", "測試": "test", "テスト": "test", "테스트": "test",
    "准确率": "accuracy", "准确度": "accuracy", "準確率": "accuracy", "正确率": "accuracy", "精度": "accuracy",
    "正解率": "accuracy", "정확도": "accuracy", "精确率": "precision", "召回率": "recall",
    "轮次": "epoch", "轮数": "epoch", "エポック": "epoch", "에폭": "epoch", "에포크": "epoch",
    "迭代次数": "iteration", "迭代": "iteration", "步数": "step", "ステップ": "step", "스텝": "step", "批次": "batch",
    "时间": "time", "時間": "time", "耗时": "time", "用时": "time", "当前": "current", "最佳": "best", "最好": "best",
}  # fmt: skip
_SPACED = {
    "verlust": "loss", "lernrate": "learning rate", "epoche": "epoch", "schritt": "step", "genauigkeit": "accuracy",
    "validierung": "validation", "trainingsverlust": "train loss", "validierungsverlust": "val loss",
    "testverlust": "test loss", "trainingsgenauigkeit": "train accuracy", "validierungsgenauigkeit": "val accuracy",
    "pérdida": "loss", "perdida": "loss", "perda": "loss", "perte": "loss", "perdita": "loss",
    "época": "epoch", "epoca": "epoch", "époque": "epoch", "paso": "step",
    "entrenamiento": "train", "entraînement": "train", "treinamento": "train", "treino": "train",
    "validación": "validation", "validacion": "validation", "validação": "validation", "validazione": "validation",
    "exactitud": "accuracy", "acurácia": "accuracy",
    "эпоха": "epoch", "эпохи": "epoch", "шаг": "step", "потери": "loss", "потеря": "loss", "точность": "accuracy",
    "обучение": "train", "обучения": "train", "валидация": "validation", "валидации": "validation",
}  # fmt: skip
_PHRASES = {"tasa de aprendizaje": "learning rate", "taxa de aprendizado": "learning rate", "taux d'apprentissage":
            "learning rate", "скорость обучения": "learning rate"}  # fmt: skip
_WIDE = str.maketrans("：，。（）［］｛｝＝％｜／；　", ":,.()[]{}=%|/; ")
_UNSPACED_WORD = re.compile("|".join(sorted(_UNSPACED, key=len, reverse=True)))
_NUMBERED = re.compile(r"第\s*(\d+)(\s*/\s*\d+)?\s*(?:[轮輪]次?|エポック|(步|ステップ|次迭代))")
_SPACED_WORD = re.compile(r"(?<!\w)(?:" + "|".join((*_PHRASES, *_SPACED)) + r")(?!\w)", re.IGNORECASE)
_FOREIGN = re.compile("[À-ɏЀ-ӿ\u3000-ヿ一-鿿가-힣\uff00-\uffef]")


def foreign(text: str) -> bool:
    """Whether a line has letters or punctuation that English has not; the blocks of a progress bar are neither."""
    return not text.isascii() and _FOREIGN.search(text) is not None


def in_english(text: str) -> str:
    """The text with the known words in English; the same text if it has none."""
    if foreign(text):
        text = _NUMBERED.sub(lambda m: f" {'step' if m[3] else 'epoch'} {m[1]}{m[2] or ''} ", text.translate(_WIDE))
        text = _UNSPACED_WORD.sub(lambda m: f" {_UNSPACED[m[0]]} ", text)
    return _SPACED_WORD.sub(_word, text)


def _word(match: re.Match[str]) -> str:
    word = match[0].lower()
    return _PHRASES.get(word) or _SPACED[word]

"""Name -> comparison system, in the order of `eval.baselines.settings.SETTINGS`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from eval.baselines import cnn, ecg_jepa, more, multiresconv, protoecgnet
from eval.baselines.baseline import Baseline

BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        **cnn.CNNS,
        "multiresconv": Baseline(multiresconv.multiresconv),
        "protoecgnet": Baseline(protoecgnet.protoecgnet, protoecgnet.BRANCH_STAGES, inputs=protoecgnet.inputs),
        **ecg_jepa.CLASSIFIERS,
        **more.CLASSIFIERS,
    }
)

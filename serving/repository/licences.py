"""Licences: which models' weights commercial work may reach; asked by the router and by replicas, before every call.

The one invariant: weights are refused to commercial work unless their card allows it, or the operator accepted its
condition by name; and what is made of several models, an ensemble, is refused if one of them is.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Final

from serving.errors import LicenceForbids, plain_text
from serving.protocol.endpoint import Endpoint
from serving.protocol.licences import COMMERCIAL, Use, refusal
from serving.repository.model import TENSOR_TASK, License, Model
from serving.repository.served import steps
from serving.settings import LicenceSettings

_OTHER_ADAPTER: Final = "ask for another adapter or none; or, for other work, x-reelmesh-use: non_commercial"
_REASON_CHARS: Final = Endpoint.model_fields["refuses"].metadata[0].max_length


class Licences:
    """Decides by the cards.

    Args:
        models: by name, those that ensembles and alternatives are looked for in; may change meanwhile.
        settings: what the operator accepted.
    """

    def __init__(self, models: Mapping[str, Model], settings: LicenceSettings) -> None:
        self._models = models
        self._accepted = frozenset(settings.accepted)
        self._allows_unknown = settings.unknown == "allow"

    def check(self, model: Model, use: Use, adapter: str | None = None) -> None:
        """Raise :class:`LicenceForbids` where the licence of the model, or of its fine-tune, does not allow the use."""
        if (error := self.refusal(model, use, adapter)) is not None:
            raise error

    def refusal(self, model: Model, use: Use, adapter: str | None = None) -> LicenceForbids | None:
        """Why a model may not be used for that, with what may be instead; None where it may."""
        if use != COMMERCIAL:
            return None
        reason = self.reason(model)
        fine_tune = model.card.adapters.get(adapter or "")
        if not reason and fine_tune is not None and fine_tune.license is not None:
            reason = _line(self._reason_of(fine_tune.license, f"the adapter {adapter!r} of {model.name!r}", model.name))
            return LicenceForbids(reason, field="adapter", fix=_OTHER_ADAPTER) if reason else None
        if not reason:
            return None
        return refusal(reason, typed_task(model), self._alternatives(model))

    def reason(self, model: Model) -> str:
        """Why commercial work may not reach a model, on one line of at most 600 characters; empty where it may."""
        alone = not model.card.parts and not model.config.HasField("ensemble_scheduling")
        if model.card.license.commercial_use is True and alone:
            return ""  # by far the most
        found = (self._own_reason(each) for each in self._parts(model))
        return _line(next((reason for reason in found if reason), ""))

    def _own_reason(self, model: Model) -> str:
        """Of the model and its parts."""
        reasons = [self._reason_of(model.card.license, repr(model.name), model.name)]
        for name, part in model.card.parts.items():
            if part.license is not None:
                reasons.append(self._reason_of(part.license, f"{name!r}, a part of {model.name!r},", model.name))
        return next((reason for reason in reasons if reason), "")

    def _reason_of(self, terms: License, whose: str, model: str) -> str:
        weights = f"the weights of {whose} are under {terms.name}"
        if terms.commercial_use is False:
            return f"{weights}, which allows no commercial use"
        if terms.commercial_use is True or model in self._accepted:
            return ""
        if terms.is_unknown:
            said = f"nobody has said what the terms of the weights of {whose} are, in a model.yaml"
            return "" if self._allows_unknown else said
        return (
            f"{weights}, which allows commercial use on a condition that REELMESH_LICENCES__ACCEPTED does not "
            f"accept: {terms.condition}"
        )

    def _parts(self, model: Model) -> Iterator[Model]:
        """A model and, of an ensemble, every step, as far down as they go."""
        todo, seen = [model], {model.name}
        while todo:
            each = todo.pop()
            yield each
            for name in steps(each):
                if name not in seen and name in self._models:
                    seen.add(name)
                    todo.append(self._models[name])

    def _alternatives(self, model: Model) -> list[str]:
        """Models of the same task that commercial work may use: the task's default first, then by name."""
        task = typed_task(model)
        same = [each for each in list(self._models.values()) if task and each.card.task == task]
        same.sort(key=lambda each: (not each.card.default, each.name))
        return [each.name for each in same if each.name != model.name and not self.reason(each)]


def accepted_problems(models: Mapping[str, Model], settings: LicenceSettings) -> list[str]:
    """What is odd about the models that an operator accepts, a line each; nothing of it does harm."""
    problems = []
    for name in settings.accepted:
        model = models.get(name)
        if model is None:
            near = difflib.get_close_matches(name, models, n=1)
            problems.append(f"{name!r} is accepted and no model" + (f"; did you mean {near[0]!r}?" if near else ""))
        elif model.card.license.commercial_use != "conditional":
            word = "allows" if model.card.license.commercial_use else "never allows"
            problems.append(f"{name!r} is accepted, and its licence {word} commercial use")
    return problems


def _line(text: str) -> str:
    return " ".join(plain_text(text).split())[:_REASON_CHARS]


def typed_task(model: Model) -> str:
    """The model's task; empty for one that is reached by OIP alone, which no other one can stand in for."""
    return "" if model.card.task == TENSOR_TASK else model.card.task

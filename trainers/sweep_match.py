"""The price at which accuracy is still that of the dense network.

So the paper compares savings (Fig. 4, 5a): at matched accuracy, not at one
price for all networks.
"""

from collections.abc import Callable
from collections.abc import Sequence

import sweep_plan
import sweep_runs

_ROUNDING = 1e-9


class Search:
    """Searches the price of each setting, all of them side by side.

    Args:
        runs: Where the tries are run.
        settings: The settings, without a price.
        points: Float, how much less validation accuracy than that of base is
            still good enough, in points.

    Raises:
        ValueError: If a setting has a price already, or no base and hrl.
    """

    def __init__(
        self,
        runs: sweep_runs.Runs,
        settings: Sequence[sweep_plan.Setting],
        points: float,
    ):
        self._runs, self._points = runs, points
        self._settings = {setting.name: setting for setting in settings}
        self._first = {s.name: self._first_price(s) for s in settings}
        runs.matches = [
            {"name": s.name, "flags": s.flags, "best": None, "tries": []}
            for s in settings
        ]
        for match in runs.matches:
            self._try(match["name"], {})

    def run(self, engine: Callable, tries: int) -> dict[str, str]:
        """Tries prices until the limit is known.

        Args:
            engine: See `sweep_runs.Runs.train`.
            tries: Positive int, most prices for a setting.

        Returns:
            Dict from the best run of each setting to the setting's group.
        """
        searching = {match["name"]: match for match in self._runs.matches}
        for _ in range(tries):
            asked = {}
            for name, match in searching.items():
                tried = {t["alpha"]: t["holds"] for t in match["tries"]}
                asked[name] = self._try(name, tried)
            asked = {name: run for name, run in asked.items() if run}
            if not asked:
                break
            self._runs.train(engine)
            done = set(self._runs.done())
            # A search ends with a run that fails: it says nothing of prices.
            searching = {
                name: self._judge(searching[name], run)
                for name, run in asked.items()
                if run.name in done
            }
            self._runs.write()
        return {
            match["best"]["run"]: self._settings[match["name"]].group
            for match in self._runs.matches
            if match["best"]
        }

    def _first_price(self, setting):
        checked = self._runs.check(setting)
        stages = list(checked.keys)
        if "alpha" in setting.flags or not checked.alpha:
            raise ValueError(
                "--match_accuracy searches --alpha: a --grid must not hold it, "
                "and it must be above 0 at first. Received: "
                f"--alpha={checked.alpha:g} in {setting.name}"
            )
        if "base" not in stages or stages[-1] not in ("hrl", "rl"):
            raise ValueError(
                "--match_accuracy compares the last stage, hrl or rl, with "
                f"base. Received: --stages={','.join(stages)} in {setting.name}"
            )
        return checked.alpha

    def _try(self, name, tried):
        """Adds the next run of a setting, if there is anything left to try."""
        price = sweep_plan.next_price(tried, self._first[name])
        if price is None:
            return None
        run = self._settings[name].priced(price)
        self._runs.add(run)
        return run

    def _judge(self, match, run):
        stage = self._runs.last_stage(run.name)
        base, found = (
            self._runs.summaries(run.name, name)["validation"]
            for name in ("base", stage)
        )
        least = base["accuracy"] - self._points / 100
        tried = {
            "run": run.name,
            "alpha": float(run.flags["alpha"]),
            "base_accuracy": base["accuracy"],
            "accuracy": found["accuracy"],
            "macs_fraction": found["macs_fraction"],
            "holds": found["accuracy"] >= least - _ROUNDING,
        }
        match["tries"].append(tried)
        holding = [t for t in match["tries"] if t["holds"]]
        match["best"] = min(
            holding, key=lambda t: t["macs_fraction"], default=None
        )
        print(
            f"{match['name']}, try {len(match['tries'])}: alpha "
            f"{tried['alpha']:g} gives {100 * found['accuracy']:.2f} % with "
            f"{100 * found['macs_fraction']:.1f} % of the multiply-adds, base "
            f"{100 * base['accuracy']:.2f} %: "
            + ("good enough" if tried["holds"] else "too low"),
            flush=True,
        )
        return match

"""Workers that compute the pairs of any number of experiments.

    with crew("demo/opens2s-demo", {"device": "cpu"}, Request(workers=2), say=print) as place:
        run_experiment(place, dataset, run, experiment, sample, settings)

A place like `runs.place.Local`: Ray starts the processes, says when one is gone and carries what is sent; which pairs
go where is `workers.chunks`, in which order they come back `workers.order`.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import UserError
from pairs import Dataset, Pair
from registry.catalogue import plugins
from registry.intervention import Intervention
from runs.directory import Row, RunDir
from runs.interrupt import until_done
from runs.place import Asked, Failed
from runs.say import Say
from runs.settings import Settings, files_of_experiment
from workers.cluster import ENDING, SAME_TOKEN, STARTING, cluster
from workers.member import Lost, Member
from workers.order import in_order
from workers.places import Request, needs
from workers.worker import Load, Order, Worker, plugin_files, versions

POLL = 0.2  # seconds; a signal is seen between two looks
WAITS = 10  # seconds without a place for every worker, after which the user is told


@contextmanager
def crew(model: str, how: Mapping[str, Any], request: Request, say: Say = print) -> Iterator["Crew"]:
    """Workers with the model loaded; `how` are the arguments of `load_subject`. They end with the block."""
    own = needs(request, how.get("device")) if request.address is None else None
    with cluster(request.address, own.n_cpus if own else 1, own.n_gpus if own else 0, say) as ray:
        need = own or needs(request, how.get("device"), ray.cluster_resources())
        # Relative to where the command was started, which is not where a worker runs.
        source = os.path.abspath(model) if os.path.isdir(model) else model
        settled = "OMP_NUM_THREADS" in os.environ
        sources = {str(path): plugin_files(path) for path in plugins()}
        load = Load(source, {**how, "device": need.device}, need.threads, settled, sources)
        actor = ray.remote(Worker).options(
            num_cpus=need.cpus_each, num_gpus=need.gpus_each, max_restarts=0, scheduling_strategy="SPREAD"
        )
        with until_done(STARTING):
            members = [Member(ray, actor.remote(load)) for _ in range(need.n)]
        try:
            yield _loaded(ray, members, request.address is not None, say)
        finally:
            with until_done(ENDING):
                for member in members:
                    with suppress(ray.exceptions.RayError, ValueError):  # its machine, or the cluster, may be gone
                        ray.kill(member.actor)


def _loaded(ray: Any, members: Sequence[Member], joined: bool, say: Say) -> "Crew":
    made = Crew(ray, list(members), say)
    waiting = {member.call("load"): member for member in members}
    begun, told = time.monotonic(), False
    while waiting:
        for reference in made.ready(list(waiting)):
            member = waiting.pop(reference)
            try:
                member.about = member.answer(reference)
            except Lost as error:
                also = f" And {SAME_TOKEN}" if joined else ""
                raise UserError(
                    f"a worker ended while it loaded the model ({error}); is there memory for it?{also}"
                ) from None
        if joined and not told and waiting and time.monotonic() - begun > WAITS:
            say(f"{len(waiting)} of {len(members)} workers still load the model, or wait for a place in the cluster")
            told = True
    made.compare()
    hosts = Counter(member.about.host for member in members)
    where = ", ".join(f"{n} on {host}" for host, n in hosts.items())
    first = members[0].about
    threads = "1 thread" if first.threads == 1 else f"{first.threads} threads"
    say(f"workers: {where}; {first.device}, {threads} each; the checks run on the first ({members[0].where})")
    return made


@dataclass
class Crew:
    """The workers of one command."""

    ray: Any
    members: list[Member]
    say: Say
    hashes: Mapping[Path, str | None] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        return self.members[0].about.dtype

    def alive(self) -> list[Member]:
        """The workers that are left; `UserError` for none."""
        left = [member for member in self.members if not member.lost]
        if not left:
            raise UserError("no worker is left; what was computed is kept, and the same command goes on from there")
        return left

    def compare(self) -> None:
        """`UserError` that names the worker whose versions are not this process's, or whose model is another."""
        here = versions()
        for member in self.members:
            about = member.about
            for what, value in about.versions.items():
                if value != here.get(what):
                    raise UserError(
                        f"{about.host} has {what} {value[:16]}, and this machine {here.get(what, 'none')[:16]}; "
                        "give every machine the same"
                    )
            if about.identity != self.members[0].about.identity:
                raise UserError(
                    f"{about.host} has another model than {self.members[0].about.host} under that name; "
                    "give every machine the same files"
                )

    def identity(self) -> dict[str, Any]:
        return dict(self.members[0].about.identity)

    def expect(self, hashes: Mapping[Path, str | None]) -> None:
        self.hashes = hashes

    def notes(self) -> Row:
        hosts = Counter(member.about.host for member in self.members)
        devices = sorted({member.about.device for member in self.members})
        return {
            "workers": {"n": len(self.members), "hosts": dict(hosts), "devices": devices, "ray": self.ray.__version__}
        }

    def task(
        self, experiment: Intervention, settings: Settings, dataset: Dataset, pairs: Sequence[Pair] = ()
    ) -> "CrewTask":
        threads = self.members[0].about.threads
        files = files_of_experiment(experiment, settings.options).get("option_files", {})
        order = Order(experiment.name, experiment.code_hash(), settings, dataset, self.hashes, threads, files)
        _, (recorded, n_combinations) = self.first("begin", order, pairs)
        return CrewTask(self, order, recorded, n_combinations)

    def first(self, method: str, *args: Any) -> tuple[Member, Any]:
        """The first worker and what it gives, or the next one where it is lost."""
        while True:
            member = self.alive()[0]
            try:
                return member, self.wait(member, member.call(method, *args))
            except Lost as error:
                self.warn(member, error, "; the next one begins anew with what it had begun")

    def wait(self, member: Member, reference: Any) -> Any:
        while not self.ready([reference]):
            pass
        return member.answer(reference)

    def ready(self, references: Sequence[Any]) -> list[Any]:
        """Those that there is an answer to, perhaps none yet."""
        return self.ray.wait(list(references), timeout=POLL)[0]

    def warn(self, member: Member, error: Lost, what: str = "") -> None:
        self.say(f"warning: the worker on {member.where} is gone ({error}){what}")


@dataclass(frozen=True)
class CrewTask:
    """An experiment that runs on workers; `runs.place.Task`."""

    crew: Crew
    order: Order
    recorded: Row
    n_combinations: int

    def check(self, pairs: Sequence[Pair], name: str, run: RunDir, say: Say) -> None:
        """On one worker; what it found is written and said here."""
        member, (events, error) = self.crew.first("check", self.order, pairs, name, run.path)
        for method, args in events:
            say(*args) if method == "say" else getattr(run, method)(*args)
        if error:
            raise member.named(error)

    def records(self, pairs: Sequence[Pair], say: Say, failed: Failed, asked: Asked) -> Iterator[list[Row]]:
        crew = self.crew
        begun = [(member, member.call("begin", self.order)) for member in crew.alive()]
        for member, reference in begun:
            try:
                crew.wait(member, reference)
            except Lost as error:
                crew.warn(member, error)
        yield from in_order(crew, pairs, say, failed, asked)
